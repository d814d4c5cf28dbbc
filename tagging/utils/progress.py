"""Work through many files on all cores, with a progress bar."""
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from tagging_lite.cores import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 16      # items in memory for each thread


def map_files(function: Callable[[Item], Result], items: Sequence[Item], title: str,
              count: Callable[[Item], int] = lambda item: 1) -> Iterator[Result]:
    """Call `function` on each item on all cores. Yield the results in the order of the items.

    Threads suffice: libsndfile and numpy release the interpreter's lock, and no samples are copied between processes.
    Only a few results are in memory at a time, and Ctrl-C waits for a few files only.

    Args:
        title: of the progress bar.
        count: the number of clips in an item.
    """
    threads = available_cores()
    with (ThreadPoolExecutor(threads) as pool,
          tqdm(total=sum(map(count, items)), desc=title, unit="clip", disable=None) as bar):
        for first in range(0, len(items), CHUNK * threads):
            chunk = items[first:first + CHUNK * threads]
            for item, result in zip(chunk, pool.map(function, chunk)):
                bar.update(count(item))
                yield result
