"""What a training costs on this machine: the time of an epoch and of the whole recipe, memory, and disk space."""
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from fastai.callback.core import CancelFitException
from fastai.learner import Callback

from tagging.data.competition import Competition
from tagging.evaluation.predict import WindowBatches
from tagging.modeling.model import Model
from tagging.training.loop import MicroBatches, build_learner, fit_flat_cos
from tagging.training.optimizer import Ranger, decay_groups
from tagging.utils.interrupts import stop_if_asked
from tagging_lite.cores import ROOT, own_groups
from tools.benchmark.measure import once, wait_for
from tools.benchmark.memory import own_memory, watch_memory
from tools.check.subject import FOLD, Finding, Subject

MB = 2**20
PROBE = 4               # clips of the first measurement
WINDOWS = 4             # of the measured prediction
TIMED = 2               # steps that are timed, after one that warms up
LEAST_SIDE = 64         # px: smaller images are not used to save time
STATE = 4               # three values of the optimizer for each weight, and the weight itself or its gradient
SPARE = 1.1             # free memory and disk must exceed the need by this factor


@dataclass(frozen=True)
class Steps:
    """Measured training steps at one image size."""
    clips: int          # in a batch
    size: int           # px
    seconds: float      # of a step
    base: float = 0.0   # MB, without the batch: the process, gradients and the values of the optimizer
    peak: float = 0.0   # MB, the memory while it runs


