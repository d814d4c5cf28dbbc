"""MPEG audio (mp3, mp2): count the frames, because libsndfile takes a wrong or estimated length for the truth."""
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

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
    """The frames of a stream, without the one that holds a Xing header."""
    kind: tuple[int, int, int]
    first: int                      # byte of the first frame, which may be the one with the Xing header
    stop: int                       # byte after the last complete frame
    frames: int                     # complete ones
    samples: int                    # of a frame, for each channel
    cut: bool                       # the last frame is incomplete
    xing: int | None                # frames according to the Xing header
    xing_at: int                    # byte of that number

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
    """Return the frame at `place` if as many frames of its kind follow as make a stream, or as the data have."""
    frame = following = parse_frame(data, place)
    for _ in range(IN_SYNC - 1):
        if following is None or frame is None or following.kind != frame.kind:
            return None
        place += following.length
        if place >= len(data):
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
    checksum = 0 if data[first + 1] & 1 else 2      # bytes; encoders leave them out in this frame or not
    for xing_at in (first + frame.info + 8, first + frame.info + checksum + 8):
        head = data[xing_at - 8:xing_at + 4]
        has_xing = frame.kind[1] == 3 and head[:4] in (b"Xing", b"Info") and len(head) == 12 and head[7] & 1 > 0
        if has_xing:
            break
    frames, stop, cut = 0, first, False
    for place, each in walk(data, first, frame.kind):
        cut = place + each.length > len(data)
        if not cut:
            frames, stop = frames + 1, place + each.length
    return MpegStream(frame.kind, first, stop, frames - has_xing, frame.samples, cut,
                      int.from_bytes(head[8:], "big") if has_xing else None, xing_at)


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


def correct_length(data: Data, stream: MpegStream) -> View | None:
    """Return the stream with a header that gives its true length, or that makes it look longer. None if it needs none.

    Raises:
        SoundError: the stream is shorter than its own Xing header says.
    """
    content = memoryview(data)[stream.first:]
    frame = parse_frame(data, stream.first)
    assert frame
    if stream.layer != 3:     # layers I and II have no such header, and the length is estimated from the size
        return View(content[:stream.stop - stream.first], bytes(content[:frame.length]) * (4 + stream.frames // 100))
    if stream.xing == stream.frames:
        return None
    if stream.xing is not None:
        missing = stream.xing - stream.frames
        if missing > 1 or (missing == 1 and stream.cut):        # some encoders count the frame of the header itself
            raise SoundError(f"cut short: {missing} of {stream.xing} MPEG frames are missing")
        numbers = stream.xing_at - stream.first
        head = bytearray(content[:numbers + 8])
        head[numbers:numbers + 4] = struct.pack(">I", stream.frames)
        if head[numbers - 1] & 2:       # the number of bytes follows
            head[numbers + 4:] = struct.pack(">I", len(content))
        return View(head, content[numbers + 8:])
    head = bytearray(frame.length)
    head[:4] = content[:4]
    head[1] |= 1        # no checksum
    head[frame.info:frame.info + 12] = b"Xing" + struct.pack(">II", 1, stream.frames)
    return View(head, content)
