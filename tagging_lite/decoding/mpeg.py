"""MPEG audio (mp3, mp2): count the frames, because libsndfile takes a wrong or estimated length for the truth."""
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from tagging_lite.decoding.views import Data, View, forget, skip_id3
from tagging_lite.errors import SoundError

# kbit/s by index, for MPEG-1 layers I, II and III, and for MPEG-2 and 2.5 layer I, then layers II and III.
KILOBITS = {
    (1, 1): [0, *range(32, 449, 32)],
    (1, 2): [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    (1, 3): [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    (2, 1): [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    (2, 2): [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
}
KILOBITS[2, 3] = KILOBITS[2, 2]
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}      # by version
HEADER = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]")    # it excludes runs of equal bytes
REACH = 1 << 16     # bytes from the start of a file within which the first frame must begin
DAMAGED = "some bytes between its MPEG frames are damaged and were left out"
CUT = "its last MPEG frame is incomplete and was left out"
IN_SYNC = 3         # frames in a row that make a stream; noise looks like one frame now and then


@dataclass(frozen=True)
class Frame:
    """The header of a frame."""
    kind: tuple[int, int, int]      # version bits, layer, Hz: equal in all frames of a stream
    length: int                     # bytes, with the header
    samples: int                    # of each channel
    info: int                       # bytes from the start of the frame to where a Xing header can be


@dataclass(frozen=True)
class MpegStream:
    """The frames of a stream."""
    kind: tuple[int, int, int]      # as in `Frame`
    runs: list[tuple[int, int]]     # first byte, and the one after the last, of frames in a row
    frames: int                     # complete ones, without the one that holds a header with their number
    samples: int                    # of a frame, for each channel
    cut: bool                       # the last frame is incomplete
    counted: int | None             # frames according to a Xing or VBRI header
    xing_at: int | None             # byte of that number in a Xing header

    @property
    def layer(self) -> int:
        return self.kind[1]


def parse_frame(data: Data, place: int) -> Frame | None:
    """Return the frame whose header is at `place`, or None if there is none. Streams of free format are not known."""
    return parse_header(data[place:place + 4])


@lru_cache(1000)        # a stream has few different headers
def parse_header(header: bytes) -> Frame | None:
    """Return what the 4 bytes of a header say, or None if they are no header."""
    head = int.from_bytes(header, "big") if len(header) == 4 else 0
    version, layer, rate = head >> 19 & 3, 4 - (head >> 17 & 3), head >> 10 & 3
    index = head >> 12 & 15
    if head >> 21 != 0x7FF or version == 1 or layer == 4 or rate == 3 or index in (0, 15):
        return None
    family = 1 if version == 3 else 2
    hertz, bits = RATES[version][rate], 1000 * KILOBITS[family, layer][index]
    padding = head >> 9 & 1
    samples = {1: 384, 2: 1152, 3: 1152 if family == 1 else 576}[layer]
    length = (12 * bits // hertz + padding) * 4 if layer == 1 else samples * bits // (8 * hertz) + padding
    mono = head >> 6 & 3 == 3
    side = {(1, True): 17, (1, False): 32, (2, True): 9, (2, False): 17}[family, mono]
    return Frame((version, layer, hertz), length, samples, 4 + side)


def in_sync(data: Data, place: int) -> Frame | None:
    """Return the frame at `place` if as many frames of its kind follow as make a stream, or end with the data."""
    frame = following = parse_frame(data, place)
    for _ in range(IN_SYNC - 1):
        if following is None or frame is None or following.kind != frame.kind:
            return None
        place += following.length
        if place == len(data) or data[place:place + 3] == b"TAG":
            return frame
        following = parse_frame(data, place)
    return frame if frame and following and following.kind == frame.kind else None


def find_frame(data: Data, place: int, reach: int | None = None) -> int:
    """Return the byte of the next stream from `place` on, or -1.

    Args:
        reach: number of bytes in which it must begin.
    """
    for match in HEADER.finditer(data, place, len(data) if reach is None else min(len(data), place + reach)):
        if in_sync(data, match.start()):
            return match.start()
    return -1


def starts_as_mpeg(data: Data) -> bool:
    """Whether MPEG audio is the first thing in a file, after ID3v2 tags."""
    return in_sync(data, skip_id3(data)) is not None


def read_stream(data: Data) -> MpegStream | None:
    """Count the frames of MPEG audio. Return None if there are none.

    Raises:
        SoundError: the sample rate changes on the way.
    """
    first = find_frame(data, skip_id3(data), REACH)
    if first < 0:
        return None
    frame = parse_frame(data, first)
    assert frame
    counted, xing_at = read_count(data, first, frame)
    vbri = counted is not None and xing_at is None
    runs: list[tuple[int, int]] = []
    frames, cut = 0, False
    for place, each in walk(data, first, frame.kind):
        cut = place + each.length > len(data)
        if cut or (vbri and place == first):        # the frame of a VBRI header has no sound
            continue
        frames += 1
        if runs and runs[-1][1] == place:
            runs[-1] = runs[-1][0], place + each.length
        else:
            runs.append((place, place + each.length))
    return MpegStream(frame.kind, runs, frames - (xing_at is not None), frame.samples, cut, counted, xing_at)


def read_count(data: Data, first: int, frame: Frame) -> tuple[int | None, int | None]:
    """Return the number of frames that a header in the first frame gives, and its byte if it is a Xing header."""
    if frame.kind[1] != 3:
        return None, None
    checksum = 0 if data[first + 1] & 1 else 2      # bytes; encoders leave them out in this frame or not
    for place in (first + frame.info, first + frame.info + checksum):
        head = data[place:place + 12]
        if head[:4] in (b"Xing", b"Info") and len(head) == 12 and head[7] & 1:
            return int.from_bytes(head[8:], "big"), place + 8
    head = data[first + 36:first + 54]
    if head[:4] == b"VBRI" and len(head) == 18:
        return int.from_bytes(head[14:], "big"), None
    return None, None


def walk(data: Data, place: int, kind: tuple[int, int, int]) -> Iterator[tuple[int, Frame]]:
    """Yield the place and the header of each frame. Tags and damaged bytes between frames are skipped.

    Raises:
        SoundError: a stream of another kind follows.
    """
    while 0 <= place < len(data):
        frame = parse_frame(data, place)
        if frame is None or frame.kind != kind:
            place = find_frame(data, skip_id3(data, place))
            if place < 0:
                return
            frame = parse_frame(data, place)
            assert frame
            if frame.kind != kind:
                raise SoundError(f"its sample rate or format changes after {place} bytes; split it there")
        yield place, frame
        forget(data, place, place + frame.length)
        place += frame.length


def check_stream(data: Data, stream: MpegStream) -> list[str]:
    """Return remarks on a stream.

    Raises:
        SoundError: it is shorter than its header says.
    """
    damaged = any(skip_id3(data, stop) != start for (_, stop), (start, _) in pairwise(stream.runs))
    if stream.counted is not None:
        missing = stream.counted - stream.frames
        # Some encoders count the frame of the header itself.
        if missing > 1 or (missing == 1 and (stream.cut or damaged)):
            raise SoundError(f"cut short: {missing} of {stream.counted} MPEG frames are missing")
    return [DAMAGED] * damaged + [CUT] * (stream.cut and stream.counted is None)


def correct_length(data: Data, stream: MpegStream) -> View | None:
    """Return the stream with a header that gives its true length, or that makes it look longer. None if its own header
    is right."""
    if stream.counted == stream.frames and stream.xing_at is not None and len(stream.runs) == 1:
        return None
    whole = memoryview(data)
    content = [whole[start:stop] for start, stop in stream.runs]
    first = stream.runs[0][0]
    frame = parse_frame(data, first)
    assert frame
    if stream.layer != 3:       # layers I and II have no such header, and the length is estimated from the size
        return View(*content, bytes(whole[first:first + frame.length]) * (4 + stream.frames // 100))
    if stream.xing_at is not None:
        numbers = stream.xing_at - first
        head = bytearray(whole[first:stream.xing_at + 8])
        head[numbers:numbers + 4] = struct.pack(">I", stream.frames)
        if head[numbers - 1] & 2:       # the number of bytes follows
            head[numbers + 4:] = struct.pack(">I", sum(map(len, content)))
        return View(head, content[0][numbers + 8:], *content[1:])
    head = bytearray(frame.length)
    head[:4] = whole[first:first + 4]
    head[1] |= 1        # no checksum
    head[frame.info:frame.info + 12] = b"Xing" + struct.pack(">II", 1, stream.frames)
    return View(head, *content)
