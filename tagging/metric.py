"""Label-weighted label-ranking average precision (lwlrap), the score of the competition."""
import numpy as np


def per_class_lwlrap(*, truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean precision of each class, and each class's share of all labels.

    For every label of every clip, precision is the share of true labels among the classes that
    score at least as high as that label. Ties count against the label, as in scikit-learn's
    `label_ranking_average_precision_score`. Clips without labels do not count.

    Args:
        truth: (clips, classes), 0/1 or boolean.
        scores: (clips, classes), finite; only their order within a clip matters.
    Returns:
        precision: (classes,), NaN for a class without a label.
        weight: (classes,), sums to 1.
    Raises:
        ValueError: shapes differ, truth is not 0/1, a score is not finite, or there is no label at all.

    Source: Fonseca et al., "Audio tagging with noisy labels and minimal supervision", DCASE 2019.
    """
    truth, scores = np.asarray(truth), np.asarray(scores)
    if truth.shape != scores.shape or truth.ndim != 2:
        raise ValueError(f"truth {truth.shape} and scores {scores.shape} must both be (clips, classes)")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("truth must hold 0 and 1 only")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    truth = truth.astype(bool)
    clip, label = np.nonzero(truth)                                 # (labels,), one entry a true label
    if not len(clip):
        raise ValueError("truth has no label at all")

    above = scores[clip] >= scores[clip, label][:, None]            # (labels, classes)
    precision = (above & truth[clip]).sum(1) / above.sum(1)         # (labels,)

    count = truth.sum(0)                                            # (classes,)
    total = np.bincount(label, weights=precision, minlength=truth.shape[1])
    with np.errstate(invalid="ignore"):
        return total / count, count / count.sum()


def lwlrap(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean precision over all labels of all clips; see `per_class_lwlrap` for arguments and errors."""
    precision, weight = per_class_lwlrap(truth=truth, scores=scores)
    return float(np.nansum(precision * weight))
