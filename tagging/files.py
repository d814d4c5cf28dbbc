"""Files and folders that appear complete or not at all, fingerprints, and the seeds made from them."""
import fcntl
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tagging.errors import TaggingError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    Raises:
        TaggingError: the disk is full, the folder is read-only, or the like.
    """
    prefix = f".{path.name}.{platform.node()}."
    temporary = path.with_name(f"{prefix}{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
            try:
                os.kill(int(left.name.split(".")[-2]), 0)       # asks whether the process is there, and no more
            except ProcessLookupError:
                left.unlink(missing_ok=True)                    # it was killed
            except PermissionError:
                pass                                            # it is another user's
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())        # else a crash after the rename can leave an empty file
        temporary.replace(path)
    except OSError as error:
        raise TaggingError(f"{path} could not be written: {error.strerror or error}. What was there "
                           "before is unchanged. Check the free space and the rights of the folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; rename it to `out` when the block ends without an error.

    Raises:
        TaggingError: `out` is a file, or a folder that is not empty; or it could not be written.
    """
    out = out.resolve()
    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise TaggingError(f"{out} exists. Name a new folder, or remove that one.")
        shutil.rmtree(partial, ignore_errors=True)          # of a process that was killed
        partial.mkdir(parents=True)
        yield partial
        partial.rename(out)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error     # a full disk has no file name
        raise TaggingError(f"{out} could not be written: {reason}. Check the free space and the rights of the "
                           "folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path`. The system lets go of it when the process ends, however it ends.

    Args:
        busy: the error if another process holds it; "" waits for that process instead.
    Raises:
        TaggingError: `busy`, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115, it is closed below
    except OSError as error:
        raise TaggingError(f"{path} could not be written: {error.strerror}. "
                           "Check the free space and the rights of the folder.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if busy:
                raise TaggingError(busy) from error
            print(f"waiting for another process that holds {path}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise TaggingError(f"{path} cannot be locked: {error.strerror}. "
                               "Choose a folder on a disk that has locks.") from error
        yield


def write_json(path: Path, content: dict) -> None:
    """Write `content`, readable by people too, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict:
    """Read what `write_json` wrote.

    Raises:
        TaggingError: the file is missing or damaged; the message ends on `remedy`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaggingError(f"{path} could not be read: {error.strerror}. {remedy}") from error
    except ValueError as error:
        raise TaggingError(f"{path} is damaged: {error}. {remedy}") from error
    if not isinstance(content, dict):
        raise TaggingError(f"{path} is damaged: it holds no JSON object. {remedy}")
    return content


def fingerprint(*parts: object) -> str:
    """A short hash of the parts' text, the same on any machine."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def seed_for(*purpose: object) -> int:
    """A seed of its own for each purpose, such as one epoch of one fold, so that folds can be trained in any order,
    apart, and on different machines with the same result."""
    return int(fingerprint(*purpose), 16) >> 1         # torch takes 63 bits without a sign
