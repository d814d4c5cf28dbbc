"""Outcomes -> the files of a part of `--out`, which appear when they are complete."""
import errno
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tagging_lite.archive.folder import OutputFolder, Part, sync
from tagging_lite.archive.pipeline import Outcome
from tagging_lite.archive.writers import WRITERS, Choice, EmbeddingWriter, LabelWriter, TextFile, Writer, temporary
from tagging_lite.console import csv_writer
from tagging_lite.formats import LABEL_FORMATS

# Errors of the name of a file of labels: it is too long, or a folder has the name, or a file that of a folder.
UNNAMEABLE = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)


class PartWriter:
    """Writes the files of one part. They get their names when all of them are complete.

    Args:
        start: place of its first file in the list of the shard.
        embeddings: also write embeddings.
    """

    def __init__(self, folder: OutputFolder, number: int, start: int, choice: Choice, form: str, embeddings: bool):
        self.folder, self.number, self.start = folder, number, start
        self.began = time.monotonic()
        self.stop, self.seconds = start, 0.0
        self.faults: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self.files: list[tuple[Path, IO[bytes], Writer]] = []
        self.labels = LabelWriter(folder.path, choice, form) if form in LABEL_FORMATS else None
        kinds = [] if self.labels else [("", form, WRITERS[form])]
        for kind, suffix, make in [*kinds, *([("_embeddings", "parquet", EmbeddingWriter)] if embeddings else [])]:
            path = self.path(kind, suffix)
            file = open(temporary(path), "wb")      # noqa: SIM115    until `finish`
            self.files.append((path, file, make(file, choice)))

    def path(self, kind: str, suffix: str) -> Path:
        """Return the path of a file of this part, and make its folder."""
        folder = self.folder.path / kind
        folder.mkdir(exist_ok=True)
        return folder / f"part{self.folder.suffix}-{self.number:05}.{suffix}"

    def add(self, outcome: Outcome) -> None:
        """Add the next file."""
        name, result = outcome.source.name, outcome.result
        self.stop = outcome.source.place + 1
        if result is None:
            self.faults.append((name, outcome.fault))
            return
        if self.labels:
            try:
                self.labels.add(name, result)
            except OSError as error:
                if error.errno not in UNNAMEABLE:
                    raise
                self.faults.append((name, f"its file of labels cannot have this name ({error.strerror})"))
                return
        self.seconds += result.seconds
        self.notes += [(name, note) for note in result.notes]
        for _, _, writer in self.files:
            writer.add(name, result)

    def finish(self) -> Part:
        """Complete the files. The tags get their name last."""
        self.write_list("_failed", ("path", "reason"), self.faults)
        self.write_list("_notes", ("path", "note"), self.notes)
        for path, file, writer in reversed(self.files):
            writer.finish()
            sync(file)
            file.close()
            temporary(path).replace(path)
        return Part(self.number, self.start, self.stop, len(self.faults), round(self.seconds, 3))

    def discard(self) -> None:
        """Delete what is not complete."""
        for path, file, writer in self.files:
            with suppress(Exception):       # pyarrow would close its writer later, and print that its file is closed
                writer.finish()
            file.close()
            temporary(path).unlink(missing_ok=True)

    def write_list(self, kind: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a csv file of names, or delete that of an interrupted call, if there are none."""
        if not rows:
            with suppress(FileNotFoundError):
                (self.folder.path / kind / f"part{self.folder.suffix}-{self.number:05}.csv").unlink()
            return
        path = self.path(kind, "csv")
        with open(temporary(path), "wb") as file:
            writer = csv_writer(TextFile(file))
            writer.writerow(columns)
            writer.writerows(rows)
            sync(file)
        temporary(path).replace(path)
