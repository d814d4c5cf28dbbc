"""Ogg and FLAC: find the streams of a file, and the length of a FLAC stream that was written to a pipe."""
import re

from tagging_lite.decoding.views import WINDOW, Data, View, forget, skip_id3
from tagging_lite.errors import SoundError

TAIL = 1 << 20              # bytes at the end of a FLAC file in which its last frame must begin
STREAM = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")      # the name, and the header of STREAMINFO, which has 34 bytes
NO_END = "the last page is not marked as the end of the stream; the file may be cut short"


def ogg_streams(data: Data) -> tuple[list[View], list[str]]:
    """Separate the streams of an Ogg file that follow each other. libsndfile reads the first one only.

    Returns:
        the streams, none if the file is one stream; and a note if the last stream has no end.
    Raises:
        SoundError: the last page is incomplete.
    """
    starts: list[int] = []
    ended, begins, place = False, False, 0
    while (place := data.find(b"OggS", place)) >= 0:
        head = data[place:place + 27]
        table = data[place + 27:place + 27 + head[26]] if len(head) == 27 else b""
        following = place + 27 + len(table) + sum(table)
        if len(head) < 27 or len(table) < head[26] or following > len(data):
            raise SoundError(f"cut short: {max(1, following - len(data))} bytes of its last page are missing")
        if head[5] & 2 and not begins:      # several streams side by side all begin before the first data
            starts.append(place)
        begins, ended = bool(head[5] & 2), bool(head[5] & 4)
        forget(data, place, following)
        place = following
    return split(data, starts) if starts != [0] else [], [] if ended else [NO_END]


def split(data: Data, starts: list[int]) -> list[View]:
    return [View(memoryview(data)[start:stop]) for start, stop in zip(starts, [*starts[1:], len(data)])]


def flac_streams(data: Data) -> list[View]:
    """Separate the streams of a FLAC file that follow each other, each with its length in its header.

    Returns:
        the streams, none if the file is one stream whose length is in its header.
    Raises:
        SoundError: a stream has no length in its header, and its last frame is incomplete.
    """
    starts = []
    for begin in range(0, len(data), WINDOW):
        starts += [match.start() for match in STREAM.finditer(data, begin, begin + WINDOW + 7)]
        forget(data, begin, begin + WINDOW)
    streams, corrected = [], False
    for start, stop in zip(starts, [*starts[1:], len(data)]):
        place = start + 18          # rate, channels, bits and length: 8 bytes, of which the length has the last 36 bits
        fields = int.from_bytes(data[place:place + 8], "big")
        if fields % 2**36 == 0:
            fields, corrected = fields + flac_length(data, start, stop), True
        streams.append(View(data[start:place], fields.to_bytes(8, "big"), memoryview(data)[place + 8:stop]))
    return streams if corrected or len(streams) > 1 else []


def flac_length(data: Data, start: int, stop: int) -> int:
    """Return the number of samples of the stream at `start`, from the header of its last frame.

    Raises:
        SoundError: the last frame is incomplete.
    """
    if data[stop - 128:stop - 125] == b"TAG":       # an ID3v1 tag
        stop -= 128
    block_size = int.from_bytes(data[start + 8:start + 10], "big")
    least = max(start + 42, stop - TAIL)
    place = stop
    while (place := data.rfind(b"\xff", least, place)) >= 0:
        if data[place + 1:place + 2] in (b"\xf8", b"\xf9"):
            length = frame_end(data[place:place + 16], block_size)
            if length and not crc(data[place:stop], 0x8005, 16):
                return length
    raise SoundError("cut short: its last FLAC frame is incomplete")


def frame_end(head: bytes, block_size: int) -> int:
    """Return the number of samples from the start of the stream to the end of the frame with the header `head`.

    0 means that this is no header. RFC 9639, section 9.1.

    Args:
        block_size: samples of each frame, if they are equal.
    """
    code = head[2] >> 4
    ones = next((bit for bit in range(8) if not head[4] >> (7 - bit) & 1), 8)       # as in UTF-8
    if code == 0 or ones in (1, 8):
        return 0
    number, place = head[4] & (0x7F >> ones), 5
    for byte in head[5:4 + ones]:
        number, place = number << 6 | byte & 0x3F, place + 1
    if code in (6, 7):
        size, place = 1 + int.from_bytes(head[place:place + code - 5], "big"), place + code - 5
    else:
        size = 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)
    extra = {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)      # bytes of an unusual sample rate
    if crc(head[:place + extra + 1], 0x07, 8):
        return 0
    return size + (number if head[1] & 1 else number * block_size)


def crc(data: bytes, polynomial: int, bits: int) -> int:
    """Return the checksum of `data`. It is 0 if the data end with their own checksum."""
    top, mask, value = 1 << (bits - 1), (1 << bits) - 1, 0
    table = []
    for byte in range(256):
        remainder = byte << (bits - 8)
        for _ in range(8):
            remainder = (remainder << 1 ^ polynomial if remainder & top else remainder << 1) & mask
        table.append(remainder)
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> (bits - 8) ^ byte]
    return value


def is_flac(data: Data) -> bool:
    start = skip_id3(data)
    return data[start:start + 4] == b"fLaC"
