"""The exceptions of both packages, and how messages list names."""
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

SHOWN = 10          # names of a reason
LARGEST = 1000      # reasons that are told apart


class TaggingError(Exception):
    """An error that the user can fix. The message names the file, the row and the remedy."""


class SoundError(TaggingError):
    """A sound file that cannot be used. The message gives the reason. The caller adds the name of the file."""


class Tally:
    """Counts names by reason, and keeps the first names of each.

    Attributes:
        counts: number of names of each reason, in the order in which the reasons came.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[object]] = {}

    def add(self, reason: str, name: object) -> None:
        """Count a name. After many different reasons, a further one is counted under "other reasons"."""
        if reason not in self.counts and len(self.counts) >= LARGEST:
            reason = "other reasons"
        self.counts[reason] += 1
        names = self.first.setdefault(reason, [])
        if len(names) < SHOWN:
            names.append(name)

    def names(self, reason: str) -> str:
        """Return the first names of a reason for a message, and the number of the others."""
        return shorten(self.first[reason], SHOWN, self.counts[reason])

    def notes(self) -> Iterator[str]:
        """Yield a line for each reason, as a remark on files."""
        for reason, count in self.counts.items():
            yield f"note: {count} {'file' if count == 1 else 'files'}: {reason} ({self.names(reason)})"


def list_notes(notes: Iterable[tuple[object, Iterable[str]]]) -> list[str]:
    """Return a line for each remark, with the number and the names of the files to which it applies.

    Args:
        notes: files, and the remarks on each.
    """
    tally = Tally()
    for file, remarks in notes:
        for remark in remarks:
            tally.add(remark, file)
    return list(tally.notes())


def shorten(items: Sequence[object], limit: int = SHOWN, count: int | None = None) -> str:
    """Join the first `limit` items for a message, and count the others.

    Args:
        count: number of items in all, if `items` are only the first.
    """
    shown, more = ", ".join(map(one_line, items[:limit])), (len(items) if count is None else count) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def one_line(name: object) -> str:
    """Return a name with escapes for control characters, such as line breaks and those that change a terminal."""
    return "".join(char.encode("unicode_escape").decode() if unicodedata.category(char) == "Cc" else char
                   for char in str(name))
