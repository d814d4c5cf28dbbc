"""The journal of a study: a file of Optuna's, with a JSON object on each line, that several processes append to.

Every access is a transaction under one lock, which the system releases when its holder is killed. Optuna's own locks
are files that a killed process leaves behind.
"""
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from tagging.errors import TaggingError
from tagging.utils.locks import file_lock

log = logging.getLogger(__name__)

optuna.logging.set_verbosity(optuna.logging.ERROR)      # our own messages say what happens
NAME = "journal.log"
PLAN = "plan"           # attribute of a study that is ready


class NoLock(JournalFileOpenLock):
    """Optuna locks each line. A transaction has locked all of them already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class Journal:
    """The journal in the folder of a study.

    Args:
        folder: of the study. It can be new.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.lock_path = folder / ".journal.lock"
        self.mine = threading.local()       # Optuna's storage remembers what it has read, for one thread

    @contextmanager
    def transaction(self) -> Iterator[JournalStorage]:
        """Hold the lock of the journal, and yield its content. A torn last line is cut off first.

        Raises:
            TaggingError: the journal is damaged, or cannot be locked or written.
        """
        with file_lock(self.lock_path):
            cut_torn_line(self.path)
            if not hasattr(self.mine, "storage"):
                self.mine.storage = read_storage(self.path)
            try:
                yield self.mine.storage
            except BaseException:
                del self.mine.storage       # it can differ from the file now
                raise


def cut_torn_line(path: Path) -> None:
    """Cut a journal back to its last newline. The process that wrote the rest was killed, or the disk was full.

    What the line said is done again: its trial is still running according to the lines before it.
    """
    if not path.exists():
        return
    with open(path, "rb+") as file:
        size = end = file.seek(0, 2)
        rest = b""
        while end and b"\n" not in rest:
            start = max(0, end - 2**16)
            file.seek(start)
            rest, end = file.read(end - start), start
        whole = end + rest.rfind(b"\n") + 1
        if whole < size:
            file.truncate(whole)
            log.info("note: the last line of %s was incomplete, because a process was killed while it wrote it. The "
                     "line was removed (%d bytes).", path, size - whole)


def read_storage(path: Path) -> JournalStorage:
    """Read a journal. It is created if it is new.

    Raises:
        TaggingError: a line is damaged.
    """
    check_lines(path)
    try:
        return JournalStorage(JournalFileBackend(str(path), NoLock(str(path))))
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise TaggingError(f"{path} is damaged: {type(error).__name__} {error}. Restore it from a backup, or choose "
                           "another --run.") from error


def check_lines(path: Path) -> None:
    """Check that each whole line is a JSON object of Optuna's. The last line can be incomplete.

    Raises:
        TaggingError: a line is damaged. The message names it.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                whole = "op_code" in json.loads(line)
            except (ValueError, TypeError):
                whole = False
            if not whole:
                raise TaggingError(f"{path}, line {number} is damaged. Restore the file from a backup, or choose "
                                   "another --run.")


def current(storage: JournalStorage) -> optuna.Study | None:
    """Return the study that the journal is about: the last one that is ready."""
    for name in reversed(optuna.get_all_study_names(storage)):
        study = optuna.load_study(study_name=name, storage=storage)
        if PLAN in study.user_attrs:
            return study
    return None


def open_study(folder: Path) -> optuna.Study:
    """Open a study to look at it. Nothing is written.

    Raises:
        TaggingError: the folder has no study, or its journal is damaged.
    """
    path = folder / NAME
    study = current(read_storage(path)) if path.is_file() else None
    if not study:
        raise TaggingError(f"{folder} contains no study. Start one with `python -m tools.search`.")
    return study


def find_studies(models: Path) -> list[str]:
    """Return the names of the studies in a folder of runs."""
    return sorted(path.parent.name for path in models.glob(f"*/{NAME}"))
