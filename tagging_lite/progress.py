"""The progress of long work, on stderr."""
import sys
import time

REDRAW = 0.5        # seconds, on a terminal
REPEAT = 60.0       # seconds, elsewhere: one line each time


class Progress:
    """Counts files and hours of sound. A terminal shows one line that changes, and a log file a line each minute.

    Args:
        total: number of files, None if it is not known.
        shown: show nothing if false.
    """

    def __init__(self, total: int | None = None, shown: bool = True):
        self.total, self.shown = total, shown
        self.files, self.failed, self.seconds = 0, 0, 0.0       # seconds of sound
        self.terminal = sys.stderr.isatty()
        self.started = self.drawn = time.monotonic()

    def add(self, seconds: float, failed: int, files: int = 1) -> None:
        """Count files with so many seconds of sound, and so many of them that failed."""
        self.files += files
        self.failed += failed
        self.seconds += seconds
        if self.shown and time.monotonic() - self.drawn >= (REDRAW if self.terminal else REPEAT):
            self.draw()

    def draw(self) -> None:
        self.drawn = time.monotonic()
        print(f"\r\x1b[K{self.line()}" if self.terminal else self.line(), end="" if self.terminal else "\n",
              file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self.shown and self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Return how far the work is, how fast it is, and how much time is left."""
        words = [f"{self.files:,}{'' if self.total is None else f' of {self.total:,}'} files",
                 *([f"{self.failed:,} failed"] if self.failed else []), self.speed()]
        if self.total is not None and self.files:
            elapsed = time.monotonic() - self.started
            words.append(f"{format_time((self.total - self.files) * elapsed / self.files)} left")
        return ", ".join(words)

    def speed(self) -> str:
        """Return the files and hours of sound per second since the start."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        return f"{self.files / elapsed:.3g} files/s, {self.seconds / 3600 / elapsed:.3g} hours of sound/s"


def format_time(seconds: float) -> str:
    """Return a duration in its two largest units, such as "3 h 5 min"."""
    seconds = round(seconds)
    for large, small, size, unit in (("d", "h", 86_400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if seconds >= size:
            return f"{seconds // size} {large} {seconds % size // unit} {small}"
    return f"{seconds} s"
