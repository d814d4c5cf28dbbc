"""Scores on the test clips, where their labels are known, and scores of the strongest tag."""
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from tagging.data.clip_names import adopt_names
from tagging.data.competition import Competition
from tagging.data.folds import ClipDataset
from tagging.data.tables import check_same, read_truth
from tagging.data.waveforms import open_store
from tagging.errors import TaggingError
from tagging_lite.audio import make_trim

NAME = "test_post_competition.csv"      # in Zenodo's folder of metadata; here, also beside Kaggle's csv files


def find_truth(competition: Competition) -> Path | None:
    """Return the csv with the labels of the test clips, if the competition has one and the test clips."""
    path = (competition.root / competition.layout.splits["test"][0]).with_name(NAME)
    return path if path.is_file() and competition.has("test") else None


def open_truth(competition: Competition, cache: Path, *, trim_db: float, sample_rate: int, skip_bad: bool = False,
               path: Path | None = None, usage: str | None = None) -> ClipDataset | None:
    """Open the test clips with their labels. Return None if there is no csv with labels.

    Args:
        trim_db, sample_rate, skip_bad: as for `open_store` and `make_trim`.
        path: csv as for `lwlrap.py`. None takes that of `find_truth`.
        usage: only the clips with this usage, such as Private.
    Raises:
        TaggingError: the csv is wrong, or is not about the test clips; or as `open_store`.
    """
    path = path or find_truth(competition)
    if not path:
        return None
    clips = competition.clips("test")
    truth = read_truth(path, competition.classes, usage)
    truth.index = pd.Index(adopt_names(truth.index, clips.fnames, path, f"the clips of {clips.csv}"))
    unknown = truth.index.difference(clips.fnames)
    check_same(truth.columns, competition.classes, str(path), "classes")
    if len(unknown) or not truth.to_numpy().any():
        raise TaggingError(f"{path} " + (f"has {len(unknown)} rows that are not in {clips.csv}, such as {unknown[0]}. "
                           if len(unknown) else "has no label. ") + "Name the truth of these test clips with --truth.")
    clips = clips.subset(clips.fnames.isin(truth.index))
    clips, store = open_store(clips, make_trim(trim_db), cache, skip_bad=skip_bad, sample_rate=sample_rate)
    return ClipDataset(clips.fnames, store, truth.loc[clips.fnames, list(competition.classes)].to_numpy())


def strongest_tag(*, truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the accuracy and Cohen's kappa of the strongest tag.

    The accuracy is the share of the clips with a label whose highest score is that of one of their labels. Kappa is
    over the clips with exactly one label. It is 0 for a guess that knows the frequencies only, and 1 without an error.

    Args:
        truth: (clips, classes) 0/1.
        scores: (clips, classes).
    Returns:
        accuracy and kappa. NaN if there is no such clip, or for kappa, if all have the same class and tag.
    """
    best, labels = scores.argmax(1), truth.sum(1)
    labelled, single = labels > 0, labels == 1
    accuracy = truth[np.arange(len(truth)), best][labelled].mean() if labelled.any() else np.nan
    kappa = np.nan
    if single.any() and len({*truth[single].argmax(1), *best[single]}) > 1:
        kappa = cohen_kappa_score(truth[single].argmax(1), best[single])
    return float(accuracy), float(kappa)
