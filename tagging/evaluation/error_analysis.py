"""The errors of a model: by class, between classes, in its confidence, and clip by clip.

Everything is computed from the truth and the out-of-fold predictions, two frames with the same index (clips) and
columns (classes). A class outranks a label if the clip does not have the class and the class scores at least as high.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.tables import check_same, label_texts
from tagging.errors import TaggingError, shorten
from tagging.metric import lwlrap, per_class_lwlrap
from tagging.run import StageFolder
from tagging.utils.files import atomic


def out_of_fold(folder: StageFolder, folds: Sequence[int] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read truth and predictions of the clips of some folds, by default of all finished ones.

    Raises:
        TaggingError: no fold is finished, a named one is not, or a file is damaged.
    """
    predictions, truth = folder.out_of_fold(folds or folder.finished_folds()), folder.truth()
    remedy = "Train the folds again."
    check_same(predictions.columns, truth.columns, f"{folder}: the table of predictions", "classes", remedy)
    if strange := list(predictions.index.difference(truth.index)):
        raise TaggingError(f"{folder}: {shorten(strange, 3)} have predictions but are not in clips.csv. {remedy}")
    return truth.loc[predictions.index, predictions.columns], predictions


def score_by_class(truth: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Score each class: lwlrap (NaN for a class without a clip), weight in the total, and clips with the label."""
    precision, weight = per_class_lwlrap(truth=truth.to_numpy(), scores=predictions.to_numpy())
    return pd.DataFrame({"lwlrap": precision, "weight": weight, "clips": truth.sum().to_numpy(int)}, truth.columns)


def confusions(truth: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Count the labels of the row's class that the column's class outranks.

    Two labels of one clip never outrank each other. Several classes can outrank one label, so the sum of a row can
    exceed the number of labels of its class.

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
    """Return the most frequent pairs of `confusions`, with their share of the class's labels."""
    matrix, labels = counts.to_numpy(), truth.sum().to_numpy(int)
    rows, columns = np.nonzero(matrix)
    order = np.argsort(-matrix[rows, columns], kind="stable")[:limit]
    rows, columns = rows[order], columns[order]
    return pd.DataFrame({"class": counts.index[rows], "outranked by": counts.columns[columns],
                         "times": matrix[rows, columns], "of labels": labels[rows],
                         "share": matrix[rows, columns] / labels[rows]})


def calibration(truth: pd.DataFrame, predictions: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """Compare predicted probabilities with observed frequencies: all clips and classes, in bins of equal width.

    Returns:
        a row for each bin that is not empty: low, high, predicted (the mean), observed (the share that is true), count.
    """
    probability, present = predictions.to_numpy().ravel(), truth.to_numpy().ravel()     # (clips * classes,)
    place = np.minimum((probability * bins).astype(int), bins - 1)      # 1.0 goes into the last bin
    count = np.bincount(place, minlength=bins)
    kept = np.flatnonzero(count)
    return pd.DataFrame({"low": kept / bins, "high": (kept + 1) / bins,
                         "predicted": np.bincount(place, probability, bins)[kept] / count[kept],
                         "observed": np.bincount(place, present, bins)[kept] / count[kept], "count": count[kept]})


def calibration_error(table: pd.DataFrame) -> float:
    """Return the expected calibration error: the mean gap between predicted and observed, weighted by count.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015.
    """
    return float(np.average((table.predicted - table.observed).abs(), weights=table["count"]))


def clip_precision(truth: pd.DataFrame, predictions: pd.DataFrame) -> pd.Series:
    """Return the lwlrap of each clip, NaN without a label. Their mean, weighted by labels, is the lwlrap of all."""
    return pd.Series([lwlrap(truth=labels[None], scores=scores[None]) if labels.any() else np.nan
                      for labels, scores in zip(truth.to_numpy(), predictions.to_numpy())], truth.index)


def top_tags(scores: pd.Series, count: int = 5) -> list[tuple[str, float]]:
    """Return the classes with the highest scores, and their probabilities."""
    best = scores.sort_values(ascending=False, kind="stable")[:count]
    return list(zip(best.index, best))


def clip_table(truth: pd.DataFrame, predictions: pd.DataFrame, tags: int = 5) -> pd.DataFrame:
    """List all clips that have a label, the worst first.

    Returns:
        index fname; labels as in the csv files; precision; predicted, the highest classes as text; and new_labels,
        empty, to fill in while listening to the clips.
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
