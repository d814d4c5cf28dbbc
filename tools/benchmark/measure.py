"""What each part of the benchmark is given, and the rows of the table that it gives back."""
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
    """What to measure, where and how often."""
    recipe: Recipe
    device: torch.device
    repeats: int                # of each figure, after a warm-up that is not counted
    scale: float                # share of the real competition's clips
    competition: Competition    # the synthetic one
    scratch: Path               # for all that is written on the way
    full: bool                  # train both stages in full too
    trace: Path                 # where the profile's trace goes

    @property
    def sizes(self) -> list[int]:
        """The sides of the recipe's images, pixels."""
        return sorted({*self.recipe.noisy.sizes, *self.recipe.curated.sizes})

    @property
    def cache(self) -> Path:
        return self.scratch / "cache"

    def open(self, split: str) -> tuple[Clips, WaveStore]:
        return open_store(self.competition.clips(split), make_trim(self.recipe.trim_db), self.cache)

    def examples(self, most: int | None = None) -> ClipDataset:
        """The noisy clips, the first `most` of them if it is given."""
        clips, store = self.open("noisy")
        first = np.arange(len(clips))[:most]
        return ClipDataset(clips.fnames[first], store.subset(first), clips.targets[first])

    def model(self, stage: str | None = None, fold: int = 1) -> Model:
        """A model with random weights, by default of the recipe's first stage."""
        metadata = ModelMetadata(stage or self.recipe.stages[0], fold, self.competition.classes, RATE, self.recipe)
        return Model(metadata).to_device(self.device)


@dataclass(frozen=True)
class Row:
    """One line of the table."""
    what: str
    unit: str
    values: Sequence[float]         # one of each repetition; empty if it could not be measured
    ratio: float | None = None
    remark: str = ""                # what the ratio is to, its target, or why there is no value

    def record(self, part: str) -> dict:
        """The row as it stands in the JSON, from which its line is made."""
        measured = len(self.values) > 0
        return {"part": part, "what": self.what, "unit": self.unit,
                "median": statistics.median(self.values) if measured else None,
                "least": min(self.values) if measured else None, "greatest": max(self.values) if measured else None,
                "repetitions": len(self.values), "ratio": self.ratio, "remark": self.remark}


def once(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of `action`, the work that it leaves to the device included."""
    wait_for(device)
    started = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - started


def seconds_of(setting: Setting, *actions: Callable[[], object]) -> list[list[float]]:
    """Seconds of each repetition of each action, after a warm-up. The actions take turns, so that a slow moment of a
    shared host meets them all alike."""
    rounds = [[once(action, setting.device) for action in actions] for _ in range(1 + setting.repeats)]
    return [list(taken) for taken in zip(*rounds[1:])]


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def a_second(count: float, seconds: Sequence[float]) -> list[float]:
    return [count / taken for taken in seconds]
