"""Measure how fast clips become training images, compared with a pipeline that handles each clip by itself."""
from collections.abc import Iterator
from functools import partial
from statistics import median

import torch
from torch.utils.data import DataLoader

from tagging.training.batches import TrainingBatches
from tagging_lite.cores import available_cores
from tools.benchmark.measure import Row, Setting, a_second, seconds_of
from tools.benchmark.reference import ClipByClip

ALONE = 128             # clips for one core
A_CORE = 256            # clips for each core when all cores work


def measure_input(setting: Setting) -> Iterator[Row]:
    """Measure the input at each image size."""
    paths, cores = setting.competition.clips("noisy").paths, available_cores()
    model, examples = setting.model(), setting.examples()
    for size in setting.sizes:
        alone, shared = (ClipByClip(paths[:most], setting.recipe, size) for most in (ALONE, A_CORE * cores))
        loader = DataLoader(shared, setting.recipe.batch_size, num_workers=cores, persistent_workers=True)
        batches = TrainingBatches(model, examples)
        batches.image_size = size
        one_core, all_cores, batched = seconds_of(
            setting, partial(on_one_core, alone), partial(to_device, loader, setting.device), partial(exhaust, batches))
        one_core, all_cores = a_second(len(alone), one_core), a_second(len(shared), all_cores)
        batched = a_second(len(batches) * batches.batch_size, batched)

        what = f"{setting.recipe.crop_seconds:g} s crops to {size} px"
        yield Row(f"{what}, clip by clip, one core", "clips/s", one_core)
        yield Row(f"{what}, clip by clip, {cores} processes", "clips/s", all_cores,
                  median(all_cores) / median(one_core), "of one core")
        yield Row(f"{what}, batches from the store", "clips/s", batched, median(batched) / median(all_cores),
                  f"of clip by clip, {cores} processes")


def on_one_core(clips: ClipByClip) -> None:
    """Compute all images on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for index in range(len(clips)):
        clips[index]
    torch.set_num_threads(threads)


def to_device(loader: DataLoader, device: torch.device) -> None:
    """Copy all batches to the device."""
    for images in loader:
        images.to(device)


def exhaust(batches: TrainingBatches) -> None:
    """Compute all batches of an epoch."""
    for _ in batches:
        pass
