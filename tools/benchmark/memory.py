"""Whether the memory, and the time of a clip, stay the same with ten times the clips."""
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from tagging.errors import TaggingError
from tagging.training.batches import TrainingBatches
from tools.benchmark.measure import Row, Setting, once
from tools.benchmark.step import epoch

PAUSE = 0.01                            # seconds between two looks at the memory
TIME, HOST, DEVICE = "time of an epoch", "host memory beside the page cache", "device memory"
UNITS = {TIME: "s", HOST: "MB", DEVICE: "MB"}
TARGETS = {TIME: "; target: 9.5 to 10.5", HOST: "", DEVICE: ""}


def measure_memory(setting: Setting) -> Iterator[Row]:
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
    """Train on the first `count` noisy clips; the figures of each epoch but the first, which warms up."""
    batches, on_gpu = TrainingBatches(setting.model(), setting.examples(count)), setting.device.type == "cuda"
    batches.image_size = size
    train = epoch(batches.model, batches)
    train()
    values = {TIME: [], HOST: []} | ({DEVICE: []} if on_gpu else {})
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
    """Collect what `own_memory` says during the block."""
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
    """Megabytes of this process that no file backs: without the mapped store, which is the system's page cache."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
