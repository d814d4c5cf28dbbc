"""Wall time of both stages with all folds: projected from one short fold of each, or measured in full."""
import io
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from tagging.batches import Examples
from tagging.files import fingerprint
from tagging.model import About
from tagging.recipe import Schedule
from tagging.run import StageFolder
from tagging.stage import open_folds, train_fold, train_stage
from tools.benchmark.measure import Row, Setting, once, seconds_of
from tools.benchmark.sounds import RATE


class EpochLines(io.TextIOBase):
    """Takes what a training prints, and notes when the line of each epoch came: from one to the next is an epoch with
    its look, and with what the writing of checkpoints holds it up."""

    def __init__(self):
        self.times = []

    def write(self, text: str) -> int:
        if " epoch " in text:
            self.times.append(time.perf_counter())
        return len(text)


@dataclass(frozen=True)
class Fold:
    """Seconds of one fold, trained for a few epochs of each cycle."""
    first: float                    # from the start to the end of the first epoch, which warms up
    epochs: list[list[float]]       # of each cycle: its epochs but the first
    end: float                      # the last checkpoint, out-of-fold prediction, and writing the fold's files


def measure_recipe(setting: Setting) -> Iterator[Row]:
    totals, recipe = [], setting.recipe
    for stage in recipe.stages:
        (opening,) = seconds_of(setting, partial(setting.open, stage))
        folded = open_folds(stage, setting.competition, recipe, setting.cache)
        yield Row(f"{stage}: open {folded.store.hours:.2f} h of clips, checked", "s", opening)
        seen, unseen, noisy, beside = folded.but(1), folded.of(1), None, ""
        if recipe.mixes_sets(stage):
            noisy = open_folds("noisy", setting.competition, recipe, setting.cache).but(1)
            beside = f", {recipe.noisy_share:.0%} noisy beside,"
        schedule = recipe.schedule(stage)
        fold = measure_fold(setting, stage, seen, unseen, noisy)
        for size, epochs in zip(schedule.sizes, fold.epochs):
            what = f"an epoch of {len(seen.store)} clips{beside} at {size} px, look and checkpoint"
            yield Row(f"{stage}: {what}", "s", epochs)
        yield Row(f"{stage}: a fold until its first epoch is done", "s", [fold.first])
        yield Row(f"{stage}: predict and write a fold of {len(unseen.store)} clips", "s", [fold.end])
        totals.append([opened + project(fold, number, schedule, recipe.fold_count)
                       for number, opened in enumerate(opening)])
        yield Row(f"{stage}: {recipe.fold_count} folds of {sum(schedule.epochs)} epochs, projected", "s", totals[-1])
    yield Row(f"{' and '.join(recipe.stages)} at {setting.scale:g} of the clips, projected", "s",
              [sum(parts) for parts in zip(*totals)])
    if setting.full:
        yield from run_in_full(setting)


def measure_fold(setting: Setting, stage: str, seen: Examples, unseen: Examples,
                 noisy: Examples | None = None) -> Fold:
    """Train one fold for 1 + `repeats` epochs of each cycle, through all that a real fold goes through."""
    schedule = setting.recipe.schedule(stage)
    few = replace(schedule, epochs=(1 + setting.repeats,) * len(schedule.sizes))
    about = About(stage, 1, setting.competition.classes, RATE, replace(setting.recipe, **{stage: few}))
    folder = StageFolder(setting.scratch / "models" / "short" / stage)
    shutil.rmtree(folder.path, ignore_errors=True)
    started = time.perf_counter()
    with redirect_stdout(EpochLines()) as lines:
        taken = once(lambda: train_fold(folder, about, seen, unseen, setting.device, None, 1, noisy), setting.device)
    return split_times([line - started for line in lines.times], taken, setting.repeats)


def split_times(lines: Sequence[float], taken: float, repeats: int) -> Fold:
    """Tell from the seconds at which the epochs' lines came what the parts of a fold took.

    Args:
        lines: (cycles * (1 + repeats),).
        taken: seconds of the whole fold.
    """
    ends = np.reshape(lines, (-1, 1 + repeats))                             # (cycles, epochs)
    epochs = np.diff(ends).tolist()                                         # (cycles, repeats)
    return Fold(lines[0], epochs, taken - lines[-1])


def project(fold: Fold, repetition: int, schedule: Schedule, folds: int) -> float:
    """Seconds of all folds with all their epochs, from those of one repetition."""
    later = sum(count * epochs[repetition] for count, epochs in zip(schedule.epochs, fold.epochs))
    return folds * (fold.first + later - fold.epochs[0][repetition] + fold.end)


def run_in_full(setting: Setting) -> Iterator[Row]:
    """Train both stages as the scripts do. A call that was cut short goes on in the next one: the run's own records
    then tell what all its calls took, though without the checkpoints."""
    run = setting.scratch / "models" / f"full-{fingerprint(asdict(setting.recipe), setting.scale)}"
    folders = {stage: StageFolder(run / stage) for stage in setting.recipe.stages}
    for stage, folder in folders.items():
        with redirect_stdout(sys.stderr):
            taken = once(partial(train_stage, stage, setting.competition, folder, setting.recipe, folds=(),
                                 cache=setting.cache, devices=[setting.device],
                                 start=folders.get("noisy") if stage == "curated" else None), setting.device)
        yield Row(f"{stage}: all folds in full, this call", "s", [taken])
        yield Row(f"{stage}: all folds in full, all calls, from the records", "s", [folder.update_scores()["seconds"]])
