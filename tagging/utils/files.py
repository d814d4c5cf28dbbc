"""Files and folders that appear complete or not at all, JSON, and fingerprints."""
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tagging.errors import TaggingError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Rename it to `path` when the block ends without an error.

    Raises:
        TaggingError: the file cannot be written, for example because the disk is full or the folder is read-only.
    """
    prefix = f".{path.name}.{platform.node()}."
    temporary = path.with_name(f"{prefix}{os.getpid()}.tmp")
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
    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise TaggingError(f"{out} exists. Choose a new folder, or remove that one.")
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
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
