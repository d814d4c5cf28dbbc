"""A read-only file made of pieces, and the header fields that all formats share."""
import io
import mmap
import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import BinaryIO

Data = bytes | mmap.mmap
WINDOW = 32 << 20       # bytes of a file that are in memory at a time


class View(io.RawIOBase):
    """A read-only file made of pieces of bytes, such as a corrected header and the rest of a file."""

    def __init__(self, *pieces: bytes | bytearray | memoryview):
        self.pieces = [memoryview(piece) for piece in pieces if len(piece)]
        self.starts = list(accumulate((len(piece) for piece in self.pieces), initial=0))
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.starts[-1]}[whence]
        self.place = max(0, origin + offset)
        return self.place

    def readinto(self, buffer) -> int:
        target, done = memoryview(buffer).cast("B"), 0
        while done < len(target) and self.place < self.starts[-1]:
            number = bisect_right(self.starts, self.place) - 1
            begin = self.place - self.starts[number]
            part = self.pieces[number][begin:begin + len(target) - done]
            target[done:done + len(part)] = part
            done += len(part)
            forget(self.pieces[number].obj, self.place, self.place + len(part))
            self.place += len(part)
        return done

    def close(self) -> None:
        for piece in self.pieces:
            piece.release()
        super().close()


@contextmanager
def map_file(file: BinaryIO) -> Iterator[Data]:
    """Map a file into memory, to search it without reading all of it. An empty file gives b""."""
    if not os.fstat(file.fileno()).st_size:
        yield b""
        return
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        yield data
    finally:
        with suppress(BufferError):     # after an error something can still refer to it, and closes it later
            data.close()


def forget(data: object, before: int, after: int) -> None:
    """Give the memory of a mapped file back when reading moves from one window to the next."""
    if before // WINDOW != after // WINDOW and isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)        # the system reads the pages again if they are needed


def split(data: Data, starts: list[int]) -> list[View]:
    """Return the parts of a file that begin at `starts`."""
    return [View(memoryview(data)[start:stop]) for start, stop in zip(starts, [*starts[1:], len(data)])]


def skip_id3(data: Data, start: int = 0) -> int:
    """Return the first byte after the ID3v2 and APEv2 tags at `start`."""
    while True:
        head = data[start:start + 32]
        if head[:3] == b"ID3" and len(head) >= 10:
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte & 0x7F
            start += 10 + size + (10 if head[5] & 0x10 else 0)      # the flag of a footer
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            start += 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)     # header or footer
        else:
            return start
