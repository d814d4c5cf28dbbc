"""Compare the memory and the time of an epoch with those of ten times the clips."""
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psutil
import torch

from tagging.errors import TaggingError
from tagging.training.batches import TrainingBatches
from tools.benchmark.measure import Row, Setting, once
from tools.benchmark.step import epoch

PAUSE = 0.01                            # seconds between two measurements of the memory
TIME, HOST, DEVICE = "time of an epoch", "host memory beside the page cache", "device memory"
UNITS = {TIME: "s", HOST: "MB", DEVICE: "MB"}
TARGETS = {TIME: "; target: 9.5 to 10.5", HOST: "", DEVICE: ""}


def measure_memory(setting: Setting) -> Iterator[Row]:
    """Measure epochs of a tenth of the noisy clips, and of all of them.

    Raises:
        TaggingError: there are too few clips.
    """
    batch, size = setting.recipe.batch_size, setting.sizes[0]
    count = len(setting.open("noisy")[0]) // (10 * batch) * batch
    if not count:
        raise TaggingError(f"Ten batches of {batch} clips are needed. Choose a larger --scale.")
    few, many = train_on(setting, count, size), train_on(setting, 10 * count, size)
    for name, values in few.items():
        yield Row(f"{name}, {count} clips at {size} px", UNITS[name], values)
        yield Row(f"{name}, {10 * count} clips at {size} px", UNITS[name], many[name],
                  median(many[name]) / median(values), f"of {count} clips{TARGETS[name]}")


def train_on(setting: Setting, count: int, size: int) -> dict[str, list[float]]:
    """Train on the first `count` noisy clips.

    Returns:
        time and memory of each epoch, except the first one, which warms up.
    """
    batches, on_gpu = TrainingBatches(setting.model(), setting.examples(count)), setting.device.type == "cuda"
    batches.image_size = size
    train = epoch(batches.model, batches)
    train()
    values: dict[str, list[float]] = {name: [] for name in ((TIME, HOST, DEVICE) if on_gpu else (TIME, HOST))}
    for _ in range(setting.repeats):
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(setting.device)
        with watch_memory() as seen:
            values[TIME].append(once(train, setting.device))
        values[HOST].append(max(seen))
        if on_gpu:
            values[DEVICE].append(torch.cuda.max_memory_allocated(setting.device) / 2**20)
    return values


@contextmanager
def watch_memory() -> Iterator[list[float]]:
    """Collect the values of `own_memory` during the block."""
    seen, done = [own_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(PAUSE):
            seen.append(own_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def own_memory() -> float:
    """Return the megabytes of this process that no file backs.

    The mapped store does not count, because it is in the page cache of the system.
    """
    process = psutil.Process()
    if psutil.LINUX:
        memory = process.memory_info()      # much quicker than memory_full_info
        return (memory.rss - memory.shared) / 2**20
    return process.memory_full_info().uss / 2**20
