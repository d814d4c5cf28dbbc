"""Read the tags of many sounds, one sound at a time: the access log of the service, and what `tools.tag` writes.

The formats are told apart by their content:

    JSON lines     {"time": "2026-11-25T20:34:19Z", "model": "SHA-256", "tags": [["Bark", 0.93], ["Meow", 0.04]]}
    JSON           a list with one such object on each line, as `tools.tag --format json` writes it
    csv            a row for each tag: path, second, tag, probability
    parquet        the same columns

A folder of `tools.tag --out` is read part by part.
"""
import csv
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from tagging.errors import TaggingError

REMEDY = "Correct or remove it, or leave out such lines with --skip-bad-lines."
COLUMNS = ("path", "tag", "probability")


@dataclass(frozen=True)
class TaggedSound:
    """The tags of one sound."""
    where: str                      # file and line, for messages
    tags: dict[str, float]          # class -> probability
    time: datetime | None = None    # with a time zone
    model: str = ""                 # SHA-256 of the model, "" if it is not recorded


@dataclass
class TagReader:
    """Reads logs of any size in a stream.

    Attributes:
        skipped: kind of line -> number of the lines that hold no tags.

    Args:
        skip_bad_lines: count lines that cannot be read, instead of raising an error.
    """
    skip_bad_lines: bool = False
    skipped: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path) -> Iterator[TaggedSound]:
        """Yield the sounds of a file, or of all files of a folder. Names that end with .gz are unpacked.

        Raises:
            TaggingError: a file cannot be read, or a line of it. An incomplete last line is counted only.
        """
        if path.is_dir():
            parts = sorted(part for part in path.iterdir()
                           if part.suffix in (".parquet", ".csv", ".jsonl") and not part.name.startswith((".", "_")))
            if not parts:
                raise TaggingError(f"{path} has no parquet, csv or jsonl file. Choose a folder that tools.tag wrote.")
            for part in parts:
                yield from self.read(part)
        elif path.suffix == ".parquet":
            yield from self.group(path, read_parquet(path))
        else:
            yield from self.read_text(path)

    def read_text(self, path: Path) -> Iterator[TaggedSound]:
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
                lines = ((number, line.decode("utf-8", "surrogateescape")) for number, line in enumerate(file, 1))
                for number, line in lines:
                    if line.strip():
                        rows = chain_first((number, line), lines)
                        yield from (self.read_json if line.lstrip()[0] in "{[" else self.read_csv)(path, rows)
        except (OSError, EOFError, zlib.error) as error:
            raise TaggingError(f"{path} could not be read: {getattr(error, 'strerror', None) or error}. Check the "
                               "path, and copy the file again.") from error

    def read_json(self, path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[TaggedSound]:
        for number, line in lines:
            where, text = f"{path}, line {number}", line.strip().removesuffix(",")
            if text in ("", "[", "]"):
                continue
            try:
                try:
                    entry = json.loads(text.removeprefix("["))
                except ValueError as error:
                    if not line.endswith("\n"):     # the writer was stopped, or still writes
                        self.skipped["incomplete last lines"] += 1
                        continue
                    raise TaggingError(f"no JSON object ({error})") from error
                sound = parse_entry(entry, where)
            except TaggingError as error:
                self.reject(where, error)
                continue
            if sound:
                yield sound
            else:
                self.skipped["lines without tags, such as other requests"] += 1

    def read_csv(self, path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[TaggedSound]:
        complete = True         # whether the last line ends with a line break

        def texts() -> Iterator[str]:
            nonlocal complete
            for _, line in lines:
                complete = line.endswith("\n")
                yield line

        reader = csv.reader(texts())
        header = next(reader)
        if missing := [name for name in COLUMNS if name not in header]:
            raise TaggingError(f"{path}, line 1: the column {missing[0]} is missing. A log has JSON lines, or the csv "
                               "columns path, second, tag and probability of tools.tag.")

        def rows() -> Iterator[tuple[int, dict[str, str]]]:
            for row in reader:
                if row:
                    yield reader.line_num, dict(zip(header, row))

        last: TaggedSound | None = None
        for sound in self.group(path, rows()):
            if last:
                yield last
            last = sound
        if last and complete:
            yield last
        elif not complete:      # the other tags of the last sound are unknown
            self.skipped["incomplete last lines"] += 1

    def group(self, path: Path, rows: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[TaggedSound]:
        """Collect the tags of each path, whose rows follow each other. Rows of single seconds are left out."""
        whole = (row for row in rows if row[1].get("second") in ("", None))
        for _, group in groupby(whole, lambda row: row[1].get("path")):
            tags: dict[str, float] = {}
            where = ""
            try:
                for number, row in group:
                    where = f"{path}, line {number}"
                    if row.get("tag") in tags:      # the same file was tagged twice
                        yield TaggedSound(where, tags)
                        tags = {}
                    if row.get("tag") or row.get("probability"):    # a file without a tag has a row without one
                        add_tag(tags, row.get("tag"), row.get("probability"))
            except TaggingError as error:
                self.reject(where, error)
                continue
            yield TaggedSound(where, tags)

    def reject(self, where: str, error: TaggingError) -> None:
        if not self.skip_bad_lines:
            raise TaggingError(f"{where}: {error}. {REMEDY}") from error
        self.skipped["lines that cannot be read"] += 1


def chain_first(first: tuple[int, str], others: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from others


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the columns of each row of a parquet file.

    Raises:
        TaggingError: pyarrow is not installed, or the file is damaged or has other columns.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise TaggingError(f"{path} needs pyarrow. Install it with `pip install pyarrow`.") from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
            raise TaggingError(f"{path} has no column {missing[0]}. Write it again with tools.tag, with the tags.")
        columns = [name for name in (*COLUMNS, "second") if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (OSError, pyarrow.ArrowException) as error:
        raise TaggingError(f"{path} could not be read: {error}. Write it again.") from error


def parse_entry(entry: object, where: str) -> TaggedSound | None:
    """Return the sound of a JSON object, or None if it has no tags.

    Raises:
        TaggingError: a field has a wrong value. The caller adds the line.
    """
    if not isinstance(entry, dict):
        raise TaggingError("no JSON object")
    if entry.get("tags") is None:
        return None
    tags: dict[str, float] = {}
    if not isinstance(entry["tags"], list):
        raise TaggingError("tags must be a list")
    for tag in entry["tags"]:
        pair = [tag.get("tag"), tag.get("probability")] if isinstance(tag, dict) else tag
        if not isinstance(pair, list) or len(pair) != 2:
            raise TaggingError(f"a tag must be [name, probability], and not {json.dumps(tag)}")
        add_tag(tags, *pair)
    model = entry.get("model") or ""
    if isinstance(model, dict):
        model = model.get("sha256") or ""
    return TaggedSound(where, tags, parse_time(entry["time"]) if "time" in entry else None, str(model))


def add_tag(tags: dict[str, float], name: object, probability: Any) -> None:
    """
    Raises:
        TaggingError: the tag is invalid, or there already.
    """
    try:
        value = math.nan if isinstance(probability, bool) else float(probability)
    except (TypeError, ValueError):
        value = math.nan
    if not isinstance(name, str) or not 0 <= value <= 1:
        raise TaggingError(f"tag {name!r} has the probability {probability!r}, which is no number from 0 to 1")
    if name in tags:
        raise TaggingError(f"duplicate tag {name!r}")
    tags[name] = value


def parse_time(text: object) -> datetime:
    """Return an ISO 8601 time. Without a time zone it is in UTC.

    Raises:
        TaggingError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)     # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise TaggingError(f"{text!r} is no time such as 2026-11-25T20:34:19Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
