"""Seeded folds."""
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
