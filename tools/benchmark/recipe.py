"""Measure the wall time of both stages with all folds, projected from one short fold of each stage or in full."""
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from tagging.data.folds import ClipDataset, open_folds
from tagging.modeling.model import ModelMetadata
from tagging.recipe import Schedule
from tagging.run import StageFolder
from tagging.training.stage import StageOptions, train_fold, train_stage
from tagging.utils.files import fingerprint
from tools.benchmark.measure import Row, Setting, once, seconds_of
from tools.benchmark.sounds import RATE


@dataclass(frozen=True)
class Fold:
    """Seconds of one fold, trained for a few epochs of each cycle."""
    first: float                    # until the end of the first epoch, which warms up
    epochs: list[list[float]]       # for each cycle, its epochs except the first
    end: float                      # last checkpoint, out-of-fold prediction, and writing of the fold's files


def measure_recipe(setting: Setting) -> Iterator[Row]:
    """Measure each stage of the recipe."""
    totals, recipe = [], setting.recipe
    for stage in recipe.stages:
        (opening,) = seconds_of(setting, partial(setting.open, stage))
        folded = open_folds(stage, setting.competition, recipe, setting.cache)
        yield Row(f"{stage}: open {folded.store.hours:.2f} h of clips, checked", "s", opening)
        train, valid, noisy, beside = folded.train(1), folded.valid(1), None, ""
        if recipe.mixes_sets(stage):
            noisy = open_folds("noisy", setting.competition, recipe, setting.cache).train(1)
            beside = f", {recipe.noisy_share:.0%} noisy beside,"
        schedule = recipe.schedule(stage)
        fold = measure_fold(setting, stage, train, valid, noisy)
        for size, epochs in zip(schedule.sizes, fold.epochs):
            what = f"an epoch of {len(train)} clips{beside} at {size} px, look and checkpoint"
            yield Row(f"{stage}: {what}", "s", epochs)
        yield Row(f"{stage}: a fold until its first epoch is done", "s", [fold.first])
        yield Row(f"{stage}: predict and write a fold of {len(valid)} clips", "s", [fold.end])
        totals.append([opened + project(fold, number, schedule, recipe.fold_count)
                       for number, opened in enumerate(opening)])
        yield Row(f"{stage}: {recipe.fold_count} folds of {sum(schedule.epochs)} epochs, projected", "s", totals[-1])
    yield Row(f"{' and '.join(recipe.stages)} at {setting.scale:g} of the clips, projected", "s",
              [sum(parts) for parts in zip(*totals)])
    if setting.full:
        yield from run_in_full(setting)


def measure_fold(setting: Setting, stage: str, train: ClipDataset, valid: ClipDataset,
                 noisy: ClipDataset | None = None) -> Fold:
    """Train one fold for 1 + `repeats` epochs of each cycle, with all steps of a real fold.

    Args:
        noisy: clips of the noisy set in the batches.
    """
    schedule = setting.recipe.schedule(stage)
    few = replace(schedule, epochs=(1 + setting.repeats,) * len(schedule.sizes))
    recipe = replace(setting.recipe, noisy=few) if stage == "noisy" else replace(setting.recipe, curated=few)
    metadata = ModelMetadata(stage, 1, setting.competition.classes, RATE, recipe)
    folder = StageFolder(setting.scratch / "models" / "short" / stage)
    shutil.rmtree(folder.path, ignore_errors=True)
    started = time.perf_counter()
    ends: list[float] = []      # of the epochs, each with its score and checkpoint
    taken = once(lambda: train_fold(folder, metadata, train, valid, setting.device, noisy=noisy,
                                    on_epoch=lambda row: ends.append(time.perf_counter() - started)), setting.device)
    return split_times(ends, taken, setting.repeats)


def split_times(ends: Sequence[float], taken: float, repeats: int) -> Fold:
    """Work out the seconds of each part of a fold.

    Args:
        ends: (cycles * (1 + repeats),) the seconds at which the epochs ended.
        taken: seconds of the whole fold.
    """
    by_cycle = np.reshape(ends, (-1, 1 + repeats))                          # (cycles, epochs)
    return Fold(ends[0], np.diff(by_cycle).tolist(), taken - ends[-1])      # (cycles, repeats)


def project(fold: Fold, repetition: int, schedule: Schedule, folds: int) -> float:
    """Return the seconds of all folds with all epochs, projected from one repetition."""
    later = sum(count * epochs[repetition] for count, epochs in zip(schedule.epochs, fold.epochs))
    return folds * (fold.first + later - fold.epochs[0][repetition] + fold.end)


def run_in_full(setting: Setting) -> Iterator[Row]:
    """Train both stages as the scripts do.

    The next call resumes an interrupted one. The records of the run contain the time of all calls without the
    checkpoints.
    """
    run = setting.scratch / "models" / f"full-{fingerprint(asdict(setting.recipe), setting.scale)}"
    folders = {stage: StageFolder(run / stage) for stage in setting.recipe.stages}
    for stage, folder in folders.items():
        options = StageOptions(cache=setting.cache, devices=[setting.device],
                               start=folders.get("noisy") if stage == "curated" else None)
        taken = once(partial(train_stage, stage, setting.competition, folder, setting.recipe, options),
                     setting.device)
        yield Row(f"{stage}: all folds in full, this call", "s", [taken])
        yield Row(f"{stage}: all folds in full, all calls, from the records", "s", [folder.update_scores()["seconds"]])
