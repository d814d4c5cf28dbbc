"""The exception family of this project, shared with `tagging_lite`, and how messages show names."""
import difflib
import unicodedata
from collections.abc import Sequence

from tagging_lite.errors import SoundError, TaggingError, list_notes, shorten

__all__ = ["SoundError", "TaggingError", "did_you_mean", "list_notes", "shorten", "spelt", "visible"]


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return a suggestion for a misspelt name, or ""."""
    close = difflib.get_close_matches(name, names, 1)
    return f" Did you mean '{spelt(close, [name])[0]}'?" if close else ""


def spelt(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the names, with escapes such as \\xe9 for those that look like one of the others."""
    looks = {unicodedata.normalize("NFKC", other) for other in others}
    return [ascii(name)[1:-1] if unicodedata.normalize("NFKC", name) in looks else name for name in names]


def visible(message: str) -> str:
    """Return a message with escapes such as \\u200b for characters that look like nothing or like a blank."""
    return "".join(char.encode("unicode_escape").decode() if char not in " \n\t"
                   and unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp") else char for char in message)
