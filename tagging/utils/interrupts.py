"""SIGTERM, which Slurm and spot machines send, and Ctrl-C: finish what must not be cut in two, then stop."""
import signal
from collections.abc import Iterator
from contextlib import contextmanager

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """The process was asked to stop. This is no Exception, so that no `except Exception` on the way catches it."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number       # 130 for SIGINT, 143 for SIGTERM


class _Pending:
    """The first signal that arrived, 0 for none, and the number of open `defer_signals` blocks."""
    number = 0
    blocks = 0


def _receive(number: int, _frame: object) -> None:
    if _Pending.number:         # a second signal ends the process at once; all files are whole at any moment
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _Pending.number = number
    if not _Pending.blocks:
        raise Stopped(number)


def install_handlers() -> None:
    """Turn SIGTERM and SIGINT into `Stopped`, raised at once or when a `defer_signals` block allows it."""
    _Pending.number = 0
    for number in HANDLED:
        signal.signal(number, _receive)


def pending_signal() -> int:
    """Return the number of the signal that asked this process to stop, or 0."""
    return _Pending.number


def stop_if_asked() -> None:
    """
    Raises:
        Stopped: a signal arrived, in a `defer_signals` block too.
    """
    if _Pending.number:
        raise Stopped(_Pending.number)


@contextmanager
def defer_signals(stop_at_end: bool = True) -> Iterator[None]:
    """Keep a signal from interrupting the block, except where the block calls `stop_if_asked`.

    Args:
        stop_at_end: whether a signal that arrived within stops the process at the end of the outermost block.
    Raises:
        Stopped: at the end of the block.
    """
    _Pending.blocks += 1
    try:
        yield
    finally:
        _Pending.blocks -= 1
    if stop_at_end and not _Pending.blocks:
        stop_if_asked()
