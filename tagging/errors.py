"""The exception family of this project, shared with `tagging_lite`, and suggestions for misspelt names."""
import difflib
from collections.abc import Sequence

from tagging_lite.errors import SoundError, TaggingError, list_notes, shorten

__all__ = ["SoundError", "TaggingError", "did_you_mean", "list_notes", "shorten"]


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return a suggestion for a misspelt name, or ""."""
    close = difflib.get_close_matches(name, names, 1)
    return f" Did you mean '{close[0]}'?" if close else ""
