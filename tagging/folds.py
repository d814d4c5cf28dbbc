"""Seeded folds, and the choice of a test set."""
import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import KFold

from tagging.errors import TaggingError


def assign_folds(targets: np.ndarray, count: int, seed: int, stratified: bool = False) -> np.ndarray:
    """The validation fold of each clip, from 1 to `count`.

    `KFold(5, shuffle=True, random_state=42)` over the rows of the csv, without the six clips that the organisers named
    as bad, gives the published folds. Clips that --skip-bad-clips leaves out keep theirs, so that the others do too.

    Args:
        targets: (clips, classes), 0/1.
        stratified: keep the class counts even; Sechidis et al., "On the stratification of multi-label data", 2011.
    Returns:
        (clips,) int.
    Raises:
        TaggingError: fewer than two folds, or more folds than clips.
    """
    if not 2 <= count <= len(targets):
        raise TaggingError(f"{len(targets)} clips cannot be split into {count} folds. "
                           f"Choose --fold-count between 2 and {len(targets)}.")
    splitter = (MultilabelStratifiedKFold if stratified else KFold)(count, shuffle=True, random_state=seed)
    folds = np.zeros(len(targets), int)
    for fold, (_, valid) in enumerate(splitter.split(targets, targets), start=1):
        folds[valid] = fold
    return folds


def choose_test(targets: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose the test clips by whole sources, so that each class has about `share` of its clips among them.

    First each class gets a test clip, the rarest one first as in Sechidis et al., "On the stratification of multi-label
    data", 2011. Then a source is taken if that brings the classes nearer to their share. The last source of a class is
    never taken.

    Args:
        targets: (clips, classes) 0/1.
        groups: (clips,) the source of each clip.
    Returns:
        (clips,) bool.
    Raises:
        TaggingError: no source can be taken.
    """
    _, source_of = np.unique(groups, return_inverse=True)                       # (clips,)
    counts = np.zeros((source_of.max() + 1, targets.shape[1]), int)             # (sources, classes)
    np.add.at(counts, source_of, targets)
    total, test = counts.sum(0), np.zeros(targets.shape[1], int)                # (classes,)
    chosen = np.zeros(len(counts), bool)                                        # (sources,)
    order = np.random.default_rng(seed).permutation(len(counts))

    def spare(source: int) -> bool:
        return (total - test > counts[source])[counts[source] > 0].all()

    def distance(test: np.ndarray) -> float:
        return np.abs(test / total - share).sum()

    for column in np.argsort((counts > 0).sum(0), kind="stable"):
        spares = [source for source in order if counts[source, column] and spare(source)]
        if spares and not test[column]:
            smallest = min(spares, key=lambda source: counts[source].sum())     # the least above the share
            chosen[smallest] = True
            test += counts[smallest]
    for source in order:
        if not chosen[source] and spare(source) and distance(test + counts[source]) < distance(test):
            chosen[source] = True
            test += counts[source]
    if not chosen.any():
        raise TaggingError("No class can spare a source for the test clips: each needs two or more.")
    return chosen[source_of]
