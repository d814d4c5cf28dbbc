"""Progress over bytes: a bar in a terminal, a line now and then elsewhere."""
import sys
import time
from types import TracebackType

from tqdm import tqdm

INTERVAL = 30.0         # seconds between two lines where there is no terminal
LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f} %), {rate_fmt}, {remaining} left"


def say(text: str) -> None:
    """Print a line above the bar."""
    tqdm.write(text)
    sys.stdout.flush()


def sized(count: float) -> str:
    """Return a number of bytes for people, in powers of 1000: 4.2 GB."""
    if count < 1000:
        return f"{count} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000 or unit == "GB":
            break
    return f"{count:.1f} {unit}"


class ByteProgress:
    """Progress of one job over bytes: share, rate and time left."""

    def __init__(self, title: str, total: int, done: int = 0):
        """
        Args:
            total: bytes of the job.
            done: bytes of earlier calls. They do not count for the rate.
        """
        self.bar = tqdm(total=total, initial=done, desc=title, unit="B", unit_scale=True, disable=None)
        self.title, self.total, self.first, self.done = title, total, done, done
        self.begun = self.shown = time.monotonic()

    def __enter__(self) -> "ByteProgress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.bar.close()

    def update(self, count: int) -> None:
        """Add `count` bytes. A negative number takes back bytes that must be read again."""
        self.bar.update(count)
        self.done += count
        now = time.monotonic()
        if self.bar.disable and now - self.shown > INTERVAL:
            self.shown = now
            say(tqdm.format_meter(self.done, self.total, now - self.begun, prefix=self.title, unit="B",
                                  unit_scale=True, initial=self.first, bar_format=LINE))
