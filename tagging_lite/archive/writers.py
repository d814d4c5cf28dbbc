"""The tags and embeddings of files -> parquet, csv, jsonl, and labels for Audacity and Raven."""
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from tagging_lite.archive.fetch import is_url
from tagging_lite.console import csv_writer, json_text
from tagging_lite.errors import TaggingError
from tagging_lite.formats import LABEL_FORMATS
from tagging_lite.tagger import Tagger, TagResult

ROWS = 2**17            # of a row group of parquet
VALUES = 2**24          # numbers of a row group of embeddings, 32 MB
MODEL_KEY = "model"     # key of the metadata of embeddings: `Tagger.checksum`
COLUMNS = ("path", "duration", "second", "tag", "probability")

Row = tuple[str, float, int | None, str | None, float | None]


class Choice(NamedTuple):
    """The tags that are written, as in `Tagger.top_tags`."""
    tagger: Tagger
    top: int
    threshold: float | np.ndarray       # one number, or (classes,)

    def tags(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        """(classes,) -> tags and their probabilities, the highest first."""
        return self.tagger.top_tags(probabilities, self.top, self.threshold)

    def entry(self, path: str, result: TagResult) -> dict[str, object]:
        """Return the results of a file for JSON."""
        return {"path": path} | self.tagger.describe(result, self.top, self.threshold)


class Writer(Protocol):
    """Writes results into an open file."""
    def add(self, path: str, result: TagResult) -> None:
        """Write the results of a file."""

    def finish(self) -> None:
        """Write what is kept in memory."""


def tag_rows(path: str, result: TagResult, choice: Choice) -> Iterator[Row]:
    """Yield the rows of `COLUMNS` of a file. `second` is None for the tags of the whole file.

    A file without a tag has one row, so that each file is in the table.
    """
    duration = round(result.seconds, 3)
    whole = choice.tags(result.probabilities)
    if not whole:
        yield path, duration, None, None, None
    seconds = () if result.timeline is None else result.timeline
    for second, row in [(None, whole), *enumerate(map(choice.tags, seconds))]:
        for name, value in row:
            yield path, duration, second, name, round(value, 6)


class CsvWriter:
    """Writes the rows of `tag_rows`. None is an empty field."""

    def __init__(self, file: IO[bytes], choice: Choice):
        self.choice = choice
        self.writer = csv_writer(TextFile(file))
        self.writer.writerow(COLUMNS)

    def add(self, path: str, result: TagResult) -> None:
        self.writer.writerows(tag_rows(path, result, self.choice))

    def finish(self) -> None:
        pass


class JsonLinesWriter:
    """Writes one object for each file, as `--format json` prints it."""

    def __init__(self, file: IO[bytes], choice: Choice):
        self.file, self.choice = TextFile(file), choice

    def add(self, path: str, result: TagResult) -> None:
        self.file.write(json_text(self.choice.entry(path, result)) + "\n")

    def finish(self) -> None:
        pass


class ParquetWriter:
    """Writes the rows of `tag_rows` as parquet."""

    def __init__(self, file: IO[bytes], choice: Choice):
        pa, parquet = import_pyarrow()
        self.choice, self.rows, self.pa = choice, list[Row](), pa
        self.schema = pa.schema([("path", pa.string()), ("duration", pa.float64()), ("second", pa.int32()),
                                 ("tag", pa.string()), ("probability", pa.float32())])
        self.writer = parquet.ParquetWriter(file, self.schema, compression="zstd")

    def add(self, path: str, result: TagResult) -> None:
        self.rows.extend(tag_rows(printable(path), result, self.choice))
        if len(self.rows) >= ROWS:
            self.flush()

    def flush(self) -> None:
        columns = list(zip(*self.rows)) or [()] * len(COLUMNS)
        self.writer.write_table(self.pa.table(dict(zip(COLUMNS, map(list, columns))), self.schema))
        self.rows.clear()

    def finish(self) -> None:
        if self.rows:
            self.flush()
        self.writer.close()


class EmbeddingWriter:
    """Writes the embedding of each file, and with a timeline those of its seconds: path, second, embedding (float16).

    `second` is null for the embedding of the whole file.
    """

    def __init__(self, file: IO[bytes], choice: Choice):
        self.pa, self.parquet = import_pyarrow()
        self.file, self.tagger, self.metadata = file, choice.tagger, {MODEL_KEY: choice.tagger.checksum}
        self.writer: Any = None
        self.paths: list[str] = []
        self.seconds: list[int | None] = []
        self.values: list[np.ndarray] = []      # each (features,) float16
        self.features = 0

    def add(self, path: str, result: TagResult) -> None:
        assert result.embedding is not None
        seconds = () if result.timeline_embeddings is None else result.timeline_embeddings
        rows = [result.embedding, *seconds]
        self.features = len(result.embedding)
        self.paths += [printable(path)] * len(rows)
        self.seconds += [None, *range(len(seconds))]
        self.values += [row.astype(np.float16) for row in rows]
        if len(self.values) * self.features >= VALUES:
            self.flush()

    def flush(self) -> None:
        pa = self.pa
        flat = np.concatenate(self.values) if self.values else np.zeros(0, np.float16)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), self.features)
        table = pa.table({"path": pa.array(self.paths, pa.string()), "second": pa.array(self.seconds, pa.int32()),
                          "embedding": vectors}, metadata=self.metadata)
        if self.writer is None:
            self.writer = self.parquet.ParquetWriter(self.file, table.schema, compression="zstd")
        self.writer.write_table(table)
        self.paths, self.seconds, self.values = [], [], []

    def finish(self) -> None:
        if self.writer is None and not self.values:     # all files failed; the column still has its length
            silence = np.zeros((1, self.tagger.info.window), np.int16)
            self.features = self.tagger.values(True)(silence)[0, :, len(self.tagger.info.classes):].size
        if self.values or self.writer is None:
            self.flush()
        self.writer.close()


