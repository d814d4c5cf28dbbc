"""Locks between processes."""
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tagging.errors import TaggingError

log = logging.getLogger(__name__)

QUIET = 3       # seconds of waiting before it is announced


class LockedError(TaggingError):
    """Another process holds the lock."""


@contextmanager
def file_lock(path: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path` during the block. The operating system releases it when the process ends.

    Args:
        busy: the error message if another process holds the lock. With "", wait for that process instead.
    Raises:
        LockedError: another process holds the lock, and `busy` is given.
        TaggingError: the file cannot be locked.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if busy:
                raise LockedError(busy) from None
            try:
                lock.acquire(timeout=QUIET)
            except Timeout:
                log.info("waiting for another process that holds %s", path)
                lock.acquire()
    except OSError as error:
        raise TaggingError(f"{path} could not be written: {error.strerror or error}. Check the free space and the "
                           "permissions of the folder.") from error
    except NotImplementedError as error:
        raise TaggingError(f"{path} cannot be locked: {error}. Choose a folder on a disk that supports locks."
                           ) from error
    try:
        yield
    finally:
        lock.release()
