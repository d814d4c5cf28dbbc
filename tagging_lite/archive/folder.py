"""The folder of `--out`: it appears part by part, and the same command completes it after any interruption.

    part-00000.parquet          tags; other parts follow. With --shard 3/16: part-03-of-16-00000.parquet
    _embeddings/part-00000.parquet      with --embeddings
    _failed/part-00000.csv      files that could not be tagged, and why
    _notes/part-00000.csv       remarks on files
    _archive.json               what the folder was begun with
    _sources                    the names of all files, each followed by a zero byte
    _done.jsonl                 the finished parts; for a shard _done-03-of-16.jsonl
    _lock                       held while a process writes; for a shard _lock-03-of-16

Readers of data sets ignore names that begin with "_". A part is written under another name and renamed, then it is
noted as done. What was not noted is done again, and replaces the file of the same name.
"""
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tagging_lite.archive.process import Source
from tagging_lite.archive.shards import Shard
from tagging_lite.archive.sources import SavedNames
from tagging_lite.errors import TaggingError, shorten

KIND = "audio-tagging archive 1"
ABOUT, SOURCES = "_archive.json", "_sources"


@dataclass(frozen=True)
class Part:
    """A finished part: the tags of the files from `start` to before `stop` in the list of its shard."""
    part: int           # number in the name of its files
    start: int
    stop: int
    failed: int         # number of files that could not be tagged
    seconds: float      # of sound


