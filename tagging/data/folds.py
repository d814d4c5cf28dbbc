"""Folds: which clips a model trains on and which it is validated on. Also the choice of a test set."""
import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedGroupKFold

from tagging.data.clip_names import adopt_names
from tagging.data.competition import Clips, Competition
from tagging.data.tables import is_missing, read_soft_labels
from tagging.data.waveforms import WaveStore, open_store
from tagging.errors import TaggingError, shorten
from tagging.recipe import SOURCE_COLUMN, Recipe
from tagging.utils.files import fingerprint
from tagging_lite.audio import make_trim

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipDataset:
    """Clips to train on or to predict, in the same order in all three fields."""
    fnames: pd.Index
    store: WaveStore
    targets: np.ndarray     # (clips, classes) 0/1 or soft labels

    def __len__(self) -> int:
        return len(self.fnames)


@dataclass(frozen=True)
class FoldedClips:
    """A split of a competition with the validation fold of each clip."""
    clips: Clips
    store: WaveStore
    fold_of: np.ndarray         # (clips,) from 1

    def valid(self, fold: int) -> ClipDataset:
        """Return the clips that the model of `fold` is validated on."""
        return self.select(self.fold_of == fold)

    def train(self, fold: int) -> ClipDataset:
        """Return the clips that the model of `fold` is trained on: those of all other folds."""
        return self.select(self.fold_of != fold)

    def select(self, mask: np.ndarray) -> ClipDataset:
        return ClipDataset(self.clips.fnames[mask], self.store.subset(mask), self.clips.targets[mask])

    def relabelled(self, path: Path, classes: tuple[str, ...]) -> "FoldedClips":
        """Return the clips that a csv of soft labels lists, with its labels.

        Raises:
            TaggingError: as `read_soft_labels` and `adopt_names`; or the csv lists an unknown clip, or clips of a
                single fold.
        """
        labels = read_soft_labels(path, classes)
        labels.index = pd.Index(adopt_names(labels.index, self.clips.fnames, path, f"the clips of {self.clips.csv}"))
        unknown = labels.index.difference(self.clips.fnames)
        if len(unknown):
            raise TaggingError(f"{path} lists {len(unknown)} clips that are not among the usable ones of "
                               f"{self.clips.csv}: {shorten(list(unknown), 3)}. Remove these rows, or use the data "
                               "from which the file was made.")
        keep = self.clips.fnames.isin(labels.index)
        clips, fold_of = self.clips.subset(keep), self.fold_of[keep]
        if len(np.unique(fold_of)) < 2:
            raise TaggingError(f"{path} has clips of fold {fold_of[0]} only, and the model of that fold may train on "
                               "none of them. Keep more rows.")
        clips = replace(clips, targets=labels.loc[clips.fnames].to_numpy(np.float32))
        return FoldedClips(clips, self.store.subset(keep), fold_of)

    def fingerprint(self) -> str:
        """Return a hash of names, labels, samples and folds."""
        return fingerprint(*(part.tolist() for part in (self.clips.fnames, self.clips.targets, self.store.checksums,
                                                        self.fold_of)))


def open_folds(split: str, competition: Competition, recipe: Recipe, cache: Path, skip_bad: bool = False,
               sample_rate: int | None = None) -> FoldedClips:
    """Open the curated or the noisy split, decoded, with its folds.

    A noisy clip keeps its fold in both stages: the model of a fold trains on no noisy clip of that fold either.

    Args:
        skip_bad, sample_rate: as for `open_store`.
    Raises:
        TaggingError: as `fold_clips` and `open_store`.
    """
    clips, folds = fold_clips(split, competition, recipe)
    fold_of = pd.Series(folds, clips.fnames)
    clips, store = open_store(clips, make_trim(recipe.trim_db), cache, skip_bad=skip_bad, sample_rate=sample_rate)
    competition.check_every_class(clips)
    return FoldedClips(clips, store, fold_of[clips.fnames].to_numpy())


