"""The files to tag: named ones, folders, archives, URLs and lists, as a stream of names."""
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from tagging_lite.archive.fetch import archive_kind, check_packages, explain, is_url, open_archive, open_filesystem
from tagging_lite.errors import TaggingError, Tally
from tagging_lite.find import COPY, FORMAT, HIDDEN, LINK, NAMELESS, SUFFIXES, explain_name, is_leftover, walk

STDIN = "-"
MEMORY = 2**24      # bytes of names that are kept in memory; more are kept in a temporary file
REASONS = LINK, HIDDEN, FORMAT, COPY, NAMELESS
KINDS = f"{', '.join(SUFFIXES[:8])} or one of {len(SUFFIXES) - 8} other suffixes"


@dataclass
class NameStream:
    """The names of all files to tag, in order. They are found while they are read.

    Attributes:
        left_out: what is not read in folders and archives, by reason.
    """
    paths: Sequence[str]            # files, folders, archives and URLs
    list_file: str | None = None    # file with further names, `STDIN` for stdin
    null: bool = False              # the names of the list end with a zero byte, and not with a line
    left_out: Tally = field(default_factory=Tally)

    def __iter__(self) -> Iterator[str]:
        """
        Raises:
            TaggingError: a path does not exist, or a folder, an archive or the list cannot be read or is empty.
        """
        for path in self.paths:
            yield from self.find(path)
        if self.list_file is not None:
            yield from read_list(self.list_file, self.null)

    def check(self) -> None:
        """Check what can be checked before the work starts.

        Raises:
            TaggingError: as `__iter__`.
        """
        for path in self.paths:
            if is_url(path):
                check_packages(path)
            elif not Path(path).exists():
                raise TaggingError(f"{path} does not exist. Check the path.")
        if self.list_file not in (None, STDIN) and not Path(self.list_file or "").is_file():
            raise TaggingError(f"--list {self.list_file}: there is no such file. Check the path, or write `--list -` "
                               "to read stdin.")

    def find(self, path: str) -> Iterator[str]:
        """Yield the names of the sounds of a file, a folder or an archive."""
        if is_url(path):
            check_packages(path)
            inside = walk_url(path)
        elif Path(path).is_dir():
            inside = ((reason, str(each)) for reason, each in walk(Path(path)))
        elif archive_kind(path):
            check_packages(f"{archive_kind(path)}://{path}")
            inside = walk_archive(path)
        elif Path(path).exists():
            yield str(Path(path))
            return
        else:
            raise TaggingError(f"{path} does not exist. Check the path.")
        count, left_out = 0, Tally()
        for reason, name in inside:
            if reason:
                left_out.add(reason, name)
                self.left_out.add(reason, name)
            else:
                count += 1
                yield name
        if not count:
            raise TaggingError("\n  ".join([f"{path} holds no sound file ({KINDS}). Choose another folder, or give the "
                                            "names of the files.", *describe_left_out(left_out)]))


def describe_left_out(left_out: Tally) -> list[str]:
    """Return a line for each reason with the number of files and folders, and the first names."""
    return [f"Not read, {reason} ({left_out.counts[reason]}): {left_out.names(reason)}"
            for reason in REASONS if left_out.counts[reason]]


def walk_url(url: str) -> Iterator[tuple[str, str]]:
    """Yield the sounds of a URL as `tagging_lite.find.walk` does. One that is not a folder or an archive is a file."""
    scheme = url.partition("://")[0].lower()
    if archive_kind(url) and "::" not in url:
        yield from walk_archive(url)
        return
    named = "" if url.endswith("/") else PurePosixPath(url.partition("::")[0].partition("?")[0]).suffix.lower()
    if named in SUFFIXES or (scheme in ("http", "https") and not url.endswith("/")):
        yield "", url
        return
    try:
        filesystem, path = open_filesystem(url)
        if not filesystem.isdir(path):
            if url.endswith("/"):
                raise TaggingError(f"{url} does not exist or is empty. Check the name.")
            yield "", url
            return
        chained = url.partition("::")
        yield from walk_filesystem(filesystem, path, lambda inner: (
            f"{scheme}://{inner}::{chained[2]}" if chained[1] else filesystem.unstrip_protocol(inner)))
    except TaggingError:
        raise
    except Exception as error:      # each file system has its own
        raise TaggingError(f"{url} cannot be listed ({explain(error)}). Check the name and your access to it."
                           ) from error


