"""Compare the tags of a log with out-of-fold predictions and training labels: the shares of each class, with tests.

Two shares are compared with Fisher's exact test, and the p-values are corrected for the number of classes with Holm's
method. If nothing changed, the chance that any class is reported is at most `ALPHA`. That holds if the sounds are
independent of each other.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact, norm

from tagging.evaluation.drift.tally import Tally

ALPHA = 0.05        # chance of any false report
POWER = 0.8         # chance to find a class that is twice as frequent; with less, there are too few clips to tell
MORE, FEWER, SAME, UNKNOWN = "more", "fewer", "no change found", "too few clips"


def compare_shares(counts: np.ndarray, number: int, others: np.ndarray, total: int, classes: Sequence[str],
                   ) -> pd.DataFrame:
    """Compare the shares of each class in two sets.

    Args:
        counts, others: (classes,) sounds with the class in the log, and in the set that it is compared with.
        number, total: sounds in each set.
    Returns:
        index class; share and other_share; factor, infinite if the class is not in the other set; difference and its
        95 % interval (Agresti and Caffo, 2000) low to high, in percentage points; and p, not corrected.
    """
    share, other = counts / max(number, 1), others / max(total, 1)
    ours, theirs = (counts + 1) / (number + 2), (others + 1) / (total + 2)
    error = 1.96 * np.sqrt(ours * (1 - ours) / (number + 2) + theirs * (1 - theirs) / (total + 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(counts + others == 0, 1, share / other)
    p = [fisher_exact([[count, number - count], [rest, total - rest]]).pvalue for count, rest in zip(counts, others)]
    return pd.DataFrame({"share": share, "other_share": other, "factor": factor, "difference": 100 * (share - other),
                         "low": 100 * (ours - theirs - error), "high": 100 * (ours - theirs + error), "p": p}, classes)


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p-values for their number with Holm's method: (tests,) -> (tests,)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def needed_sounds(share: np.ndarray | float, tests: int) -> np.ndarray:
    """Return how many sounds of a log are needed to find that a class is twice as frequent, with a chance of `POWER`.

    Args:
        share: of the class.
        tests: number of classes that are tested at once.
    """
    share = np.asarray(share)
    changed = np.minimum(2 * share, (1 + share) / 2)
    distance = norm.isf(ALPHA / tests / 2) + norm.isf(1 - POWER)
    return np.ceil(distance ** 2 * changed * (1 - changed) / (changed - share) ** 2)


def judge(table: pd.DataFrame, number: int, total: int, tests: int, least_change: float) -> pd.Series:
    """Return the verdict on each class: `MORE`, `FEWER`, `SAME` or `UNKNOWN`.

    Args:
        table: of `compare_shares`, with the corrected p-values.
        number, total: sounds in both sets.
        tests: number of all tests.
        least_change: a smaller factor is no change.
    """
    found = table.p <= ALPHA
    few = 1 / (1 / max(number, 1) + 1 / max(total, 1)) < needed_sounds(
        np.maximum(table.other_share, 1 / max(total, 1)), tests)
    more, fewer = table.factor >= least_change, table.factor <= 1 / least_change
    verdict = np.select([found & more, found & fewer, ~found & few], [MORE, FEWER, UNKNOWN], SAME)
    return pd.Series(verdict, table.index)


@dataclass(frozen=True)
class Drift:
    """The comparison of a log with the out-of-fold predictions and the training labels of a run.

    Attributes:
        measures: "strongest", and "detected" if the log lists enough tags -> table of `compare_shares` with corrected p
            and the verdict.
        training: the same for the strongest tags and the training labels.
        distance: share of the sounds whose strongest tag would have to change for equal shares, 0 to 1.
        by_chance: the distance that is expected without drift.
    """
    log: Tally
    predictions: Tally
    measures: dict[str, pd.DataFrame]
    training: pd.DataFrame
    distance: float
    by_chance: float

    @property
    def moved(self) -> list[str]:
        """The classes that moved in any measure, those with the largest difference first."""
        rows = pd.concat([table[table.verdict.isin((MORE, FEWER))] for table in self.measures.values()])
        return list(dict.fromkeys(rows.difference.abs().sort_values(ascending=False, kind="stable").index))

    def remedy(self) -> str:
        """Return how many sounds are needed to see that a class of usual share is twice as frequent."""
        total = self.predictions.sounds
        usual = max(float(np.median(self.predictions.strongest)), 1) / total
        needed = float(needed_sounds(usual, len(self.log.classes) * len(self.measures)))
        if needed >= total:
            return (f"A class must change by more than twice to be found, because there are only {total:,} out-of-fold "
                    "predictions.")
        return ("To see that a class of usual share is twice as frequent, the log needs about "
                f"{np.ceil(needed * total / (total - needed)):,.0f} sounds.")


def compare(log: Tally, predictions: Tally, labels: pd.Series, least_change: float = 1.25) -> Drift:
    """Compare a log with out-of-fold predictions, and with the number of training labels of each class.

    Args:
        labels: index class.
        least_change: a smaller factor is no change.
    """
    classes = list(log.classes)
    counts = {"strongest": (log.strongest, predictions.strongest)}
    if log.all_detected:
        counts["detected"] = (log.detected, predictions.detected)
    measures = {name: compare_shares(ours, log.sounds, theirs, predictions.sounds, classes)
                for name, (ours, theirs) in counts.items()}
    tests = len(classes) * len(measures)
    corrected = np.split(holm(np.concatenate([table.p for table in measures.values()])), len(measures))
    measures = {name: table.assign(p=p) for (name, table), p in zip(measures.items(), corrected)}
    measures = {name: table.assign(verdict=judge(table, log.sounds, predictions.sounds, tests, least_change))
                for name, table in measures.items()}
    training = compare_shares(log.strongest, log.sounds, labels[classes].to_numpy(int), int(labels.sum()), classes)
    training = training.assign(p=holm(training.p.to_numpy()))
    training["verdict"] = judge(training, log.sounds, int(labels.sum()), len(classes), least_change)
    share = predictions.strongest / predictions.sounds
    spread = np.sqrt(share * (1 - share) * (1 / max(log.sounds, 1) + 1 / predictions.sounds))
    return Drift(log, predictions, measures, training, float(measures["strongest"].difference.abs().sum() / 200),
                 float(spread.sum() / np.sqrt(2 * np.pi)))
