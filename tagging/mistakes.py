"""Where a model errs: by class, class against class, in its confidence, and clip by clip.

Everything here is computed from the truth and the out-of-fold predictions, two frames with the same clips as index and
the same classes as columns. A class beats a label if the clip does not have it and it scores at least as high.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.errors import TaggingError, shorten
from tagging.files import atomic
from tagging.metric import lwlrap, per_class_lwlrap
from tagging.run import StageFolder
from tagging.tables import check_same, label_texts


def out_of_fold(folder: StageFolder, folds: Sequence[int] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth and predictions of the clips of some folds, by default of all that are finished.

    Raises:
        TaggingError: no fold is finished, one that is named is not, or a file is damaged.
    """
    predictions, truth = folder.out_of_fold(folds or folder.finished_folds()), folder.truth()
    remedy = "Train the folds again."
    check_same(predictions.columns, truth.columns, f"{folder}: the table of predictions", "classes", remedy)
    if strange := list(predictions.index.difference(truth.index)):
        raise TaggingError(f"{folder}: {shorten(strange, 3)} have predictions and are not in clips.csv. {remedy}")
    return truth.loc[predictions.index, predictions.columns], predictions


def score_by_class(truth: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Index class; columns lwlrap (NaN for a class without a clip), weight in the total, and clips with the label."""
    precision, weight = per_class_lwlrap(truth=truth.to_numpy(), scores=predictions.to_numpy())
    return pd.DataFrame({"lwlrap": precision, "weight": weight, "clips": truth.sum().to_numpy(int)}, truth.columns)


def confusions(truth: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """How many labels of the row's class are beaten by the column's class.

    Two labels of one clip never beat each other. A label can be beaten by several classes, so a row may add up to more
    than the labels of its class.

    Returns:
        (classes, classes) int; the diagonal is zero.
    """
    present, scores = truth.to_numpy(bool), predictions.to_numpy()
    counts = np.zeros((len(truth.columns), len(truth.columns)), int)
    for label in range(len(counts)):
        clips = present[:, label]
        counts[label] = ((scores[clips] >= scores[clips, label, None]) & ~present[clips]).sum(0)
    return pd.DataFrame(counts, truth.columns, truth.columns)


def frequent_confusions(counts: pd.DataFrame, truth: pd.DataFrame, limit: int) -> pd.DataFrame:
    """The pairs of `confusions` that happen most, with the share of the class's labels that this is."""
    matrix, labels = counts.to_numpy(), truth.sum().to_numpy(int)
    rows, columns = np.nonzero(matrix)
    order = np.argsort(-matrix[rows, columns], kind="stable")[:limit]
    rows, columns = rows[order], columns[order]
    return pd.DataFrame({"class": counts.index[rows], "beaten by": counts.columns[columns],
                         "times": matrix[rows, columns], "of labels": labels[rows],
                         "share": matrix[rows, columns] / labels[rows]})


def calibration(truth: pd.DataFrame, predictions: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """Whether a probability is what it says: all clips and classes, in bins of equal width from 0 to 1.

    Returns:
        A row for each bin that is not empty: low, high, predicted (the mean), observed (the share that is true), count.
    """
    probability, present = predictions.to_numpy().ravel(), truth.to_numpy().ravel()     # (clips * classes,)
    place = np.minimum((probability * bins).astype(int), bins - 1)      # 1.0 goes into the last bin
    count = np.bincount(place, minlength=bins)
    kept = np.flatnonzero(count)
    return pd.DataFrame({"low": kept / bins, "high": (kept + 1) / bins,
                         "predicted": np.bincount(place, probability, bins)[kept] / count[kept],
                         "observed": np.bincount(place, present, bins)[kept] / count[kept], "count": count[kept]})


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error: the mean gap between predicted and observed, each bin by its count.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015.
    """
    return float(np.average((table.predicted - table.observed).abs(), weights=table["count"]))


def clip_precision(truth: pd.DataFrame, predictions: pd.DataFrame) -> pd.Series:
    """The lwlrap of each clip by itself, NaN without a label. Weighted by the clips' labels, its mean is the lwlrap."""
    return pd.Series([lwlrap(truth=labels[None], scores=scores[None]) if labels.any() else np.nan
                      for labels, scores in zip(truth.to_numpy(), predictions.to_numpy())], truth.index)


def top_tags(scores: pd.Series, count: int = 5) -> list[tuple[str, float]]:
    """The classes that score highest, with their probabilities."""
    return list(scores.sort_values(ascending=False, kind="stable")[:count].items())


def clip_table(truth: pd.DataFrame, predictions: pd.DataFrame, tags: int = 5) -> pd.DataFrame:
    """All clips that have a label, the worst first.

    Returns:
        index fname; labels, as the csv files have them; precision; predicted, the highest classes as text; and
        new_labels, empty, to be filled in by whoever listens to the clips.
    """
    table = pd.DataFrame({"labels": label_texts(truth.to_numpy(), truth.columns),
                          "precision": clip_precision(truth, predictions)}, truth.index).dropna(subset="precision")
    table = table.sort_values("precision", kind="stable")
    table["predicted"] = [", ".join(f"{name} {value:.2f}" for name, value in top_tags(predictions.loc[fname], tags))
                          for fname in table.index]
    return table.assign(new_labels="")


def write_clip_table(path: Path, table: pd.DataFrame) -> None:
    """Write a `clip_table` as csv, with the fname as first column."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index_label="fname", float_format="%.4f", lineterminator="\n")
