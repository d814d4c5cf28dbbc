"""How a script shows its errors."""
import faulthandler
import os
import sys
from collections.abc import Callable

from tagging import signals
from tagging_lite.errors import TaggingError, shorten

__all__ = ["TaggingError", "run_script", "shorten"]


def run_script(main: Callable[[], None], goes_on: bool = False) -> None:
    """Run `main`; exit with 2 after a `TaggingError`, with 143 after SIGTERM and 130 after Ctrl-C, no traceback.

    Args:
        goes_on: whether the same command, given again, keeps what was finished.
    """
    signals.install()
    faulthandler.enable(sys.__stderr__)     # a disk that vanishes under a memory map ends the process; this says where
    try:
        main()
    except TaggingError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:         # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # else the last flush complains
        sys.exit(141)
    except OSError as error:        # such as a disk that is gone; what is expected to fail says more where it fails
        print(f"error: {error.filename or 'a file'} could not be used: {error.strerror or error}. Check the disk and "
              "the rights, and give the same command again.", file=sys.stderr)
        sys.exit(2)
    except signals.Stopped as stop:
        print(f"{stop}." + " The same command goes on from what was finished." * goes_on, file=sys.stderr)
        sys.exit(stop.exit_code)