def fold_clips(split: str, competition: Competition, recipe: Recipe) -> tuple[Clips, np.ndarray]:
    """Read a split and assign its folds. A noisy clip of a curated recording is in the fold of that recording.

    Returns:
        the clips, and the fold of each: (clips,) from 1.
    Raises:
        TaggingError: as `Competition.clips` and `assign_folds`; or the csv has no column with the given name.
    """
    clips = competition.clips(split, recipe.source_column)
    if clips.sources is None and recipe.source_column not in ("", SOURCE_COLUMN):
        raise TaggingError(f"{clips.csv} has no column {recipe.source_column}. Correct --source-column, or ignore the "
                           "recordings with --source-column ''.")
    if clips.sources is not None:
        clips = replace(clips, sources=np.array([str(path) if is_missing(source) else source.strip()
                                                 for path, source in zip(clips.paths, clips.sources)]))
    folds = assign_folds(clips.targets, recipe.fold_count, recipe.fold_seed, recipe.stratified, clips.sources)
    if clips.sources is None:
        return clips, folds
    log.info("%s: the folds keep the %d recordings of the column %s together", clips.csv, len(set(clips.sources)),
             recipe.source_column)
    if split == "noisy" and competition.has("curated"):
        curated, fold_of = fold_clips("curated", competition, recipe)
        if curated.sources is not None:
            known = dict(zip(curated.sources, fold_of))
            folds = np.array([known.get(source, fold) for source, fold in zip(clips.sources, folds)])
    return clips, folds


def assign_folds(targets: np.ndarray, count: int, seed: int, stratified: bool = False,
                 sources: np.ndarray | None = None) -> np.ndarray:
    """Return the validation fold of each clip, from 1 to `count`.

    `KFold(5, shuffle=True, random_state=42)` over the rows of the csv, without the six clips that the organisers named
    as bad, gives the published folds. Clips that --skip-bad-clips drops are assigned too, so that the others keep
    their folds.

    Args:
        targets: (clips, classes), 0/1.
        stratified: keep the class counts even. Sechidis et al., "On the stratification of multi-label data", 2011.
        sources: (clips,) the recording of each clip. Clips of a recording get the same fold, and the counts of classes
            are as even as that allows, where a clip counts for the rarest of its labels.
    Returns:
        (clips,) int.
    Raises:
        TaggingError: there are fewer than two folds, or more folds than clips or recordings.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold  # not at the top: Kaggle's image lacks it

    if not 2 <= count <= len(targets):
        raise TaggingError(f"{len(targets)} clips cannot be split into {count} folds. "
                           f"Choose --fold-count between 2 and {len(targets)}.")
    strata = targets
    if sources is None:
        splitter = (MultilabelStratifiedKFold if stratified else KFold)(count, shuffle=True, random_state=seed)
    else:
        recordings = len(set(sources))
        if recordings < count:
            raise TaggingError(f"The clips come from {recordings} recordings, and these cannot be split into {count} "
                               f"folds. Lower --fold-count, or split recordings with --source-column ''.")
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        strata = rarest_labels(targets)
        if np.bincount(strata).max() < count:       # then scikit-learn refuses, and there is nothing to keep even
            strata = np.zeros_like(strata)
    folds = np.zeros(len(targets), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")             # a class with fewer clips than folds
        for fold, (_, valid) in enumerate(splitter.split(targets, strata, sources), start=1):
            folds[valid] = fold
    return folds


def rarest_labels(targets: np.ndarray) -> np.ndarray:
    """Return the place of the rarest label of each clip, and the number of classes if it has none: (clips,) int."""
    counts = np.where(targets > 0, targets.sum(0), np.inf)                      # (clips, classes)
    return np.where((targets > 0).any(1), counts.argmin(1), targets.shape[1])


def choose_test(targets: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose the test clips by whole sources, so that each class has about `share` of its clips among them.

    First each class gets a test clip, the rarest class first, as in Sechidis et al., "On the stratification of
    multi-label data", 2011. Then each source that brings the class counts closer to their share is added. The last
    source of a class always stays in training.

    Args:
        targets: (clips, classes) 0/1.
        groups: (clips,) the source of each clip.
    Returns:
        (clips,) bool.
    Raises:
        TaggingError: every source is needed for training.
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
        raise TaggingError("Every class has a single source, so there is none for the test clips. Add clips from other "
                           "sources.")
    return chosen[source_of]
