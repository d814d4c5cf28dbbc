"""The exceptions of both packages."""
from collections.abc import Sequence


class TaggingError(Exception):
    """An error that the user can fix. The message names the file, the row and the remedy."""


class SoundError(TaggingError):
    """A sound file that cannot be used. The message gives the reason. The caller adds the name of the file."""


def shorten(items: Sequence[object], limit: int = 10) -> str:
    """Join the first `limit` items for a message, and count the others."""
    shown = ", ".join(map(str, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
