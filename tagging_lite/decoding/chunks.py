"""WAV and its relatives: find the samples when the header does not give their true size.

Programs that write to a pipe cannot go back to fill in the size: 0, the largest number or a round one stands there.
libsndfile takes some of these as the truth, and reads a file that is cut short without an error.
"""
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from tagging_lite.decoding.views import Data, View
from tagging_lite.errors import SoundError

SLACK = 1 << 16                 # programs subtract their headers from the placeholder, and round it
UNKNOWN = 2_000_000_000, 0x7F000000, 2**31, 2**32, 2**63, 2**64
UNSURE = "its header gives no certain length; it was read to the end of the file"
SURE = 2**32, 2**63, 2**64      # no file has this size. A file of 2 GB exists, and could be cut short
TAGS = b"ID3", b"TAG", b"APETAGEX", b"LYRICS"       # may follow the last chunk, as may zeros
# Names of chunks that programs write after the samples.
AFTER = re.compile(rb"LIST|bext|cue |smpl|inst|iXML|axml|id3 |ID3 |PEAK|fact|JUNK|junk|FLLR|afsp|acid|_PMX|chna")
AFTER_REACH = 1 << 20           # bytes from the end of a file in which they must begin
LEFT = "a few bytes after its samples were left out"
UNPACKED = 1, 3, 6, 7, 0xFFFE   # format tags of WAV whose samples have a fixed size
MPEG = 0x50, 0x55               # format tags of WAV for MPEG audio
FLOAT, EXTENSIBLE = 3, 0xFFFE   # format tags of WAV
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
    frame: int = 0                  # bytes of one sample of all channels, 0 if it varies
    mpeg: bool = False              # they are MPEG audio
    view: View | None = None        # the file with the right size in its header; None if the header is right
    limit: int | None = None        # number of samples of each channel, where libsndfile takes padding for samples
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Number:
    """A number in a header: size of the samples // divisor + plus. Divisor 0: it does not depend on the size."""
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
            value = size // self.divisor if self.divisor else 0
            struct.pack_into(self.form, head, self.place, value + self.plus)
        except struct.error as error:
            raise SoundError(f"{size} bytes of samples, too many for its format. Convert it to FLAC, for example with "
                             "`ffmpeg -ignore_length 1 -i FILE NEW.flac`") from error


def find_samples(data: Data) -> Samples | None:
    """Find the samples of a file of chunks, or of an .au file. Return None for any other format.

    Raises:
        SoundError: the file is cut short or damaged.
    """
    if data[:4] in (b".snd", b"dns."):
        order = ">" if data[:4] == b".snd" else "<"
        start, size = struct.unpack(f"{order}II", data[4:12].ljust(8, b"\0"))
        return measure(data, Samples(start, size), [Number(8, f"{order}I")], None)
    family = FAMILIES.get(data[:4])
    if family is None or (family.first == 12 and data[8:12] not in (b"WAVE", b"AIFF", b"AIFC") and len(data) >= 12):
        return None
    samples, numbers, wide = Samples(), [], None
    for name, size, content in chunks(data, family, family.first):
        def fields(form: str, start: int = content) -> tuple[int, ...]:
            length = struct.calcsize(form)
            return struct.unpack(form, data[start:start + length].ljust(length, b"\0"))

        if name == b"ds64":
            numbers, wide = [Number(content + 8, "<Q")], fields("<8xQ")[0]
        elif name == b"fmt ":
            tag, block, real = fields(f"{family.order}H10xH10xH")
            samples.frame, samples.mpeg = block if tag in UNPACKED else 0, tag in MPEG
            if tag == EXTENSIBLE and real == FLOAT and data[:4] == b"riff":      # libsndfile takes it for integers
                numbers.append(Number(content, "<H", FLOAT, 0))
        elif name == b"COMM":
            channels, bits = fields(">H4xH")
            samples.frame = channels * ((bits + 7) // 8) if data[8:12] == b"AIFF" else 0
            numbers = [Number(content + 2, ">I", 0, samples.frame)] if samples.frame else []
        elif name == b"desc":
            samples.frame = fields(">16xI")[0]
        elif name == family.data:
            if wide is None or size != 2**32 - 1:       # RF64 has its size in ds64
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
        samples.size = find_end(data, samples.start, family) - samples.start if unknown else there
    elif claimed == 0 or missing < 0:
        rest = samples.start + claimed
        tail = find_tail(data, rest, family)
        if tail is None and claimed:
            raise SoundError(DAMAGED.format(claimed, len(data) - rest))
        if tail is None:
            samples.size = find_end(data, samples.start, family) - samples.start
        elif tail:
            samples.notes.append(LEFT)
    if samples.size != claimed or any(number.divisor == 0 for number in numbers):
        head = bytearray(data[:samples.start])
        for number in numbers:
            number.patch(head, samples.size)
        samples.view = View(head, memoryview(data)[samples.start:samples.start + samples.size])
    if data[:4] == b"riff" and samples.frame:
        samples.limit = samples.size // samples.frame
    return samples


def find_tail(data: Data, place: int, family: Family | None) -> int | None:
    """Check that nothing follows from `place` on but chunks without samples, tags and zeros.

    Returns:
        The number of bytes that are too few for a chunk and no zeros, or None if there is more.
    """
    tails = []
    for start in {place, place + (-place % family.pad if family else 0)}:       # some programs do not pad
        end = skip_chunks(data, start, family) if family else start
        rest = data[end:end + 8]
        if rest.startswith(TAGS) or not (rest.strip(b"\0") or data[end:].strip(b"\0")):
            return 0
        if len(rest) < 8:
            tails.append(len(rest))
    return min(tails, default=None)


def find_end(data: Data, start: int, family: Family | None) -> int:
    """Return the byte after the samples of a file without their size: its end, or the first of the chunks there."""
    if family and family.name == 4:
        for match in AFTER.finditer(data, max(start, len(data) - AFTER_REACH)):
            if abs(skip_chunks(data, match.start(), family) - len(data)) <= 1:
                return match.start()
    return len(data)


def skip_chunks(data: Data, place: int, family: Family) -> int:
    """Return the first byte from `place` on that belongs to no chunk, or to one with samples."""
    for name, size, content in chunks(data, family, place):
        known = name.isascii() and name.decode().isprintable() and name not in (family.data, *FAMILIES)
        if not known or content + size > len(data) + 1:
            break
        place = content + size
        place += -place % family.pad
    return place