@dataclass(frozen=True)
class Speed:
    """The time of a step as far as it was measured."""
    measured: tuple[Steps, ...]

    def step(self, clips: int, size: int) -> float:
        """Estimate the seconds of a step, in proportion to clips and pixels of the closest measurement."""
        steps = min(self.measured, key=lambda steps: (abs(np.log(steps.size / size)), -steps.clips))
        return steps.seconds * max(clips * size ** 2 / (steps.clips * steps.size ** 2), 0.05)

    def affordable(self, subject: Subject, count: int, seconds: float) -> tuple[int, int]:
        """Return the clips and the image size with which `count` steps fit into `seconds`: those of the recipe, or
        less."""
        clips, size = subject.batch_size, subject.schedule.sizes[0]
        half, quarter = max(size // 2, min(size, LEAST_SIDE)), max(size // 4, min(size, LEAST_SIDE))
        choices = [(clips, size), (clips, half), (16, half), (8, half), (8, quarter), (8, min(size, LEAST_SIDE // 2))]
        choices = [(min(some, clips), side) for some, side in choices]
        return next((choice for choice in choices if count * self.step(*choice) <= seconds), choices[-1])


class StepClock(Callback):
    """Takes the time at the end of each step."""

    def __init__(self, device: torch.device, seconds: float):
        self.device, self.seconds = device, seconds
        self.ends: list[float] = []

    def after_batch(self):
        stop_if_asked()
        wait_for(self.device)
        self.ends.append(time.perf_counter())
        if len(self.ends) > 1 and self.ends[-1] - self.ends[0] > self.seconds:
            raise CancelFitException()


def measure_steps(subject: Subject, model: Model, size: int, seconds: float) -> list[Steps]:
    """Train some steps, first with few clips, then with as many as the time allows. This changes the model.

    Raises:
        torch.OutOfMemoryError: the device has too little memory.
    """
    full = subject.batch_size
    count = min(PROBE, full)
    measured = [time_steps(subject, model, size, count, seconds)]
    each = measured[0].seconds / count
    most = full if subject.device.type == "cuda" else min(full, int(seconds / (each * (1 + TIMED))))
    if most > count:
        measured.append(time_steps(subject, model, size, most, seconds))
    return measured


def time_steps(subject: Subject, model: Model, size: int, clips: int, seconds: float) -> Steps:
    batch = next(iter(subject.batches(model, size, batch_size=clips)))
    weights = sum(value.nbytes for value in model.network.parameters()) / MB
    clock, base = StepClock(subject.device, seconds), own_memory() + STATE * weights
    if subject.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(subject.device)
    lr = subject.schedule.lrs[0]
    learner = build_learner(model, [batch] * (1 + TIMED), [], Ranger(decay_groups(model.network), lr),
                            MicroBatches(min(subject.micro_batches, clips // 2)), clock)
    with watch_memory() as seen:
        fit_flat_cos(learner, 1, lr, subject.recipe.weight_decay)
    peak = torch.cuda.max_memory_allocated(subject.device) / MB if subject.device.type == "cuda" else max(seen)
    return Steps(clips, size, float(np.diff(clock.ends).mean()), base, peak)


@dataclass(frozen=True)
class StageTime:
    """Estimated seconds of the parts of a stage."""
    epochs: dict[int, float]        # image size -> one epoch with its score
    fold: float                     # all epochs of a fold, the normalisation before and the prediction after
    steps: int                      # in an epoch


def estimate_stage(subject: Subject, model: Model, speed: Speed, normalisation: float) -> StageTime:
    """Estimate the time of a stage from measured steps.

    The preparation of a batch and the prediction of a window are measured here.

    Args:
        normalisation: seconds that the normalisation took.
    """
    recipe, valid, schedule = subject.recipe, subject.folded.valid(FOLD), subject.schedule
    epochs = {}
    look, whole = (len(WindowBatches(model, valid.store, limit=limit).clips) for limit in (recipe.epoch_windows, 0))
    few = WindowBatches(model, valid.store.subset(np.arange(min(len(valid), WINDOWS))), limit=1)
    model.eval()
    with torch.inference_mode():
        window = once(lambda: [model.network(images) for _, images in few], subject.device) / len(few.clips)
    for size in dict.fromkeys(schedule.sizes):
        batches = subject.batches(model, size)
        prepare = once(partial(next, iter(batches)), subject.device)
        epochs[size] = len(batches) * (prepare + speed.step(batches.batch_size, size)) + look * window
    fold = normalisation + sum(count * epochs[size] for count, size in zip(schedule.epochs, schedule.sizes))
    return StageTime(epochs, fold + whole * window, len(batches))


def check_time(times: dict[str, StageTime], recipe_folds: int, speed: Speed, batch_size: int,
               max_hours: float) -> Finding:
    """Report the estimated time of an epoch of each stage and size, and of the whole recipe."""
    rows = [{"stage": stage, "image size": size, "an epoch": duration(seconds), "steps": stage_time.steps}
            for stage, stage_time in times.items() for size, seconds in stage_time.epochs.items()]
    total = recipe_folds * sum(stage_time.fold for stage_time in times.values())
    clips = max(steps.clips for steps in speed.measured)
    text = ". ".join(f"An epoch of the {row['stage']} stage at {row['image size']} px takes {row['an epoch']}"
                     for row in rows)
    text += f". All {recipe_folds} folds of the recipe take {duration(total)}."
    if clips < batch_size:
        text += f" This is estimated from steps of {clips} clips instead of {batch_size}."
    wrong = "" if total <= max_hours * 3600 else (
        f"That is more than --max-hours {max_hours:g}. Use a GPU, the recipe smoke, a smaller --network, smaller "
        "images or fewer epochs.")
    return Finding("time", text, wrong=wrong, blocks=[pd.DataFrame(rows)])


def check_memory(subject: Subject, speed: Speed) -> Finding:
    """Compare the memory of the training with what is free."""
    largest = max(speed.measured, key=lambda steps: (steps.size, steps.clips))
    full = subject.batch_size
    part = -(-full // subject.micro_batches)
    if subject.device.type == "cuda":
        total = torch.cuda.get_device_properties(subject.device).total_memory / MB
        return compare("memory", f"A training at {largest.size} px needs {largest.peak:,.0f} MB of the device, "
                       f"which has {total:,.0f} MB.", largest.peak, total, "Add --micro-batches 2 or more.")
    used = max(min(subject.micro_batches, largest.clips // 2), 1)
    each = max(largest.peak - largest.base, 0) / -(-largest.clips // used)
    need = largest.base + part * each
    free = free_memory() + own_memory()
    return compare("memory", f"A training of {full} clips at {largest.size} px needs about {need:,.0f} MB, and "
                   f"{free:,.0f} MB are free. The decoded clips are in the page cache besides.", need, free,
                   "Add --micro-batches 2 or more, or choose a smaller --batch-size, --network or smaller images.")


def check_disk(subjects: list[Subject], model: Model, competition: Competition, cache: Path,
               models: Path) -> Finding:
    """Compare the files of a training with the free disk space."""
    recipe, weights = subjects[0].recipe, sum(value.nbytes for value in model.network.state_dict().values()) / MB
    store = sum(each.store.samples.nbytes for subject in subjects for each in (subject.folded, subject.noisy) if each)
    folds = len(subjects) * recipe.fold_count
    predictions = sum(len(subject.folded.clips) for subject in subjects) * len(competition.classes) * 12 / MB
    run = folds * weights + 2 * STATE * weights + predictions
    test = test_store(subjects[0], competition)
    text = (f"The run takes {run:,.0f} MB: {folds} files of weights of {weights:,.0f} MB, a checkpoint while it "
            f"trains, and {predictions:,.1f} MB of predictions. The decoded training clips take {store / MB:,.0f} MB "
            "and are written already.")
    if test:
        text += f" The decoded test clips will take about {test:,.0f} MB."
    free = {place: shutil.disk_usage(existing(place)).free / MB for place in (models, cache)}
    same = existing(models).stat().st_dev == existing(cache).stat().st_dev
    text += f" Free: {free[models]:,.0f} MB in {models}" + ("." if same else f", {free[cache]:,.0f} MB in {cache}.")
    remedy = "Free some space, or choose other places with --models and --cache."
    if same:
        return compare("disk", text, run + test, free[models], remedy)
    place = models if run / free[models] > test / free[cache] else cache
    return compare("disk", text, run if place == models else test, free[place], remedy)


def compare(what: str, text: str, need: float, free: float, remedy: str) -> Finding:
    """Return a finding that is wrong if `need` with some spare is more than `free`, both in MB."""
    return Finding(what, text, wrong="" if need * SPARE <= free else
                   f"{need * SPARE:,.0f} MB are needed, with a tenth to spare, and {free:,.0f} MB are there. {remedy}")


def test_store(subject: Subject, competition: Competition) -> float:
    """Estimate the MB of the decoded test clips, from the size of their files and that of the training clips."""
    if not competition.has("test"):
        return 0.0
    clips = subject.folded.clips
    ratio = 2 * subject.folded.store.lengths.sum() / sum(path.stat().st_size for path in clips.paths)
    return float(ratio) * sum(path.stat().st_size for path in competition.clips("test").paths) / MB


def existing(path: Path) -> Path:
    """Return the path or the closest folder above it that exists."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())


def free_memory() -> float:
    """Return the MB that this process may still use, within the limits of its control groups."""
    free = float(psutil.virtual_memory().available)
    for group in own_groups():
        for each in (group, *group.parents):
            try:
                limit, used = ((each / name).read_text().strip() for name in ("memory.max", "memory.current"))
                cached = dict(line.split() for line in (each / "memory.stat").read_text().splitlines())
                free = min(free, int(limit) - int(used) + int(cached["inactive_file"]))
            except (OSError, ValueError, KeyError):         # no limit, or another version of control groups
                pass
            if each == ROOT / "sys/fs/cgroup":
                break
    return free / MB


def duration(seconds: float) -> str:
    """Return a time in a unit that suits it."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{0 if seconds / unit >= 10 else 1}f} {name}"
    return f"{seconds / 86400:.1f} days"
