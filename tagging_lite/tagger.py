"""Sound file -> probability of each tag, as a whole and by second, with whatever computes the logits."""
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagging_lite.audio import has_sound, make_trim, read_mono, trimmed
from tagging_lite.errors import SoundError
from tagging_lite.windows import cut, each_second, place_windows

BATCH = 16      # windows in memory at a time


@dataclass(frozen=True)
class ModelInfo:
    """What has to be known to tag with a model."""
    classes: tuple[str, ...]       # in the submission's order
    sample_rate: int               # Hz
    window: int                    # samples of a window
    overlap: float                 # smallest overlap of neighbouring windows, as a share of a window
    trim_db: float                 # ends this many dB below the loudest frame are trimmed; 0 keeps them
    pooling: str = "mean"          # of the logits over the windows, by class: mean or maximum


@dataclass(frozen=True)
class TagResult:
    """The tags of one file."""
    probabilities: np.ndarray          # (classes,)
    seconds: float                     # length of the file
    timeline: np.ndarray | None        # (seconds, classes), None unless requested


@dataclass(frozen=True)
class Tagger:
    """Tags files as predict.py tags the clips of a competition: the ends trimmed, the whole clip through windows.

    Attributes:
        logits: (windows, samples) int16 -> (windows, models, classes).
    """
    info: ModelInfo
    logits: Callable[[np.ndarray], np.ndarray]

    def tag_file(self, path: Path, timeline: bool = False, longest: float = math.inf) -> TagResult:
        """Tag one file of any length, in bounded memory. A long file is trimmed and windowed piece by piece.

        Args:
            timeline: also by second.
            longest: seconds of a file, at most.
        Raises:
            SoundError: the file cannot be used, or is longer.
        """
        info = self.info
        trim = make_trim(info.trim_db)
        maximum = info.pooling == "maximum"
        pooled, windows, samples, seconds = -np.inf if maximum else 0, 0, 0, []
        for wave in read_mono(path, info.sample_rate, longest):
            samples += len(wave)
            if timeline:
                seconds.append(probability(self.run(wave, each_second(len(wave), info.window, info.sample_rate))))
            if has_sound(wave):
                logits = self.window_logits(trimmed(wave, info.sample_rate, trim))
                windows += len(logits)
                pooled = np.maximum(pooled, logits.max(0)) if maximum else pooled + logits.sum(0)   # (models, classes)
        if not windows:
            raise SoundError("all silence" if samples else "no samples")
        return TagResult(probability(pooled if maximum else pooled / windows), samples / info.sample_rate,
                     np.concatenate(seconds) if timeline else None)

    def tag(self, wave: np.ndarray) -> np.ndarray:
        """(samples,) int16 at the model's sample rate, not to be trimmed -> probabilities (classes,)"""
        logits = self.window_logits(wave)
        return probability(logits.max(0) if self.info.pooling == "maximum" else logits.mean(0))

    def window_logits(self, wave: np.ndarray) -> np.ndarray:
        """(samples,) -> (windows, models, classes), of the windows that cover it"""
        return self.run(wave, place_windows(np.array([len(wave)]), self.info.window, self.info.overlap)[1])

    def best(self, probabilities: np.ndarray, top: int, threshold: float = 0.0) -> list[tuple[str, float]]:
        """The `top` most probable tags of (classes,), those below `threshold` left out."""
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.info.classes[place], float(probabilities[place])) for place in order
                if probabilities[place] >= threshold]

    def describe(self, result: TagResult, top: int, threshold: float = 0.0) -> dict:
        """The best tags as plain lists and numbers, for JSON."""
        def tags(probabilities: np.ndarray) -> list[dict]:
            return [{"tag": name, "probability": round(value, 6)}
                    for name, value in self.best(probabilities, top, threshold)]

        found = {"seconds": round(result.seconds, 3), "tags": tags(result.probabilities)}
        if result.timeline is not None:
            found["timeline"] = [{"second": second, "tags": tags(row)} for second, row in enumerate(result.timeline)]
        return found

    def run(self, wave: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(samples,) and (windows,) -> (windows, models, classes), a few windows at a time."""
        return np.concatenate([self.logits(cut(wave, starts[first:first + BATCH], self.info.window))
                               for first in range(0, len(starts), BATCH)])


def probability(logits: np.ndarray) -> np.ndarray:
    """(..., models, classes) -> (..., classes): the mean over the models of the logistic function."""
    return (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).mean(-2)
