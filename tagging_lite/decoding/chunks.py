"""WAV and its relatives: find the samples when the header does not give their true size.

Programs that write to a pipe cannot go back to fill in the size: 0, the largest number or a round one stands there.
libsndfile takes some of these as the truth, and reads a file that is cut short without an error.
"""
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from tagging_lite.decoding.views import Data, View
from tagging_lite.errors import SoundError

SLACK = 1 << 16                 # programs subtract their headers from the placeholder, and round it
UNKNOWN = 2_000_000_000, 2**31, 2**32, 2**63, 2**64
UNSURE = "its header gives no certain length; it was read to the end of the file"
SURE = 2**32, 2**63, 2**64      # no file has this size. A file of 2 GB exists, and could be cut short
TAGS = b"ID3", b"TAG", b"APETAGEX", b"LYRICS"       # may follow the last chunk, as may zeros
UNPACKED = 1, 3, 6, 7, 0xFFFE   # format tags of WAV whose samples have a fixed size
MPEG = 0x50, 0x55               # format tags of WAV for MPEG audio
DAMAGED = ("damaged: its header counts {} bytes of samples, and {} bytes that are no chunk follow them. Repair the "
           "header, for example with `ffmpeg -ignore_length 1 -i FILE NEW.flac`")


@dataclass(frozen=True)
class Family:
    """How a family of formats writes its chunks."""
    order: str                  # of the bytes, as in struct
    first: int                  # byte of the first chunk
    name: int = 4               # bytes of a name
    size: str = "I"             # type of a size, as in struct
    data: bytes = b"data"       # name of the chunk with the samples
    own: int = 0                # bytes of the chunk's header that its size includes
    pad: int = 2                # chunks begin at multiples of this
    before: int = 0             # bytes before the first sample in its chunk


FAMILIES = {
    b"RIFF": Family("<", 12), b"RIFX": Family(">", 12), b"RF64": Family("<", 12), b"BW64": Family("<", 12),
    b"FORM": Family(">", 12, data=b"SSND", before=8),
    b"caff": Family(">", 8, size="Q", data=b"data", pad=1, before=4),
    b"riff": Family("<", 40, name=16, size="Q", own=24, pad=8),
}


@dataclass
class Samples:
    """The samples of a file, as its header describes them."""
    start: int = 0                  # byte of the first one
    size: int = 0                   # bytes
    frame: int = 1                  # bytes of one sample of all channels
    mpeg: bool = False              # they are MPEG audio
    view: View | None = None        # the file with the right size in its header; None if the header is right
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Number:
    """A number in a header that depends on the size of the samples: (size + plus) // divisor."""
    place: int
    form: str                       # as in struct
    plus: int = 0
    divisor: int = 1

    def patch(self, head: bytearray, size: int) -> None:
        """
        Raises:
            SoundError: the size is too large for the number.
        """
        try:
            struct.pack_into(self.form, head, self.place, (size + self.plus) // self.divisor)
        except struct.error as error:
            raise SoundError(f"{size} bytes of samples, too many for its format. Convert it to FLAC, for example with "
                             "`ffmpeg -ignore_length 1 -i FILE NEW.flac`") from error


def find_samples(data: Data) -> Samples | None:
    """Find the samples of a file of chunks, or of an .au file. Return None for any other format.

    Raises:
        SoundError: the file is cut short or damaged.
    """
    if data[:4] == b".snd":
        start, size = struct.unpack(">II", data[4:12].ljust(8, b"\0"))
        return measure(data, Samples(start, size), [Number(8, ">I")], None)
    family = FAMILIES.get(data[:4])
    if family is None or (family.first == 12 and data[8:12] not in (b"WAVE", b"AIFF", b"AIFC") and len(data) >= 12):
        return None
    samples, numbers = Samples(), []
    for name, size, content in chunks(data, family, family.first):
        def fields(form: str, start: int = content) -> tuple[int, ...]:
            length = struct.calcsize(form)
            return struct.unpack(form, data[start:start + length].ljust(length, b"\0"))

        if name == b"ds64":
            numbers, wide = [Number(content + 8, "<Q")], fields("<8xQ")[0]
        elif name == b"fmt ":
            tag, block = fields(f"{family.order}H10xH")
            samples.frame, samples.mpeg = block if tag in UNPACKED else 1, tag in MPEG
        elif name == b"COMM":
            channels, bits = fields(">H4xH")
            samples.frame = max(1, channels * ((bits + 7) // 8))
            numbers = [Number(content + 2, ">I", 0, samples.frame)]
        elif name == b"desc":
            samples.frame = fields(">16xI")[0]
        elif name == family.data:
            if not (numbers and numbers[0].form == "<Q" and size == 2**32 - 1):      # RF64 has its size in ds64
                wide = size
                numbers.append(Number(content - struct.calcsize(family.size), family.order + family.size,
                                      family.own + family.before))
            samples.start, samples.size = content + family.before, max(0, wide - family.before)
            return measure(data, samples, numbers, family)
    raise SoundError("cut short: it has no data chunk")


def chunks(data: Data, family: Family, place: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, size and first byte of each chunk."""
    header = struct.Struct(f"{family.order}{family.name}s{family.size}")
    while place + header.size <= len(data):
        name, size = header.unpack(data[place:place + header.size])
        content, size = place + header.size, max(0, size - family.own)
        yield name[:4], size, content
        place = content + size
        place += -place % family.pad


def measure(data: Data, samples: Samples, numbers: list[Number], family: Family | None) -> Samples:
    """Compare the size in the header with the file, and correct it.

    Args:
        numbers: of the header, to correct.
        family: None if the samples are the last thing in the file.
    Raises:
        SoundError: the file is cut short or damaged.
    """
    claimed, there = samples.size, len(data) - samples.start
    missing = claimed - there
    if missing > 0:
        unknown = [limit for limit in UNKNOWN if abs(claimed - limit) <= SLACK]
        if not unknown and missing > 1 and missing >= samples.frame:
            raise SoundError(f"cut short: {missing} of {claimed} bytes are missing")
        if unknown and not set(unknown) & set(SURE):
            samples.notes.append(UNSURE)
        samples.size = there
    elif claimed == 0 or missing < 0:
        rest = samples.start + claimed
        if not ends_in_chunks(data, rest, family):
            if claimed:
                raise SoundError(DAMAGED.format(claimed, len(data) - rest))
            samples.size = there
    if samples.size != claimed:
        head = bytearray(data[:samples.start])
        for number in numbers:
            number.patch(head, samples.size)
        samples.view = View(head, memoryview(data)[samples.start:])
    return samples


def ends_in_chunks(data: Data, place: int, family: Family | None) -> bool:
    """Whether nothing follows from `place` on but chunks without samples, tags and zeros."""
    for start in {place, place + (-place % family.pad if family else 0)}:       # some programs do not pad
        end = skip_chunks(data, start, family) if family else start
        rest = data[end:end + 8]
        if len(rest) < 8 or rest.startswith(TAGS) or not (rest.strip(b"\0") or data[end:].strip(b"\0")):
            return True
    return False


def skip_chunks(data: Data, place: int, family: Family) -> int:
    """Return the first byte from `place` on that belongs to no chunk, or to one with samples."""
    for name, size, content in chunks(data, family, place):
        known = name.isascii() and name.decode().isprintable() and name not in (family.data, *FAMILIES)
        if not known or content + size > len(data) + 1:
            break
        place = content + size
        place += -place % family.pad
    return place
