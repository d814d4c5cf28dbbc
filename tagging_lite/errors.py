"""The exceptions of both packages, and how messages list names."""
import unicodedata
from collections.abc import Iterable, Sequence


class TaggingError(Exception):
    """An error that the user can fix. The message names the file, the row and the remedy."""


class SoundError(TaggingError):
    """A sound file that cannot be used. The message gives the reason. The caller adds the name of the file."""


def list_notes(notes: Iterable[tuple[object, Iterable[str]]]) -> list[str]:
    """Return a line for each remark, with the number and the names of the files to which it applies.

    Args:
        notes: files, and the remarks on each.
    """
    files: dict[str, list[object]] = {}
    for file, remarks in notes:
        for remark in remarks:
            files.setdefault(remark, []).append(file)
    return [f"note: {len(names)} {'file' if len(names) == 1 else 'files'}: {remark} ({shorten(names)})"
            for remark, names in files.items()]


def shorten(items: Sequence[object], limit: int = 10) -> str:
    """Join the first `limit` items for a message, and count the others."""
    shown = ", ".join(map(one_line, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def one_line(name: object) -> str:
    """Return a name with escapes for control characters, such as line breaks and those that change a terminal."""
    return "".join(char.encode("unicode_escape").decode() if unicodedata.category(char) == "Cc" else char
                   for char in str(name))
