"""Sound file -> probability of each tag, for the whole file and for each second, with any function for the logits."""
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tagging_lite.audio import Piece, make_trim, read_pieces
from tagging_lite.errors import SoundError, TaggingError
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
    # For `--threshold auto`, the threshold of each class; infinite for a class that gets no tags, and () if unknown.
    thresholds: tuple[float, ...] = ()
    # For `--threshold precision:P`, rising pairs for each class: a precision, and the lowest threshold that reaches it.
    precisions: tuple[tuple[tuple[float, float], ...], ...] = ()


@dataclass(frozen=True)
class TagResult:
    """The tags of one file."""
    probabilities: np.ndarray          # (classes,)
    seconds: float                     # length of the file
    timeline: np.ndarray | None        # (seconds, classes), None unless requested
    notes: tuple[str, ...] = ()        # remarks on the file, such as that samples were scaled
    embedding: np.ndarray | None = None             # (features,), None unless requested
    timeline_embeddings: np.ndarray | None = None   # (seconds, features), None unless requested with the timeline


class Span(NamedTuple):
    """Windows of a piece of a file."""
    wave: np.ndarray        # (samples,) int16
    starts: np.ndarray      # (windows,) first sample of each window
    seconds: bool           # whether there is one window for each second, and not windows that cover the sound


class Pooling:
    """Pools the values of the windows of one file, in the order of its pieces, into its tags.

    The values of a window are (models, classes) logits, or (models, classes + features) with the embedding.

    Args:
        timeline: also tag each second.
    """

    def __init__(self, info: ModelInfo, timeline: bool):
        self.info, self.timeline = info, timeline
        self.maximum = info.pooling == "maximum"
        self.logits: np.ndarray | None = None           # (models, classes), pooled over the windows so far
        self.features: np.ndarray | float = 0.0         # (models, features), their sum
        self.windows, self.samples = 0, 0
        self.rows: list[np.ndarray] = []                # probabilities of the seconds so far
        self.row_features: list[np.ndarray] = []

    def spans(self, piece: Piece) -> Iterator[Span]:
        """Place the windows of the next piece."""
        info, samples = self.info, len(piece.wave)
        self.samples += samples
        if self.timeline:
            yield Span(piece.wave, second_windows(samples, info.window, info.sample_rate), True)
        if sound := piece.stop - piece.start:
            starts = place_windows(np.array([sound]), info.window, info.overlap)[1]
            yield Span(piece.wave[piece.start:piece.stop], starts, False)

    def add(self, values: np.ndarray, seconds: bool) -> None:
        """Add the values (windows, models, values) of some windows of a span."""
        logits, features = np.split(values, [len(self.info.classes)], axis=-1)
        if seconds:
            self.rows.append(mean_probability(logits))
            self.row_features.append(join_features(features))
        else:
            pooled = logits.max(0) if self.maximum else logits.sum(0, dtype=np.float64)
            combine = np.maximum if self.maximum else np.add
            self.logits = pooled if self.logits is None else combine(self.logits, pooled)
            self.features = self.features + features.sum(0, dtype=np.float64)
            self.windows += len(values)

    def result(self, notes: Sequence[str] = ()) -> TagResult:
        """Return the tags when all values are added.

        Raises:
            SoundError: the file has no sound.
        """
        if self.logits is None:
            raise SoundError("all silence" if self.samples else "no samples")
        features = join_features(np.asarray(self.features))
        return TagResult(mean_probability(self.logits if self.maximum else self.logits / self.windows),
                         self.samples / self.info.sample_rate, np.concatenate(self.rows) if self.timeline else None,
                         tuple(notes), features if len(features) else None,
                         np.concatenate(self.row_features) if self.timeline and len(features) else None)