class OutputFolder:
    """The folder of `--out`.

    Attributes:
        parts: finished parts of this shard.
        added: number of files that the list had not when the folder was begun.
    """

    def __init__(self, path: Path, shard: Shard):
        self.path, self.shard = path, shard
        digits = len(str(shard.count))
        self.suffix = f"-{shard.number:0{digits}}-of-{shard.count}" if shard.count > 1 else ""
        self.parts: list[Part] = []
        self.added = 0

    @contextmanager
    def open(self, about: dict[str, Any], names: SavedNames) -> Iterator[SavedNames]:
        """Begin the folder or continue it, and lock it for this shard during the block.

        Args:
            about: what the results depend on, by the name that the user knows.
            names: of all files of all shards.
        Yields:
            the names in the order of the folder: those with which it was begun, and then the others.
        Raises:
            TaggingError: the folder has other files, was begun with something else, or is being written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.lock("_lock-folder", wait=True):
                self.check(about)
                names = self.merge(names)
                if not (self.path / ABOUT).exists():
                    self.replace(self.path / ABOUT, json.dumps({"kind": KIND, **about}, indent=1) + "\n")
            with self.lock(f"_lock{self.suffix}"):
                self.read_done()
                yield names
        except OSError as error:
            raise TaggingError(f"{error.filename or self.path} could not be written: {error.strerror or error}. Check "
                               "the free space and the permissions of the folder.") from error

    @contextmanager
    def lock(self, name: str, wait: bool = False) -> Iterator[None]:
        """Hold a lock file of the folder. The operating system releases it when the process ends."""
        lock = FileLock(self.path / name)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            shard = f" for shard {self.shard.number}/{self.shard.count}" if self.suffix else ""
            raise TaggingError(f"Another process writes {self.path}{shard}. Wait until it ends, or choose another "
                               "--out.") from None
        try:
            yield
        finally:
            lock.release()

    def check(self, about: dict[str, Any]) -> None:
        """Check that the folder is new, or was begun with the same model and options."""
        path = self.path / ABOUT
        if not path.exists():
            others = [entry.name for entry in self.path.iterdir() if not entry.name.startswith("_")]
            if others:
                raise TaggingError(f"{self.path} has other files ({shorten(sorted(others), 3)}). Choose a new folder "
                                   "for --out.")
            return
        try:
            found = json.loads(path.read_text())
            kind = found.pop("kind")
        except (ValueError, AttributeError, KeyError) as error:
            raise TaggingError(f"{path} is damaged ({error!r}). Choose a new folder for --out.") from error
        if kind != KIND:
            raise TaggingError(f"{path} is of kind '{kind}', but '{KIND}' is expected. Choose a new folder for --out.")
        differences = [f"{name} was {show(found.get(name))} and is now {show(about.get(name))}"
                       for name in {**found, **about} if found.get(name) != about.get(name)]
        if differences:
            raise TaggingError(f"{self.path} was begun with something else: {'; '.join(differences)}. Use the same, or "
                               "choose a new folder for --out.")

    def merge(self, names: SavedNames) -> SavedNames:
        """Compare the names with those with which the folder was begun, and add new ones.

        Raises:
            TaggingError: some of the earlier names are missing now.
        """
        path = self.path / SOURCES
        if not path.exists():
            self.save(names)
            return names
        before = SavedNames.read(path)
        if before.digest == names.digest:
            return names
        missing = Counter(before)
        missing.subtract(names)
        gone = [name for name, count in missing.items() if count > 0]
        if gone:
            raise TaggingError(f"{self.path} was begun with {before.total} files, and {len(gone)} of them are not "
                               f"among the {names.total} of this call: {shorten(gone, 3)}. Name the same files and "
                               "folders, or choose a new folder for --out.")
        added = []
        for name in names:
            if missing[name] < 0:
                missing[name] += 1
                added.append(name)
        self.added = len(added)
        merged = SavedNames([*before, *added])
        if added:
            self.save(merged)
        return merged

    def save(self, names: SavedNames) -> None:
        """Write the list of all names."""
        temporary = self.path / f"{SOURCES}.tmp"
        with open(temporary, "wb") as file:
            names.copy(file)
            sync(file)
        temporary.replace(self.path / SOURCES)

    @property
    def done_path(self) -> Path:
        return self.path / f"_done{self.suffix}.jsonl"

    def read_done(self) -> None:
        """Read which parts are finished, and drop a line that an interruption cut short."""
        lines = self.done_path.read_text().splitlines(keepends=True) if self.done_path.exists() else []
        for number, line in enumerate(lines):
            try:
                self.parts.append(Part(**json.loads(line)))
                assert line.endswith("\n")
            except (ValueError, TypeError, AssertionError) as error:
                if number < len(lines) - 1:
                    raise TaggingError(f"{self.done_path}, line {number + 1} is damaged. Choose a new folder for "
                                       "--out.") from error
                self.parts = self.parts[:number]
                self.replace(self.done_path, "".join(lines[:number]))

    def add(self, part: Part) -> None:
        """Note a part whose files are complete."""
        with open(self.done_path, "a") as file:
            file.write(json.dumps(asdict(part)) + "\n")
            sync(file)
        self.parts.append(part)

    def next_number(self) -> int:
        """Return the number of the next part."""
        return max((part.part for part in self.parts), default=-1) + 1

    def sources(self, names: SavedNames) -> Iterator[Source]:
        """Yield the files of the shard that are not done."""
        ranges = self.remaining(self.shard.size(names.total))
        start, stop = next(ranges, (0, 0))
        for source in self.shard.sources(names):
            if source.place >= stop:
                start, stop = next(ranges, (0, 0))
                if source.place >= stop:
                    return
            if source.place >= start:
                yield source

    def remaining(self, total: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of places in the list of the shard that are not done."""
        place = 0
        for part in sorted(self.parts, key=lambda each: each.start):
            if place < part.start:
                yield place, part.start
            place = part.stop
        if place < total:
            yield place, total

    def replace(self, path: Path, text: str) -> None:
        """Write a small file of the folder, whole or not at all."""
        temporary = path.with_name(f"{path.name}.tmp")
        with open(temporary, "w") as file:
            file.write(text)
            sync(file)
        temporary.replace(path)


def sync(file: Any) -> None:
    """Wait until the content of a file is on the disk."""
    file.flush()
    with suppress(OSError):         # not all file systems can
        os.fsync(file.fileno())


def show(value: Any) -> str:
    """Return a value of `_archive.json` for a message."""
    return "not given" if value is None else json.dumps(value)
