"""Shares of the files, which can be tagged independently."""
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tagging_lite.archive.process import Source
from tagging_lite.errors import TaggingError


@dataclass(frozen=True)
class Shard:
    """One of several shares of the files."""
    number: int = 1     # from 1
    count: int = 1

    def sources(self, names: Iterable[str]) -> Iterator[Source]:
        """Yield every `count`-th name, from the one with this number on."""
        for place, name in enumerate(islice(names, self.number - 1, None, self.count)):
            yield Source(place, name)

    def size(self, total: int) -> int:
        """Return the number of files of this shard among `total`."""
        return len(range(self.number - 1, total, self.count))


def parse_shard(text: str) -> Shard:
    """Read a shard such as 3/16.

    Raises:
        TaggingError: it is none.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isascii() and number.isdigit() and count.isascii() and count.isdigit()
            and 1 <= int(number) <= int(count)):
        raise TaggingError(f'--shard "{text}": write the number of this shard, from 1 on, and the number of shards, '
                           "such as 3/16.")
    return Shard(int(number), int(count))