@dataclass(frozen=True)
class Tagger:
    """Tags files in the same way as predict.py: it trims the ends, and covers the whole clip with windows.

    Attributes:
        logits: (windows, samples) int16 -> (windows, models, classes).
        features: (windows, samples) int16 -> (windows, models, classes + features), the logits and then the input of
            the last layer. None if the model does not give it.
        batch: number of windows that the device computes efficiently at a time.
        device: where the model is computed, cpu or cuda.
        checksum: identifies the models, "" if unknown. It is the same for the models of a run and their exported model.
        file_sha256: of the exported model, "" for the models of a run.
    """
    info: ModelInfo
    logits: Callable[[np.ndarray], np.ndarray]
    features: Callable[[np.ndarray], np.ndarray] | None = None
    batch: int = BATCH
    device: str = "cpu"
    checksum: str = ""
    file_sha256: str = ""

    def values(self, embeddings: bool) -> Callable[[np.ndarray], np.ndarray]:
        """Return `logits`, or with `embeddings` `features`.

        Raises:
            TaggingError: the model does not give embeddings.
        """
        if not embeddings:
            return self.logits
        if self.features is None:
            raise TaggingError("The model does not give embeddings. Export it again with `python -m tools.export`.")
        return self.features

    def tag_file(self, path: Path, timeline: bool = False, longest: float = math.inf,
                 embeddings: bool = False) -> TagResult:
        """Tag one file of any length in bounded memory. A long file is trimmed and windowed piece by piece.

        Args:
            timeline: also tag each second.
            longest: greatest length of the file, in seconds.
            embeddings: also return the embedding: the mean of the features of the windows, see `join_features`.
        Raises:
            SoundError: the file cannot be used, or is too long.
            TaggingError: the model does not give embeddings.
        """
        info, notes = self.info, list[str]()
        pooling = Pooling(info, timeline)
        pieces = read_pieces(path, info.sample_rate, make_trim(info.trim_db), longest, notes)
        pool_pieces(pooling, pieces, self.values(embeddings))
        return pooling.result(notes)

    def tag(self, wave: np.ndarray) -> np.ndarray:
        """Tag samples without trimming them.

        Args:
            wave: (samples,) int16 at the sample rate of the model.
        Returns:
            (classes,) probabilities.
        Raises:
            SoundError: there are no samples.
        """
        pooling = Pooling(self.info, timeline=False)
        pool_pieces(pooling, [Piece(wave, 0, len(wave))], self.logits)
        return pooling.result().probabilities

    def top_tags(self, probabilities: np.ndarray, top: int,
                 threshold: float | np.ndarray = 0.0) -> list[tuple[str, float]]:
        """Return the most probable tags, the highest first.

        Args:
            probabilities: (classes,).
            top: number of tags, at most.
            threshold: tags with a lower probability are left out. One number, or (classes,).
        """
        order = np.argsort(-probabilities, kind="stable")
        chosen = order[(probabilities >= threshold)[order]][:top]
        return [(self.info.classes[place], float(probabilities[place])) for place in chosen]

    def describe(self, result: TagResult, top: int, threshold: float | np.ndarray = 0.0) -> dict[str, object]:
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


def pool_pieces(pooling: Pooling, pieces: Iterable[Piece], values: Callable[[np.ndarray], np.ndarray]) -> None:
    """Compute the values of the windows of all pieces of a file, in small batches."""
    for piece in pieces:
        for span in pooling.spans(piece):
            for windows in cut_batches(span, pooling.info.window, BATCH):
                pooling.add(values(windows), span.seconds)


def cut_batches(span: Span, size: int, batch: int) -> Iterator[np.ndarray]:
    """Yield the windows of a span, at most `batch` at a time: (windows, size) int16."""
    for first in range(0, len(span.starts), batch):
        yield cut_windows(span.wave, span.starts[first:first + batch], size)


def join_features(features: np.ndarray) -> np.ndarray:
    """(..., models, features) -> embeddings (..., models * features).

    The part of each model has length 1 (0 if all its features are 0), so that all models count the same.
    """
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return (features / np.maximum(lengths, 1e-12)).reshape(*features.shape[:-2], -1)


def mean_probability(logits: np.ndarray) -> np.ndarray:
    """(..., models, classes) -> (..., classes): the logistic function, and its mean over the models."""
    return (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).mean(-2)
