"""The setting of a benchmark, the rows of its table, and the timing of actions."""
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tagging.data.competition import Clips, Competition
from tagging.data.folds import ClipDataset
from tagging.data.waveforms import WaveStore, open_store
from tagging.modeling.model import Model, ModelMetadata
from tagging.recipe import Recipe
from tagging_lite.audio import make_trim
from tools.benchmark.sounds import RATE


@dataclass(frozen=True)
class Setting:
    """Recipe, data, device and number of repetitions of a benchmark."""
    recipe: Recipe
    device: torch.device
    repeats: int                # of each measurement, after a warm-up that does not count
    scale: float                # share of the real competition's clips
    competition: Competition    # the synthetic one
    scratch: Path               # folder for intermediate files
    full: bool                  # also train both stages in full
    trace: Path                 # file for the trace of the profile

    @property
    def sizes(self) -> list[int]:
        """The sides of the recipe's images in pixels, in ascending order."""
        return sorted({*self.recipe.noisy.sizes, *self.recipe.curated.sizes})

    @property
    def cache(self) -> Path:
        """The folder of the decoded clips."""
        return self.scratch / "cache"

    def open(self, split: str) -> tuple[Clips, WaveStore]:
        """Open the decoded clips of a split."""
        return open_store(self.competition.clips(split), make_trim(self.recipe.trim_db), self.cache)

    def examples(self, most: int | None = None) -> ClipDataset:
        """Return the first `most` noisy clips. None returns all."""
        clips, store = self.open("noisy")
        first = np.arange(len(clips))[:most]
        return ClipDataset(clips.fnames[first], store.subset(first), clips.targets[first])

    def model(self, stage: str | None = None, fold: int = 1) -> Model:
        """Build a model with random weights. The default is the recipe's first stage."""
        metadata = ModelMetadata(stage or self.recipe.stages[0], fold, self.competition.classes, RATE, self.recipe)
        return Model(metadata).to_device(self.device)


@dataclass(frozen=True)
class Row:
    """One line of the table."""
    what: str
    unit: str
    values: Sequence[float]         # one for each repetition; empty if the measurement failed
    ratio: float | None = None
    remark: str = ""                # denominator and target of the ratio, or the reason for missing values

    def record(self, part: str) -> dict:
        """Return the row as the JSON file contains it."""
        measured = len(self.values) > 0
        return {"part": part, "what": self.what, "unit": self.unit,
                "median": statistics.median(self.values) if measured else None,
                "least": min(self.values) if measured else None, "greatest": max(self.values) if measured else None,
                "repetitions": len(self.values), "ratio": self.ratio, "remark": self.remark}


def once(action: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of `action`, including its work on the device."""
    wait_for(device)
    started = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - started


def seconds_of(setting: Setting, *actions: Callable[[], object]) -> list[list[float]]:
    """Return the seconds of each repetition of each action, after a warm-up.

    The actions take turns, so that a slow moment of a shared host affects all of them.
    """
    rounds = [[once(action, setting.device) for action in actions] for _ in range(1 + setting.repeats)]
    return [list(taken) for taken in zip(*rounds[1:])]


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def a_second(count: float, seconds: Sequence[float]) -> list[float]:
    """Return `count` per second for each repetition."""
    return [count / taken for taken in seconds]
