"""SIGTERM, which Slurm and spot machines send, and Ctrl-C: what must not be cut in two is finished first."""
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """The process was asked to stop. Not an Exception, so that no `except Exception` on the way swallows it."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number       # 130 for SIGINT, 143 for SIGTERM


class _Request:
    """The first signal that came, and how many `shielded` blocks it has to wait for."""
    number: int | None = None
    shields = 0


def _receive(number: int, _frame: object) -> None:
    if _Request.number is not None:         # the second one means it: all files are whole at any moment
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _Request.number = number
    if not _Request.shields:
        raise Stopped(number)


def install() -> None:
    """Turn SIGTERM and SIGINT into `Stopped`, raised at once or at the end of a `shielded` block."""
    _Request.number = None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _receive)


@contextmanager
def shielded() -> Iterator[None]:
    """Let a training step, or the writing of a group of files, end before the process stops.

    Raises:
        Stopped: at the end of the block, if a signal came within.
    """
    _Request.shields += 1
    try:
        yield
    finally:
        _Request.shields -= 1
    if _Request.number is not None and not _Request.shields:
        raise Stopped(_Request.number)
