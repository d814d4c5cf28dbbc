"""Read a zip that `zip -s` has split into parts, without joining the parts on disk.

A split zip is one byte stream, cut anywhere: NAME.z01, NAME.z02 ... NAME.zip. Its directory, at the end of the last
part, gives the place of each member as a part and an offset within that part. `zipfile` accepts no such directory. So
the parts are read as one file whose end is replaced by a directory with the offsets of the whole stream. The format is
that of PKWARE's APPNOTE, sections 4.3 to 4.5 and 8.
"""
import io
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

END = struct.Struct("<4s4H2LH")                 # end of central directory
END64 = struct.Struct("<4sQ2H2L4Q")             # the same with 64-bit fields
LOCATOR = struct.Struct("<4sLQL")               # the place of END64
ENTRY = struct.Struct("<4s6H3L5H2L")            # member in the central directory
FULL16, FULL32 = 0xFFFF, 0xFFFF_FFFF            # the value is in a 64-bit field
ZIP64 = 1                                       # number of the extra field with the 64-bit values of a member
COMMENT = 0xFFFF                                # longest comment after END, in bytes


class JoinedFile(io.RawIOBase):
    """Several files, read as one. It closes none of them."""

    def __init__(self, files: Sequence[BinaryIO]):
        self.files = files
        self.starts = [0, *accumulate(file.seek(0, io.SEEK_END) for file in files)]     # the last one is the size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.starts[-1]}[whence]
        if position < 0:
            raise OSError(f"position {position} is before the start")
        self.position = position
        return position

    def readinto(self, buffer) -> int:      # the type of a buffer is new in Python 3.12
        """Fill `buffer` from one file. The caller, a `BufferedReader`, calls again at the end of a file."""
        if self.position >= self.starts[-1]:
            return 0
        number = bisect_right(self.starts, self.position) - 1
        file, left = self.files[number], self.starts[number + 1] - self.position
        file.seek(self.position - self.starts[number])
        data = file.read(min(len(buffer), left))
        buffer[:len(data)] = data
        self.position += len(data)
        return len(data)


@contextmanager
def open_zip(parts: Sequence[Path]) -> Iterator[ZipFile]:
    """Open a zip for reading.

    Args:
        parts: its files, in order: NAME.z01, NAME.z02 ... NAME.zip, or only NAME.zip.
    Raises:
        BadZipFile: the file is damaged, or `parts` are not all parts of one zip.
    """
    with ExitStack() as stack:
        files: list[BinaryIO] = [stack.enter_context(open(path, "rb")) for path in parts]
        if len(files) > 1:
            joined = JoinedFile(files)
            # The old directory stays before the new one, as bytes that belong to no member.
            files.append(io.BytesIO(whole_directory(io.BufferedReader(joined), joined.starts)))
        yield stack.enter_context(ZipFile(io.BufferedReader(JoinedFile(files), 1 << 20)))


def whole_directory(stream: BinaryIO, starts: Sequence[int]) -> bytes:
    """Return the directory of a split zip as that of a whole one, to be read after the last part.

    Args:
        stream: the joined parts.
        starts: offset of each part within `stream`, and the size of `stream`.
    Raises:
        BadZipFile: the directory is damaged, or a part is missing.
    """
    entries, position = [], 0
    try:
        last, part, count, size, offset = read_end(stream, starts)
        if last != len(starts) - 2:
            raise BadZipFile(f"the archive has {last + 1} parts, not {len(starts) - 1}")
        data = read_at(stream, starts, place(starts, part, offset), size)
        while position < len(data):
            entry, length = whole_entry(data, position, starts)
            entries.append(entry)
            position += length
    except struct.error as error:       # a field is cut short
        raise BadZipFile(f"the directory is damaged: {error}") from error
    if len(entries) != count:
        raise BadZipFile(f"the directory has {len(entries)} members, not {count}")
    directory, begin = b"".join(entries), starts[-1]
    return b"".join((
        directory,
        END64.pack(b"PK\6\6", END64.size - 12, 45, 45, 0, 0, count, count, len(directory), begin),
        LOCATOR.pack(b"PK\6\7", 0, begin + len(directory), 1),
        END.pack(b"PK\5\6", 0, 0, FULL16, FULL16, FULL32, FULL32, 0)))