class LabelWriter:
    """Writes a file of labels for each sound, for Audacity or Raven: for /rec/a.wav OUT/rec/a.wav.txt.

    Args:
        form: a key of `LABEL_FORMATS`.
    """

    def __init__(self, folder: Path, choice: Choice, form: str):
        self.folder, self.choice = folder, choice
        self.make, self.suffix = LABEL_FORMATS[form]

    def add(self, path: str, result: TagResult) -> None:
        parts = (re.split(r"/|::", path.replace("://", "/")) if is_url(path)
                 else os.path.normpath(Path(path).absolute()).split("/"))
        inner = "/".join(part for part in parts if part not in ("", ".", ".."))
        target = self.folder / f"{inner}{self.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary(target), "wb") as file:
            TextFile(file).write(self.make(Path(path), result, *self.choice))
        temporary(target).replace(target)

    def finish(self) -> None:
        pass


WRITERS: dict[str, Callable[[IO[bytes], Choice], Writer]] = {
    "parquet": ParquetWriter, "csv": CsvWriter, "jsonl": JsonLinesWriter}


class TextFile:
    """Text -> UTF-8 in a binary file. A name that is not UTF-8 keeps the bytes that it has on the disk."""

    def __init__(self, file: IO[bytes]):
        self.file = file

    def write(self, text: str) -> None:
        self.file.write(text.encode("utf-8", "surrogateescape"))


def temporary(path: Path) -> Path:
    """Return the name of a file until it is complete. Readers of data sets ignore it."""
    return path.with_name(f"_{path.name}.tmp")


def printable(name: str) -> str:
    """Return a name that parquet takes, which is UTF-8: other bytes are escaped, as in \\\\xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def import_pyarrow() -> tuple[Any, Any]:
    """
    Raises:
        TaggingError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise TaggingError("Parquet files need the package pyarrow, which is not installed. Install it with "
                           "`pip install pyarrow`. For tags, --format csv and jsonl need no package.") from error
    return pyarrow, parquet
