"""Containers that PyAV reads: their sizes tell whether a file is complete, because FFmpeg reads a cut one silently."""
import struct

from tagging_lite.decoding.views import Data
from tagging_lite.errors import SoundError

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"                # of Matroska and WebM
ASF_HEADER, ASF_DATA = (bytes.fromhex(f"3{digit}26b2758e66cf11a6d900aa0062ce6c") for digit in "06")      # of wma
# First bytes of containers, besides those of MP4 and MPEG transport streams.
MAGIC = (EBML, ASF_HEADER, b"RIFF", b"FLV", b"OggS", b"caff", b"#!AMR", b"wvpk", b"TTA1", b"MAC ", b"MPCK", b"MP+",
         b"DSD ", b"\x0b\x77", b"\0\0\1\xba", b"tBaK")


def is_container(data: Data) -> bool:
    """Whether a file is a container or a stream that FFmpeg knows by its first bytes."""
    head = data[:189]
    return head.startswith(MAGIC) or head[4:8] == b"ftyp" or (head[:1] == b"G" and head[188:] == b"G")


def check_container(data: Data) -> None:
    """
    Raises:
        SoundError: the file is cut short, or a second one follows in it.
    """
    if data[4:8] == b"ftyp":
        check_mp4(data)
    elif data[:4] == EBML:
        check_matroska(data)
    elif data[:16] == ASF_HEADER:
        check_asf(data)
    elif data[:4] == b"RIFF":
        require(data, 8, struct.unpack("<I", data[4:8].ljust(4, b"\0"))[0])


def require(data: Data, start: int, size: int) -> None:
    """Check that `size` bytes follow. 0 and numbers that no file has mean that the size is unknown.

    Raises:
        SoundError: they do not.
    """
    missing = start + size - len(data)
    if missing > 1 and 0 < size < 0xFFFF0000:
        raise SoundError(f"cut short: {missing} of {size} bytes are missing")


def check_mp4(data: Data) -> None:
    """
    Raises:
        SoundError: a box is incomplete, or there are two files.
    """
    place, seen = 0, set()
    while place + 8 <= len(data):
        size, name, header = *struct.unpack(">I4s", data[place:place + 8]), 8
        if size == 1:
            size, header = struct.unpack(">Q", data[place + 8:place + 16].ljust(8, b"\0"))[0], 16
        if size == 0:           # to the end of the file
            return
        if size < header or not name.isascii():
            return              # FFmpeg tells what is wrong
        if name in seen and name in (b"ftyp", b"moov"):
            raise SoundError(f"a second file follows after {place} bytes; split it there")
        seen.add(name)
        require(data, place, size)
        place += size


def check_matroska(data: Data) -> None:
    """
    Raises:
        SoundError: the segment is incomplete.
    """
    size, place = read_size(data, 4)
    if size is None or data[place + size:place + size + 4] != SEGMENT:
        return
    size, place = read_size(data, place + size + 4)
    if size is not None:        # unknown in a recording of a running stream
        require(data, place, size)


def read_size(data: Data, place: int) -> tuple[int | None, int]:
    """Return the size of an element of EBML, None if it is unknown, and the byte after it. RFC 8794, section 4."""
    first = data[place] if place < len(data) else 0
    length = 9 - first.bit_length()
    value = int.from_bytes(data[place:place + length], "big") & (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 or length > 8 else value), place + length


def check_asf(data: Data) -> None:
    """
    Raises:
        SoundError: the object with the sound is incomplete.
    """
    place = struct.unpack("<Q", data[16:24].ljust(8, b"\0"))[0]
    if data[place:place + 16] == ASF_DATA:
        require(data, place, struct.unpack("<Q", data[place + 16:place + 24].ljust(8, b"\0"))[0])
