"""Sound file -> probability of each tag, for the whole file and for each second, with any function for the logits."""
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagging_lite.audio import has_sound, make_trim, read_mono, trim_silence
from tagging_lite.errors import SoundError
from tagging_lite.windows import cut_windows, place_windows, second_windows

BATCH = 16      # windows in memory at a time


@dataclass(frozen=True)
class ModelInfo:
    """The audio settings and the classes that are needed to tag with a model."""
    classes: tuple[str, ...]       # in the order of the submission
    sample_rate: int               # Hz
    window: int                    # samples of a window
    overlap: float                 # smallest overlap of neighbouring windows, as a share of a window
    trim_db: float                 # ends this many dB below the loudest frame are trimmed; 0 keeps them
    pooling: str = "mean"          # how the logits of the windows are combined for each class: mean or maximum


@dataclass(frozen=True)
class TagResult:
    """The tags of one file."""
    probabilities: np.ndarray          # (classes,)
    seconds: float                     # length of the file
    timeline: np.ndarray | None        # (seconds, classes), None unless requested
    notes: tuple[str, ...] = ()        # remarks on the file, such as that samples were scaled


@dataclass(frozen=True)
class Tagger:
    """Tags files in the same way as predict.py: it trims the ends, and covers the whole clip with windows.

    Attributes:
        logits: (windows, samples) int16 -> (windows, models, classes).
    """
    info: ModelInfo
    logits: Callable[[np.ndarray], np.ndarray]

    def tag_file(self, path: Path, timeline: bool = False, longest: float = math.inf) -> TagResult:
        """Tag one file of any length in bounded memory. A long file is trimmed and windowed piece by piece.

        Args:
            timeline: also tag each second.
            longest: greatest length of the file, in seconds.
        Raises:
            SoundError: the file cannot be used, or is too long.
        """
        info = self.info
        trim = make_trim(info.trim_db)
        maximum = info.pooling == "maximum"
        combine = np.maximum if maximum else np.add
        pooled: np.ndarray | None = None
        windows, samples = 0, 0
        rows: list[np.ndarray] = []
        notes: list[str] = []
        for wave in read_mono(path, info.sample_rate, longest, notes):
            samples += len(wave)
            if timeline:
                starts = second_windows(len(wave), info.window, info.sample_rate)
                rows.append(mean_probability(self.run_windows(wave, starts)))
            if has_sound(wave):
                logits = self.window_logits(trim_silence(wave, info.sample_rate, trim))
                windows += len(logits)
                piece = logits.max(0) if maximum else logits.sum(0)                         # (models, classes)
                pooled = piece if pooled is None else combine(pooled, piece)
        if pooled is None:
            raise SoundError("all silence" if samples else "no samples")
        return TagResult(mean_probability(pooled if maximum else pooled / windows), samples / info.sample_rate,
                         np.concatenate(rows) if timeline else None, tuple(notes))

    def tag(self, wave: np.ndarray) -> np.ndarray:
        """Tag samples without trimming them.

        Args:
            wave: (samples,) int16 at the sample rate of the model.
        Returns:
            (classes,) probabilities.
        """
        logits = self.window_logits(wave)
        return mean_probability(logits.max(0) if self.info.pooling == "maximum" else logits.mean(0))

    def window_logits(self, wave: np.ndarray) -> np.ndarray:
        """(samples,) int16 -> (windows, models, classes), for the windows that cover it."""
        return self.run_windows(wave, place_windows(np.array([len(wave)]), self.info.window, self.info.overlap)[1])

    def run_windows(self, wave: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(samples,) int16 and the first samples (windows,) -> (windows, models, classes), in small batches."""
        return np.concatenate([self.logits(cut_windows(wave, starts[first:first + BATCH], self.info.window))
                               for first in range(0, len(starts), BATCH)])

    def top_tags(self, probabilities: np.ndarray, top: int, threshold: float = 0.0) -> list[tuple[str, float]]:
        """Return the most probable tags, the highest first.

        Args:
            probabilities: (classes,).
            top: number of tags, at most.
            threshold: tags with a lower probability are left out.
        """
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.info.classes[place], float(probabilities[place])) for place in order
                if probabilities[place] >= threshold]

    def describe(self, result: TagResult, top: int, threshold: float = 0.0) -> dict[str, object]:
        """Return the top tags as lists, dicts and numbers for JSON. For `top` and `threshold` see `top_tags`."""
        def tags(probabilities: np.ndarray) -> list[dict[str, object]]:
            return [{"tag": name, "probability": round(value, 6)}
                    for name, value in self.top_tags(probabilities, top, threshold)]

        description: dict[str, object] = {"seconds": round(result.seconds, 3), "tags": tags(result.probabilities)}
        if result.notes:
            description["notes"] = list(result.notes)
        if result.timeline is not None:
            description["timeline"] = [{"second": second, "tags": tags(row)}
                                       for second, row in enumerate(result.timeline)]
        return description


def mean_probability(logits: np.ndarray) -> np.ndarray:
    """(..., models, classes) -> (..., classes): the logistic function, and its mean over the models."""
    return (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).mean(-2)
