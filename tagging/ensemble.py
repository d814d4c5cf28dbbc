"""Predictions of several models -> one submission, checked."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.errors import TaggingError
from tagging.metric import lwlrap
from tagging.tables import check_same, read_scores, write_scores


def blend(frames: Sequence[pd.DataFrame], mean: str = "arithmetic",
          weights: Sequence[float] | None = None) -> pd.DataFrame:
    """Mean of prediction frames, joined by the names of clips and classes, never by position.

    Args:
        frames: index fname, columns classes; the order of the first one is kept.
        mean: arithmetic or geometric.
        weights: one a frame; all count alike without.
    Raises:
        TaggingError: the frames hold other clips or classes.
    """
    first = frames[0]
    return pd.DataFrame(average(stack_frames(frames, mean), mean, weights), first.index, first.columns)


def stack_frames(frames: Sequence[pd.DataFrame], mean: str) -> np.ndarray:
    """(frames, clips, classes) in the first one's order, as logarithms for the geometric mean.

    Raises:
        TaggingError: the frames hold other clips or classes.
    """
    first = frames[0]
    for number, frame in enumerate(frames[1:], start=2):
        check_same(frame.index, first.index, f"prediction {number} of the blend", "clips")
        check_same(frame.columns, first.columns, f"prediction {number} of the blend", "classes")
    stack = np.stack([frame.loc[first.index, first.columns].to_numpy(np.float64) for frame in frames])
    # The floor keeps one model's zero from overruling all others.
    return np.log(np.maximum(stack, 1e-12)) if mean == "geometric" else stack


def average(stack: np.ndarray, mean: str, weights: Sequence[float] | None) -> np.ndarray:
    """(clips, classes) of what `stack_frames` gives."""
    blended = np.average(stack, 0, weights)
    return np.exp(blended) if mean == "geometric" else blended


def fit_weights(frames: Sequence[pd.DataFrame], truth: pd.DataFrame, mean: str = "arithmetic",
                rounds: int = 20) -> np.ndarray:
    """Weights for a blend of runs, from their out-of-fold predictions.

    Runs are taken in one after the other, each time the one with which the blend scores best, whether it is in already
    or not; the best blend on the way is kept, if it is better than equal weights. Caruana et al., "Ensemble selection
    from libraries of models", 2004.

    Args:
        frames: the out-of-fold predictions of each run, index fname, columns classes.
        truth: 0/1, with the same index and columns.
    Returns:
        (runs,) with a sum of 1. A run that does not help gets 0.
    """
    stack, labels = stack_frames(frames, mean), truth.to_numpy()

    def score(weights: np.ndarray) -> float:
        return lwlrap(truth=labels, scores=average(stack, mean, weights))

    taken, best = np.zeros(len(frames)), np.ones(len(frames))
    best_score = score(best)
    for _ in range(rounds):
        choices = taken + np.eye(len(frames))                                           # (choices, runs)
        scores = [score(choice) for choice in choices]
        chosen = max(range(len(frames)), key=lambda run: (scores[run], taken[run]))     # a tie adds no other run
        taken = choices[chosen]
        if scores[chosen] > best_score:
            best, best_score = taken, scores[chosen]
    return best / best.sum()


def nested_blend(frames: Sequence[pd.DataFrame], truth: pd.DataFrame, folds: pd.Series,
                 mean: str = "arithmetic") -> pd.DataFrame:
    """The blend with fitted weights that an out-of-fold score may be taken of: those of each fold's clips are fitted on
    the clips of the others.

    Args:
        frames, truth: as for `fit_weights`.
        folds: of each clip, with the same index.
    Raises:
        TaggingError: all clips are of one fold.
    """
    if folds.nunique() < 2:
        raise TaggingError("--weights fitted needs the out-of-fold predictions of two folds or more, which all runs "
                           "share. Train more folds, or leave it out.")
    parts = []
    for fold in sorted(folds.unique()):
        inside, outside = folds.index[folds == fold], folds.index[folds != fold]
        weights = fit_weights([frame.loc[outside] for frame in frames], truth.loc[outside], mean)
        parts.append(blend([frame.loc[inside] for frame in frames], mean, weights))
    return pd.concat(parts)


def class_means(*frames: pd.DataFrame) -> pd.Series:
    """Mean of each class over the clips of all frames; 1, which divides nothing, for a class that is zero."""
    means = pd.concat(frames).mean()
    return means.where(means > 0, 1.0)


def fill_rows(scores: pd.DataFrame, fnames: Sequence[str]) -> pd.DataFrame:
    """Give clips that could not be read, and were left out by choice, the mean of all other rows, and name them.

    A submission needs a row for every clip, and the mean is the best guess about a clip of which nothing is known.
    """
    missing = [fname for fname in fnames if fname not in scores.index]
    if missing:
        print(f"{len(missing)} test clips were left out; their rows hold the mean of all others: {', '.join(missing)}")
        scores = pd.concat([scores, pd.DataFrame([scores.mean()] * len(missing), missing, scores.columns)])
    return scores.loc[list(fnames)]


def check_submission(path: Path, fnames: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Read a submission back and check it.

    Raises:
        TaggingError: missing or extra rows, missing, extra or reordered classes, NaN or text.
    """
    scores = read_scores(path)
    check_same(scores.index, fnames, str(path), "rows", "Each test clip needs one row.")
    check_same(scores.columns, classes, str(path), "classes", "Each class needs one column.")
    if list(scores.columns) != list(classes):
        position = [found == wanted for found, wanted in zip(scores.columns, classes)].index(False)
        raise TaggingError(f"{path} has its classes in another order than the sample submission: column "
                           f"{position + 2} is {scores.columns[position]} and should be {classes[position]}.")
    return scores


def write_submission(path: Path, scores: pd.DataFrame, fnames: Sequence[str], classes: Sequence[str]) -> None:
    """Write rows and columns in the sample submission's order, and check what was written."""
    check_same(scores.index, fnames, "the prediction", "rows")
    check_same(scores.columns, classes, "the prediction", "classes")
    write_scores(path, scores.loc[list(fnames), list(classes)])
    check_submission(path, fnames, classes)
