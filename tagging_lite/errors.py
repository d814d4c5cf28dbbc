"""The one exception family."""
from collections.abc import Sequence


class TaggingError(Exception):
    """Something the user can put right. The message names the file, the row and the remedy."""


class SoundError(TaggingError):
    """A sound file that cannot be used. The message says why, and leaves it to the caller to name the file."""


def shorten(items: Sequence, limit: int = 10) -> str:
    """Join `items` for a message, and count what is left out after the first `limit`."""
    shown = ", ".join(map(str, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
