"""Predictions of several models -> one checked submission."""
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.tables import check_same, read_scores, write_scores
from tagging.errors import TaggingError
from tagging.metric import lwlrap

log = logging.getLogger(__name__)


def blend(frames: Sequence[pd.DataFrame], mean: str = "arithmetic",
          weights: np.ndarray | None = None) -> pd.DataFrame:
    """Average prediction frames, joined by the names of clips and classes, never by position.

    Args:
        frames: index fname, columns the classes. The order of the first frame is kept.
        mean: arithmetic or geometric.
        weights: one for each frame. None weights all equally.
    Raises:
        TaggingError: the frames have different clips or classes.
    """
    first = frames[0]
    return pd.DataFrame(average(stack_frames(frames, mean), mean, weights), first.index, first.columns)


def stack_frames(frames: Sequence[pd.DataFrame], mean: str) -> np.ndarray:
    """Stack frames in the order of the first one: (frames, clips, classes), as logarithms for the geometric mean.

    Raises:
        TaggingError: the frames have different clips or classes.
    """
    first = frames[0]
    for number, frame in enumerate(frames[1:], start=2):
        check_same(frame.index, first.index, f"prediction {number} of the blend", "clips")
        check_same(frame.columns, first.columns, f"prediction {number} of the blend", "classes")
    stack = np.stack([frame.loc[first.index, first.columns].to_numpy(np.float64) for frame in frames])
    # Without the floor, a single zero would overrule all other models.
    return np.log(np.maximum(stack, 1e-12)) if mean == "geometric" else stack


def average(stack: np.ndarray, mean: str, weights: np.ndarray | None) -> np.ndarray:
    """Average a stack of `stack_frames`: (clips, classes)."""
    blended = np.average(stack, 0, weights)
    return np.exp(blended) if mean == "geometric" else blended


def fit_weights(frames: Sequence[pd.DataFrame], truth: pd.DataFrame, mean: str = "arithmetic",
                rounds: int = 20) -> np.ndarray:
    """Fit the weights of a blend of runs to their out-of-fold predictions.

    Runs are added one at a time, with repetition: always the run that gives the blend its best score. The best blend on
    the way is kept if it is better than equal weights. Caruana et al., "Ensemble selection from libraries of models",
    2004.

    Args:
        frames: the out-of-fold predictions of each run, index fname, columns the classes.
        truth: 0/1, with the same index and columns.
    Returns:
        (runs,) with sum 1. A run that does not help gets 0.
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
    """Blend with weights that are fitted, for each fold, on the clips of the other folds.

    Only this blend gives an honest out-of-fold score.

    Args:
        frames, truth: as for `fit_weights`.
        folds: the fold of each clip, with the same index.
    Raises:
        TaggingError: all clips are in one fold.
    """
    if folds.nunique() < 2:
        raise TaggingError("--weights fitted needs the out-of-fold predictions of at least two folds that all runs "
                           "have. Train more folds, or remove the option.")
    parts = []
    for fold in sorted(folds.unique()):
        inside, outside = folds.index[folds == fold], folds.index[folds != fold]
        weights = fit_weights([frame.loc[outside] for frame in frames], truth.loc[outside], mean)
        parts.append(blend([frame.loc[inside] for frame in frames], mean, weights))
    return pd.concat(parts)


def class_means(*frames: pd.DataFrame) -> pd.Series:
    """Return the mean of each class over the clips of all frames, or 1 for a class that is always zero."""
    means = pd.concat(frames).mean()
    return means.where(means > 0, 1.0)


def fill_rows(scores: pd.DataFrame, fnames: Iterable[str]) -> pd.DataFrame:
    """Give each clip that was skipped with --skip-bad-clips the mean of all other rows, and log its name.

    A submission needs a row for every clip. The mean is the best guess for a clip that cannot be read.
    """
    missing = [fname for fname in fnames if fname not in scores.index]
    if missing:
        log.info("%d test clips were left out. Their rows are the mean of all others: %s", len(missing),
                 ", ".join(missing))
        scores = pd.concat([scores, pd.DataFrame([scores.mean()] * len(missing), missing, scores.columns)])
    return scores.loc[list(fnames)]


def check_submission(path: Path, fnames: Iterable[str], classes: Sequence[str]) -> pd.DataFrame:
    """Read a submission and check it.

    Raises:
        TaggingError: rows or classes are missing, extra or reordered, or a value is no finite number.
    """
    scores = read_scores(path)
    check_same(scores.index, fnames, str(path), "rows", "Each test clip needs one row.")
    check_same(scores.columns, classes, str(path), "classes", "Each class needs one column.")
    if list(scores.columns) != list(classes):
        position = [found == wanted for found, wanted in zip(scores.columns, classes)].index(False)
        raise TaggingError(f"{path} has another order of classes than the sample submission: column "
                           f"{position + 2} is {scores.columns[position]} and should be {classes[position]}.")
    return scores


def write_submission(path: Path, scores: pd.DataFrame, fnames: Iterable[str], classes: Sequence[str]) -> None:
    """Write rows and columns in the sample submission's order, and check the written file."""
    check_same(scores.index, fnames, "the prediction", "rows")
    check_same(scores.columns, classes, "the prediction", "classes")
    write_scores(path, scores.loc[list(fnames), list(classes)])
    check_submission(path, fnames, classes)
