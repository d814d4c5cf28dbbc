"""Out-of-fold predictions -> the thresholds of `--threshold auto` and `--threshold precision:P`."""
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from tagging.data.tables import check_same
from tagging.run import StageFolder
from tagging_lite.tagger import ModelInfo


def add_thresholds(info: ModelInfo, folder: StageFolder, folds: Sequence[int] = ()) -> ModelInfo:
    """Add the thresholds that suit the out-of-fold predictions of the named folds, or of all finished ones.

    Raises:
        TaggingError: a file of the run is missing or damaged, or does not fit the others.
    """
    scores, truth = folder.out_of_fold(folder.choose_folds(folds)), folder.truth()
    classes = list(info.classes)
    check_same(scores.columns, classes, f"{folder}: its out-of-fold predictions", "classes", "Train the folds again.")
    known = scores.index.isin(truth.index)
    check_same(scores.index[known], scores.index, f"{folder}/clips.csv", "clips", "Train the folds again.")
    labels, values = truth.loc[scores.index, classes].to_numpy(), scores[classes].to_numpy()
    steps = [threshold_steps(labels[:, place], values[:, place]) for place in range(len(classes))]
    return dataclasses.replace(info, thresholds=tuple(best_f1(*step) for step in steps),
                               precisions=tuple(precision_steps(*step[:2]) for step in steps))


def threshold_steps(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all thresholds that differ in the tags they give.

    A threshold is in the middle between two scores, and the last one between the lowest score and 0.

    Args:
        truth: (clips,) 0/1.
        scores: (clips,) probabilities of the class.
    Returns:
        thresholds: (thresholds,), falling.
        precision, recall: (thresholds,) of the clips that score at least as high. Without a true label, recall is 0.
    """
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]                                                          # falling
    following = np.append(scores[1:], 0.0)
    last = np.flatnonzero(np.append(scores[:-1] != scores[1:], True))               # of the clips with equal scores
    found = np.cumsum(truth[order])[last]
    return (scores[last] + following[last]) / 2, found / (last + 1), found / max(1, truth.sum())


def best_f1(thresholds: np.ndarray, precision: np.ndarray, recall: np.ndarray) -> float:
    """Return the threshold with the best F1, the highest one of several, or infinity for a class without labels.

    Args:
        thresholds, precision, recall: as `threshold_steps` returns them.
    """
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return float(thresholds[f1.argmax()]) if f1.max() > 0 else math.inf


def precision_steps(thresholds: np.ndarray, precision: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Return for each precision that is possible the lowest threshold that reaches it, both rising.

    Args:
        thresholds, precision: as `threshold_steps` returns them.
    """
    steps, best = [], 0.0
    for threshold, value in zip(thresholds[::-1].tolist(), precision[::-1].tolist()):
        if value > best:
            steps.append((value, threshold))
            best = value
    return tuple(steps)