def walk_archive(archive: str) -> Iterator[tuple[str, str]]:
    """Yield the members of a zip or tar archive as `tagging_lite.find.walk` does. It can be a URL."""
    kind = archive_kind(archive)
    open_archive.cache_clear()      # the file may have changed
    try:
        filesystem, _ = open_filesystem(f"{kind}://::{archive}")
        yield from walk_filesystem(filesystem, "", lambda member: f"{kind}://{member}::{archive}")
    except TaggingError:
        raise
    except Exception as error:
        raise TaggingError(f"{archive} cannot be read as a {kind} archive ({explain(error)}). Copy it again, or leave "
                           "it out.") from error


def walk_filesystem(filesystem: Any, path: str, name_of: Any) -> Iterator[tuple[str, str]]:
    """Yield what is in a folder of fsspec: the files of each folder, sorted, and then its subfolders, sorted.

    Args:
        name_of: path in the file system -> name of the file.
    """
    pending = [path]
    while pending:
        entries = sorted(filesystem.ls(pending.pop(), detail=True), key=lambda entry: entry["name"])
        folders = []
        for entry in entries:
            inner = entry["name"].rstrip("/")
            base, is_sound = PurePosixPath(inner).name, PurePosixPath(inner).suffix.lower() in SUFFIXES
            is_folder = entry["type"] == "directory"
            if is_leftover(base):
                if is_sound or is_folder:
                    yield HIDDEN, name_of(inner)
            elif is_folder:
                folders.append(inner)
            else:
                yield "" if is_sound else explain_name(base), name_of(inner)
        pending += reversed(folders)


def read_list(path: str, null: bool) -> Iterator[str]:
    """Yield the names of a list, as they come. Empty lines are ignored.

    Raises:
        TaggingError: it cannot be read, or has no name.
    """
    count = 0
    try:
        with open_list(path) as file:
            for name in split_names(file, b"\0" if null else b"\n"):
                name = name if null else name.removesuffix(b"\r")
                if count == 0:
                    name = name.removeprefix(b"\xef\xbb\xbf")       # a mark of Windows
                if name.strip():
                    count += 1
                    text = os.fsdecode(name)
                    yield text if is_url(text) else str(Path(text))
    except OSError as error:
        raise TaggingError(f"--list {path} cannot be read: {error.strerror}. Check the path.") from error
    if not count:
        raise TaggingError(f"--list {path} contains no name. Write one path or URL in each line.")


@contextmanager
def open_list(path: str) -> Iterator[BinaryIO]:
    """Open a list. stdin stays open."""
    if path == STDIN:
        yield sys.stdin.buffer
    else:
        with open(path, "rb") as file:
            yield file


def split_names(file: IO[bytes], end: bytes) -> Iterator[bytes]:
    """Yield what is between the ends, in constant memory, and at once when it can be read from a pipe."""
    if end == b"\n":
        yield from (line.removesuffix(end) for line in file)
        return
    rest = b""
    while block := file.read1(2**16) if hasattr(file, "read1") else file.read(2**16):
        *names, rest = (rest + block).split(end)
        yield from names
    yield rest


class SavedNames:
    """Names that can be read several times, in constant memory.

    Attributes:
        total: number of names.
        digest: SHA-256 of all names.
    """

    def __init__(self, names: Iterable[str]):
        self.file = tempfile.SpooledTemporaryFile(MEMORY)    # noqa: SIM115    it stays open
        self.total, checksum = 0, hashlib.sha256()
        for name in names:
            entry = os.fsencode(name) + b"\0"
            self.file.write(entry)
            checksum.update(entry)
            self.total += 1
        self.digest = checksum.hexdigest()

    @classmethod
    def read(cls, path: Path) -> "SavedNames":
        """Read a file that `copy` wrote."""
        with open(path, "rb") as file:
            return cls(os.fsdecode(name) for name in split_names(file, b"\0") if name)

    def copy(self, file: IO[bytes]) -> None:
        """Write all names to a file, each followed by a zero byte."""
        self.file.seek(0)
        shutil.copyfileobj(self.file, file)

    def __iter__(self) -> Iterator[str]:
        """Read all names. One iteration must end before the next begins."""
        self.file.seek(0)
        return (os.fsdecode(name) for name in split_names(self.file, b"\0") if name)
