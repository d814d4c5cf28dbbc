"""Csv files as text: their encoding, their separator, and the columns that spreadsheets and pandas add.

What is assumed about a file is logged once. This module imports no library, so that `lwlrap.py` starts quickly.
"""
import codecs
import csv
import io
import logging
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagging.errors import TaggingError, shorten
from tagging_lite.find import SUFFIXES

log = logging.getLogger(__name__)

MAX_COLUMNS = 10_000
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
ENCODINGS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
             codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
BINARY = (b"PK\3\4", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"PAR1",
          b"ARROW1", b"FEA1", b"\x93NUMPY", b"\x89HDF", b"SQLite", b"%PDF")        # workbooks, archives, tables
SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)[,;\t"]*(\r\n|\r|\n|$)', re.IGNORECASE)     # Excel reads and hides it
NAMELESS = re.compile(r"(Unnamed: \d+(\.\d+)*)?")       # pandas gives columns without a name such names

# UTF-8 in a file that is not UTF-8 as a whole.
UTF8_PART = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# What other code pages look like if they are read as Windows-1252: three such characters in a row (Cyrillic, Greek,
# Asian), letters of the Mac's code page, or a sign beside a letter (Central European).
LETTER = "a-zA-ZÀ-ÖØ-öø-ÿœŒ"
SIGNS = "\xa0\u2018\u2019\u201c\u201d\u2013\u2014«»…€£©®™"     # that can be in front of a letter or behind it
OTHER_CODE_PAGE = re.compile(rf"[^\x00-\x7f]{{3}}|[ŠšŽžŸƒ]|(?<=[{LETTER}])[^\x00-\x7f{LETTER}{SIGNS}]"
                             rf"|[^\x00-\x7f{LETTER}{SIGNS}¿¡](?=[{LETTER}])")

said: set[str] = set()


def say(note: str) -> None:
    """Log a note, once in the life of the process: some files are read several times."""
    if note not in said:
        said.add(note)
        log.info("note: %s", note)


@dataclass(frozen=True)
class CsvRows:
    """A csv file with a header."""
    path: Path
    separator: str
    header: list[str]                           # names without blanks at the ends, each once; at most one is empty
    rows: Iterator[tuple[int, list[str]]]       # each row that is not blank, with its line in the file


def open_csv(path: Path, columns: Sequence[str] = ("fname",)) -> CsvRows:
    """Open a csv with a header.

    UTF-8, UTF-16 and Windows-1252 are read, with any line ends, separated by commas, semicolons, tabs or vertical bars.
    Blank lines, empty columns without a name, and a column of row numbers without a name are left out.

    Args:
        columns: columns that the file must have.
    Raises:
        TaggingError: the file is missing, is no text or no csv, a column of `columns` is missing, or two columns have
            the same name. While the rows are read: a row has another length than the header.
    """
    path = Path(path)
    text = read_text(path)
    separator, start = find_separator(path, text, lambda row: set(columns) <= set(row))
    _, header = next(parse_rows(path, text, separator, start), (0, []))
    names = ["" if NAMELESS.fullmatch(name.strip()) else name.strip() for name in header]
    check_header(path, names, columns, text)
    needed = 1 + max(place for place, name in enumerate(names) if name)     # Excel may leave out empty fields behind

    def rows() -> Iterator[tuple[int, list[str]]]:
        lines = parse_rows(path, text, separator, start)
        next(lines, None)
        for line, row in lines:
            if len(row) != len(names):
                if len(row) < needed or any(field.strip() for field in row[len(names):]):
                    remedy = ("Complete the row, or remove it if it is no clip." if len(row) < needed else
                              f"Quote fields that contain {SEPARATORS.get(separator, repr(separator))}.")
                    raise TaggingError(f"{path}, line {line}: {len(row)} fields where the header has {len(names)}. "
                                       + remedy)
                row = row[:len(names)] + [""] * (len(names) - len(row))
            yield line, row

    dropped = find_fillers(path, names, rows()) if "" in names else set()
    if not dropped:
        return CsvRows(path, separator, names, rows())
    kept = [place for place in range(len(names)) if place not in dropped]
    return CsvRows(path, separator, [names[place] for place in kept],
                   ((line, [row[place] for place in kept]) for line, row in rows()))


def check_header(path: Path, names: list[str], columns: Sequence[str], text: str) -> None:
    if len(names) > MAX_COLUMNS:
        raise TaggingError(f"{path} has {len(names)} columns, and at most {MAX_COLUMNS} are read. Check that this "
                           "is the right file.")
    missing = [name for name in columns if name not in names]
    if missing:
        header = f"its header is '{shorten(names)}'" if names else "it is empty"
        raise TaggingError(f"{path} has no column {shorten(missing)}: {header}. "
                           f"{explain_header(names, columns, text)}.")
    repeated = sorted({name for name, count in Counter(names).items() if count > 1 and name} | {
        name for name in ("fname", "labels") if {name, f"{name}.1"} <= set(names)})      # pandas names the second so
    if repeated:
        raise TaggingError(f"{path}: the header names {shorten(repeated)} twice. Keep one column of each name.")


def explain_header(names: list[str], columns: Sequence[str], text: str) -> str:
    """Return what to do about a file whose first row does not have the `columns`."""
    if text.lstrip().startswith(("<", "version https://git-lfs")):
        return "It is a web page or a pointer of Git LFS. Download the file itself"
    for separator in SEPARATORS:
        if len(names) == 1 and set(columns) <= set(first_row(names[0], separator)):
            return "Each row is in quotes as a whole. Remove these quotes"
        for line, text_line in enumerate(text.splitlines()[:20], 1):
            if set(columns) <= set(first_row(text_line, separator)):
                return f"The header is in line {line}. Remove the lines above it"
    if any(name.lower().endswith(SUFFIXES) for name in names):
        return "The first row is already a clip. Add a header above it"
    return "Save it again" if not names else "Rename or add the column" if names[0] else "Name the first column"


def find_fillers(path: Path, names: list[str], rows: Iterator[tuple[int, list[str]]]) -> set[int]:
    """Return the columns without a name that have no content: empty ones, and row numbers in front of all others.

    Raises:
        TaggingError: another column has no name.
    """
    nameless = {place for place, name in enumerate(names) if not name}
    filled: dict[int, str] = {}
    numbers = {place: array("q") for place in range(next(place for place, name in enumerate(names) if name))}
    for line, row in rows:
        filled |= {place: f"'{row[place]}' in line {line}" for place in nameless - filled.keys()
                   if row[place].strip()}
        for place in tuple(numbers):
            if re.fullmatch(r"[0-9]{1,18}", row[place].strip()):
                numbers[place].append(int(row[place]))
            else:
                del numbers[place]
    index = {place for place, column in numbers.items() if column and len(set(column)) == len(column)}
    others = sorted(filled.keys() - index)
    if others:
        remedy = ("Remove the column. pandas writes none with index=False, and R with row.names = FALSE."
                  if others[0] == 0 else "Quote fields that contain separators, or name or remove the column.")
        raise TaggingError(f"{path}: the header has no name for column {shorten([place + 1 for place in others])}, "
                           f"which contains {filled[others[0]]}. {remedy}")
    for place in sorted(index):
        say(f"{path}: column {place + 1} has no name and numbers the rows. It is ignored.")
    if empty := nameless - filled.keys():
        say(f"{path}: {len(empty)} empty columns without a name are ignored.")
    return index | empty


def parse_rows(path: Path, text: str, separator: str, start: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a csv that are not blank, with their lines in the file.

    Args:
        start: the first character that is read. It is 0 or the begin of the second line.
    Raises:
        TaggingError: a row is not csv, such as one with an open quote.
    """
    file = io.StringIO(text, newline="")
    file.seek(start)
    reader, skipped = csv.reader(file, delimiter=separator, strict=True), int(start > 0)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield reader.line_num + skipped, row
    except csv.Error as error:
        raise TaggingError(f"{path}, line {reader.line_num + skipped}: not a csv row ({error}). Correct the "
                           "row.") from error


def find_separator(path: Path, text: str, fits: Callable[[list[str]], bool]) -> tuple[str, int]:
    """Return the separator of the fields, and the character where the first row begins.

    Args:
        fits: whether the file can begin with a row of these fields. If no separator gives such a row, it is the comma.
    """
    told = SEPARATOR_LINE.match(text)
    if told:
        return told[1], told.end()
    separator = next((separator for separator in SEPARATORS if fits(first_row(text, separator))), ",")
    if separator != ",":
        say(f"{path}: {SEPARATORS[separator]} separate the fields.")
    return separator, 0


def first_row(text: str, separator: str) -> list[str]:
    """Return the fields of the first row that is not blank, without blanks at their ends, or [] if it is no csv."""
    try:
        _, row = next(parse_rows(Path(), text, separator), (0, []))
    except TaggingError:
        return []
    return [field.strip() for field in row]


def read_text(path: Path) -> str:
    """Read a text file. Its encoding is told by its byte-order mark or by its bytes.

    Raises:
        TaggingError: the file cannot be read, or its encoding cannot be told.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TaggingError(f"{path} could not be read: {error.strerror}. Check the path.") from error
    if content.startswith(BINARY):
        raise TaggingError(f"{path} is a workbook, an archive or another binary file and no csv. Unpack it, or save it "
                           "as CSV UTF-8.")
    mark = next((mark for mark in ENCODINGS if content.startswith(mark)), b"")
    encoding = ENCODINGS.get(mark, "utf-8")
    if not mark and len(content) > 1 and (content[0] == 0) != (content[1] == 0):     # the first character is Latin
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        text = content[len(mark):].decode(encoding)
    except UnicodeDecodeError as error:
        if mark or encoding != "utf-8":
            raise TaggingError(f"{path} begins like {encoding.upper()} text and is none: {error.reason} at byte "
                               f"{error.start + len(mark)}. Save it again as CSV UTF-8.") from error
        return decode_western(path, content, error)
    if encoding != "utf-8":
        say(f"{path} was read as {encoding.upper()} text.")
    return text


def decode_western(path: Path, content: bytes, error: UnicodeDecodeError) -> str:
    """Decode text in Windows-1252, the code page of Excel's "CSV" in Western Europe and America.

    Args:
        error: says why it is not UTF-8.
    Raises:
        TaggingError: it is likely to be another encoding, or the file is a mixture.
    """
    text = content.decode("cp1252", errors="replace")
    if "\ufffd" in text or OTHER_CODE_PAGE.search(text) or UTF8_PART.search(content):
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[:error.start]))
        raise TaggingError(f"{path}, line {line}: this is not UTF-8 text, and its encoding cannot be told. Save the "
                           "file as UTF-8, in Excel as CSV UTF-8.") from error
    words = list(dict.fromkeys(re.findall(r'[^\s,;|"]{0,20}[^\x00-\x7f][^\s,;|"]{0,20}', text)))
    say(f"{path} is not UTF-8 and was read as Windows-1252, with {shorten(words, 3)}. If this is wrong, save the file "
        "as UTF-8.")
    return text
