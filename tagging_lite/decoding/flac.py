"""FLAC: find the streams of a file, and check or find their lengths."""
import re

from tagging_lite.decoding.views import WINDOW, Data, View, forget, skip_id3, split
from tagging_lite.errors import SoundError

TAIL = 1 << 20              # bytes at the end of a stream in which its last frame must begin
TRIES = 10                  # headers that are tried as that of the last frame; a few bytes look like one by chance
MOST = 1000                 # streams in a file
STREAM = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")      # the name, and the header of STREAMINFO, which has 34 bytes


def is_flac(data: Data) -> bool:
    start = skip_id3(data)
    return data[start:start + 4] == b"fLaC"


def flac_streams(data: Data) -> list[View]:
    """Separate the streams of a FLAC file that follow each other, each with its length in its header.

    Returns:
        the streams, none if the file is nothing but a stream whose length is in its header.
    Raises:
        SoundError: a stream has more samples than its header says, or its last frame is incomplete.
    """
    starts: list[int] = []
    for begin in range(0, len(data), WINDOW):
        starts += [match.start() for match in STREAM.finditer(data, begin, begin + WINDOW + 7)]
        forget(data, begin, begin + WINDOW)
    if len(starts) > MOST:
        raise SoundError(f"it has {len(starts)} FLAC streams, and at most {MOST} are read")
    stops = [*starts[1:], len(data)]
    fields = {start: correct_fields(data, start, stop) for start, stop in zip(starts, stops)}
    if not any(fields.values()):
        return split(data, starts) if starts != [0] else []
    return [View(data[start:start + 18], fields[start] or data[start + 18:start + 26],
                 memoryview(data)[start + 26:stop]) for start, stop in zip(starts, stops)]


def correct_fields(data: Data, start: int, stop: int) -> bytes:
    """Return rate, channels, bits and length of a stream, with the length filled in, or b"" if it is there.

    Raises:
        SoundError: the length is too small, or it is unknown and the last frame is incomplete.
    """
    packed = int.from_bytes(data[start + 18:start + 26], "big")     # the length has the last 36 bits
    total = packed % 2**36
    length = find_length(data, start, stop, total)
    if total and length > total:
        raise SoundError(f"damaged: its header counts {total} samples, and its frames have {length}")
    if not total and not length:
        raise SoundError("cut short: its last FLAC frame is incomplete")
    return b"" if total else (packed + length).to_bytes(8, "big")


def find_length(data: Data, start: int, stop: int, expected: int) -> int:
    """Return the number of samples up to the end of the last frame of a stream. 0 if that frame is incomplete.

    Args:
        expected: a length with which the frame's own checksum need not be compared; that takes long.
    """
    if data[stop - 128:stop - 125] == b"TAG":       # an ID3v1 tag
        stop -= 128
    block_size = int.from_bytes(data[start + 8:start + 10], "big")
    least, place, tried = max(start + 42, stop - TAIL), stop, 0
    while tried < TRIES and (place := data.rfind(b"\xff", least, place)) >= 0:
        if data[place + 1:place + 2] in (b"\xf8", b"\xf9"):
            length = frame_end(data[place:place + 16], block_size)
            if length and (length == expected or not crc(data[place:stop], 0x8005, 16)):
                return length
            tried += length > 0
    return 0


def frame_end(head: bytes, block_size: int) -> int:
    """Return the number of samples from the start of the stream to the end of the frame with the header `head`.

    0 means that this is no header. RFC 9639, section 9.1.

    Args:
        block_size: samples of each frame, if they are equal.
    """
    if len(head) < 6:
        return 0
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

