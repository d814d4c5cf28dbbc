"""Ogg: find the streams of a file, and check that no page is missing. libsndfile takes damaged pages for the truth."""
import zlib
from dataclasses import dataclass

from tagging_lite.decoding.views import Data, View, forget, split
from tagging_lite.errors import SoundError

NO_END = "a stream has no mark of its end; the file may be cut short"
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))     # each byte with its bits in reverse order


@dataclass
class Page:
    """The header of a page. RFC 3533, section 6."""
    begins: bool            # the first page of its stream
    ends: bool              # the last page of its stream
    serial: int             # of its stream
    number: int             # within its stream
    stop: int               # byte after the page


def ogg_streams(data: Data) -> tuple[list[View], list[str]]:
    """Separate the streams of an Ogg file that follow each other. libsndfile reads the first one only.

    Returns:
        the streams, none if the file is one stream; and a note if a stream has no end.
    Raises:
        SoundError: a page is damaged or missing.
    """
    starts: list[int] = []
    numbers: dict[int, int] = {}        # serial -> number of the last page, of the streams side by side
    open_ones: set[int] = set()         # serials of the streams without an end
    place, previous, notes = 0, None, []
    while (place := data.find(b"OggS", place)) >= 0:
        page = read_page(data, place)
        if page.begins and not (previous and previous.begins):      # streams side by side all begin before their data
            starts.append(place)
            notes += [NO_END] if open_ones else []
            numbers.clear()
            open_ones.clear()
        expected = 0 if page.begins else numbers.get(page.serial, -2) + 1
        # A recording of a running stream begins with any number.
        if not page.begins and (page.serial not in numbers or page.number != expected) and previous:
            raise SoundError(f"damaged: a page is missing before byte {place}")
        numbers[page.serial] = page.number
        open_ones.add(page.serial)
        if page.ends:
            open_ones.discard(page.serial)
        forget(data, place, page.stop)
        place, previous = page.stop, page
    notes += [NO_END] if open_ones else []
    return split(data, starts) if starts != [0] else [], list(dict.fromkeys(notes))


def read_page(data: Data, place: int) -> Page:
    """
    Raises:
        SoundError: the page is incomplete, or its checksum is wrong.
    """
    head = data[place:place + 27]
    table = data[place + 27:place + 27 + head[26]] if len(head) == 27 else b""
    stop = place + 27 + len(table) + sum(table)
    if len(head) < 27 or len(table) < head[26] or stop > len(data):
        raise SoundError(f"cut short: {max(1, stop - len(data))} bytes of its last page are missing")
    if checksum(head[:22] + bytes(4) + data[place + 26:stop]) != int.from_bytes(head[22:26], "little"):
        raise SoundError(f"damaged: the checksum of the page at byte {place} is wrong")
    serial, number = (int.from_bytes(head[start:start + 4], "little") for start in (14, 18))
    return Page(bool(head[5] & 2), bool(head[5] & 4), serial, number, stop)


def checksum(page: bytes) -> int:
    """Return the checksum of a page: CRC-32 of the polynomial of zlib, with all bits in the other order, without its
    inversions."""
    value = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)
