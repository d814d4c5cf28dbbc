"""The one exception family, and how a script shows it."""
import faulthandler
import sys
from collections.abc import Callable, Sequence

from tagging import signals


class TaggingError(Exception):
    """Something the user can put right. The message names the file, the row and the remedy."""


def shorten(items: Sequence, limit: int = 10) -> str:
    """Join `items` for a message, and count what is left out after the first `limit`."""
    shown = ", ".join(map(str, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def run_script(main: Callable[[], None]) -> None:
    """Run `main`; exit with 2 after a `TaggingError`, with 143 after SIGTERM and 130 after Ctrl-C, no traceback."""
    signals.install()
    faulthandler.enable(sys.__stderr__)     # a disk that vanishes under a memory map ends the process; this says where
    try:
        main()
    except TaggingError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:        # such as a disk that is gone; what is expected to fail says more where it fails
        print(f"error: {error.filename or 'a file'} could not be used: {error.strerror or error}. Check the disk and "
              "the rights, and give the same command again.", file=sys.stderr)
        sys.exit(2)
    except signals.Stopped as stop:
        print(f"{stop}. What was finished is kept; the same command goes on from there.", file=sys.stderr)
        sys.exit(stop.exit_code)
