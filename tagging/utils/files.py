"""Files and folders that appear complete or not at all, early checks that they can be written, JSON, fingerprints."""
import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tagging.errors import TaggingError
from tagging_lite.console import json_text


def check_file(path: Path, option: str) -> None:
    """Check that `atomic` can write a file. Scripts call it before they compute what they write.

    Args:
        option: the option that chooses another place, for the error.
    Raises:
        TaggingError: there is a folder or a device at `path`, a folder above is a file, or the place is read-only.
    """
    try_place(path, path.parent, temporary_name(path), option)
    if path.is_dir():
        raise TaggingError(f"{path} is a folder. Name a file with {option}.")
    if path.exists() and not path.is_file():
        raise TaggingError(f"{path} is a device or a pipe. Name a file with {option}.")


def check_folder(path: Path, option: str) -> None:
    """Check that files can be written into a folder, which can be new. See `check_file`.

    Raises:
        TaggingError: `path` or a folder above is a file, or the place is read-only.
    """
    try_place(path, path, ".tmp", option)


def check_run_folder(path: Path) -> None:
    """Check that the weights of a run can be written into a folder, which can be new. See `check_file`.

    Raises:
        TaggingError: as `check_folder`, or safetensors could not read weights there.
    """
    check_folder(path, "--models")
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError as error:
        raise TaggingError(f"The path {path} is not UTF-8, and weights files need that. Rename the folder, or choose "
                           "another --models.") from error


def check_new_folder(path: Path, option: str) -> None:
    """Check that `new_folder` can write a folder. See `check_file`.

    Raises:
        TaggingError: `path` is a file or a folder that is not empty, a folder above is a file, or the place is
            read-only.
    """
    out = path.resolve()
    try_place(path, out.parent, partial_name(out), option)
    require_new(path)


def try_place(path: Path, parent: Path, name: str, option: str) -> None:
    """Check that a file called `name` can be written into the folder `parent`, which can be new.

    The file is really written, in a temporary folder of its own, and nothing is left behind. Permissions alone do not
    tell: a disk can be read-only, and a file system can refuse a name.

    Args:
        path, option: the file or folder that will be written, and the option that chooses another one, for the error.
    Raises:
        TaggingError: the file cannot be written.
    """
    try:
        existing = next(folder for folder in (parent, *parent.parents) if folder.exists() or folder.is_symlink())
        if not existing.is_dir():
            raise TaggingError(f"{path} cannot be written: {existing} is not a folder. Choose another {option}.")
        with tempfile.TemporaryDirectory(prefix=".", dir=existing) as trial:
            folder = Path(trial, parent.relative_to(existing))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    except OSError as error:
        raise TaggingError(f"{path} cannot be written: {error.strerror or error}. Choose another {option}, or change "
                           "the permissions of the folder.") from error


def temporary_name(path: Path) -> str:
    """Return the name of the temporary file of `atomic`, different in each process of each machine."""
    return f".{path.name}.{platform.node()}.{os.getpid()}.tmp"


def partial_name(path: Path) -> str:
    """Return the name of the temporary folder of `new_folder`."""
    return f".{path.name}.partial"


def require_new(path: Path) -> None:
    """
    Raises:
        TaggingError: `path` is a file, or a folder that is not empty.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise TaggingError(f"{path} exists. Choose a new folder, or remove that one.")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Rename it to `path` when the block ends without an error.

    Raises:
        TaggingError: the file cannot be written, for example because the disk is full or the folder is read-only.
    """
    temporary = path.with_name(temporary_name(path))
    prefix = temporary.name.removesuffix(f"{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
            if not psutil.pid_exists(int(left.name.split(".")[-2])):
                left.unlink(missing_ok=True)        # the process that wrote it was killed
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())        # without it, a crash after the rename can leave an empty file
        temporary.replace(path)
    except OSError as error:
        raise TaggingError(f"{path} could not be written: {error.strerror or error}. The previous file is unchanged. "
                           "Check the free space and the permissions of the folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`. Rename it to `out` when the block ends without an error.

    Raises:
        TaggingError: `out` is a file or a folder that is not empty, or it cannot be written.
    """
    out = out.resolve()
    partial = out.with_name(partial_name(out))
    try:
        require_new(out)
        shutil.rmtree(partial, ignore_errors=True)          # left by a process that was killed
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rmdir()         # it is empty, and Windows renames to no existing folder
        partial.rename(out)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error     # a full disk has no file name
        raise TaggingError(f"{out} could not be written: {reason}. Check the free space and the permissions of the "
                           "folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json_text(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict:
    """Read a file of `write_json`.

    Raises:
        TaggingError: the file is missing or damaged. The message ends with `remedy`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaggingError(f"{path} could not be read: {error.strerror}. {remedy}") from error
    except ValueError as error:
        raise TaggingError(f"{path} is damaged: {error}. {remedy}") from error
    if not isinstance(content, dict):
        raise TaggingError(f"{path} is damaged: it contains no JSON object. {remedy}")
    return content


def fingerprint(*parts: object) -> str:
    """Return a short hash of the parts' JSON, the same on any machine."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