def read_end(stream: BinaryIO, starts: Sequence[int]) -> tuple[int, int, int, int, int]:
    """Read the end record of a split zip.

    Returns:
        Number of the last part; part of the directory, both from 0; number of members; size of the directory in
        bytes; its offset within its part.
    """
    begin = max(0, starts[-1] - END.size - COMMENT)
    data = read_at(stream, starts, begin, starts[-1] - begin)
    found = data.rfind(b"PK\5\6")
    if not 0 <= found <= len(data) - END.size:
        raise BadZipFile("the end of the directory is missing")
    _, last, part, _, count, size, offset, _ = END.unpack_from(data, found)
    locator = found - LOCATOR.size
    if locator >= 0 and data.startswith(b"PK\6\7", locator):
        _, part64, offset64, parts = LOCATOR.unpack_from(data, locator)
        if parts != len(starts) - 1:
            raise BadZipFile(f"the archive has {parts} parts, not {len(starts) - 1}")
        record = END64.unpack(read_at(stream, starts, place(starts, part64, offset64), END64.size))
        if record[0] != b"PK\6\6":
            raise BadZipFile("the 64-bit end of the directory is missing")
        last, part, _, count, size, offset = record[4:]
    return last, part, count, size, offset


def whole_entry(data: bytes, position: int, starts: Sequence[int]) -> tuple[bytes, int]:
    """Read the member at `position` of a split zip's directory.

    Returns:
        The same member with its offset in the joined parts, and the length of the old one in bytes.
    """
    if len(data) - position < ENTRY.size or not data.startswith(b"PK\1\2", position):
        raise BadZipFile("the directory is damaged")
    *fields, name_size, extra_size, comment_size, part, internal, external, offset = ENTRY.unpack_from(data, position)
    name_end = position + ENTRY.size + name_size
    extra_end, end = name_end + extra_size, name_end + extra_size + comment_size
    extra, large = take_zip64(data[name_end:extra_end])
    packed, unpacked = fields[-2:]
    # The 64-bit field holds, in this order, only those values that are full in the entry itself.
    sizes = large[:8 * ((unpacked == FULL32) + (packed == FULL32))]
    rest = large[len(sizes):]
    if offset == FULL32:
        (offset,), rest = struct.unpack_from("<Q", rest), rest[8:]
    if part == FULL16:
        part, = struct.unpack_from("<L", rest)
    field = sizes + struct.pack("<Q", place(starts, part, offset))
    extra += struct.pack("<2H", ZIP64, len(field)) + field
    entry = ENTRY.pack(*fields, name_size, len(extra), comment_size, 0, internal, external, FULL32)
    return entry + data[position + ENTRY.size:name_end] + extra + data[extra_end:end], end - position


def take_zip64(extra: bytes) -> tuple[bytes, bytes]:
    """Return the extra fields of a member without its 64-bit field, and the content of that field or b""."""
    others, found, position = b"", b"", 0
    while position + 4 <= len(extra):
        number, size = struct.unpack_from("<2H", extra, position)
        end = position + 4 + size
        if number == ZIP64:
            found = extra[position + 4:end]
        else:
            others += extra[position:end]
        position = end
    return others, found


def place(starts: Sequence[int], part: int, offset: int) -> int:
    """Return the offset within the joined parts of an offset within a part."""
    if part >= len(starts) - 1 or starts[part] + offset >= starts[-1]:
        raise BadZipFile(f"the directory names byte {offset} of part {part + 1}, which does not exist")
    return starts[part] + offset


def read_at(stream: BinaryIO, starts: Sequence[int], position: int, size: int) -> bytes:
    """Return `size` bytes of the joined parts."""
    if position + size > starts[-1]:        # a damaged size can be larger than the memory
        raise BadZipFile("the directory is cut short")
    stream.seek(position)
    return stream.read(size)
