"""Folds, and the choice of a test set."""
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold

from tagging.data.competition import open_competition
from tagging.data.folds import assign_folds, choose_test, fold_clips
from tagging.errors import TaggingError
from tagging.recipe import RECIPES


def rare_labels(clips=300, classes=25, seed=0):
    """0/1 labels, from common classes to rare ones, at least one a clip."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((clips, classes)) < np.geomspace(0.2, 0.02, classes)).astype(int)
    targets[np.arange(clips), rng.integers(0, classes, clips)] = 1
    return targets


def test_the_published_folds():
    folds = assign_folds(np.ones((4964, 80), int), 5, 42)
    splits = KFold(5, shuffle=True, random_state=42).split(np.zeros(4964))
    for number, (_, valid) in enumerate(splits, start=1):
        assert np.array_equal(np.flatnonzero(folds == number), valid)
    assert np.bincount(folds).tolist() == [0, 993, 993, 993, 993, 992]       # every clip in exactly one


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_clip_is_in_one_fold_and_no_fold_is_empty(stratified, count):
    folds = assign_folds(rare_labels(), count, 1, stratified)
    assert folds.shape == (300,) and set(folds) == set(range(1, count + 1))


@pytest.mark.parametrize("stratified", [False, True])
def test_the_seed_decides_the_folds(stratified):
    first, again, other = (assign_folds(rare_labels(), 5, seed, stratified) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stratified_folds_keep_the_class_counts_closer(seed):
    targets = rare_labels(seed=seed)

    def unevenness(stratified):
        folds = assign_folds(targets, 5, seed, stratified)
        counts = np.stack([targets[folds == fold].sum(0) for fold in range(1, 6)])       # (folds, classes)
        return np.abs(counts - counts.mean(0)).mean()

    assert unevenness(True) < 0.6 * unevenness(False)


def recordings(targets, seed=0):
    """A recording for each clip, of 1 to 8 clips."""
    sizes = np.random.default_rng(seed).integers(1, 9, len(targets))
    return np.repeat(np.arange(len(sizes)), sizes)[:len(targets)].astype(str)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_recording_is_split_and_the_class_counts_stay_as_even_as_those_of_single_clips(seed):
    targets = rare_labels(seed=seed)
    sources = recordings(targets, seed)
    folds = assign_folds(targets, 5, seed, sources=sources)
    assert all(len(set(folds[sources == source])) == 1 for source in set(sources)) and set(folds) == {1, 2, 3, 4, 5}

    def unevenness(folds):
        counts = np.stack([targets[folds == fold].sum(0) for fold in range(1, 6)])       # (folds, classes)
        return np.abs(counts - counts.mean(0)).mean()

    whole = np.zeros(len(targets), int)
    for fold, (_, valid) in enumerate(GroupKFold(5, shuffle=True, random_state=seed).split(targets, groups=sources), 1):
        whole[valid] = fold
    assert unevenness(folds) < unevenness(whole)


@given(st.integers(2, 5), st.data())
def test_any_recordings_fill_every_fold(count, data):
    clips = data.draw(st.integers(count, 30))
    sources = np.array(data.draw(st.lists(st.integers(0, 9), min_size=clips, max_size=clips)))
    targets = np.array(data.draw(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=clips,
                                          max_size=clips)))
    if len(set(sources)) < count:
        with pytest.raises(TaggingError, match="recordings, and these cannot be split"):
            assign_folds(targets, count, 0, sources=sources)
    else:
        folds = assign_folds(targets, count, 0, sources=sources)
        assert set(folds) == set(range(1, count + 1))
        assert all(len(set(folds[sources == source])) == 1 for source in set(sources))


def test_a_noisy_clip_of_a_curated_recording_is_in_its_fold(sample, tmp_path, caplog):
    shutil.copytree(sample, tmp_path / "data")
    for split in ("curated", "noisy"):
        path = tmp_path / "data" / f"train_{split}.csv"
        table = pd.read_csv(path)
        # The first recordings have clips in both sets; the last two clips have no recording.
        table["source"] = [f" rec{number // 3}" for number in range(len(table) - 2)] + ["", "nan"]
        table.to_csv(path, index=False)
    competition = open_competition(tmp_path / "data")
    recipe = RECIPES["smoke"]
    curated, fold_of = fold_clips("curated", competition, recipe)
    noisy, noisy_fold_of = fold_clips("noisy", competition, recipe)
    assert "keep the 17 recordings of the column source together" in caplog.text        # 43 clips, and two of their own
    assert "keep the 32 recordings" in caplog.text
    fold = dict(zip(curated.sources, fold_of))
    shared = [source in fold for source in noisy.sources]
    assert sum(shared) == 45 and all(fold.get(source, one) == one for source, one in zip(noisy.sources, noisy_fold_of))
    with pytest.raises(TaggingError, match=r"train_curated\.csv has no column recording\. Correct --source-column"):
        fold_clips("curated", competition, replace(recipe, source_column="recording"))
    without = replace(recipe, source_column="")
    assert fold_clips("curated", competition, without)[0].sources is None
    assert np.array_equal(fold_clips("curated", competition, without)[1], assign_folds(curated.targets, 5, 42))


@pytest.mark.parametrize("count, clips", [(1, 10), (0, 10), (-1, 10), (11, 10), (2, 1)])
def test_an_impossible_number_of_folds_is_refused(count, clips):
    with pytest.raises(TaggingError, match=f"^{clips} clips cannot be split into {count} folds.*--fold-count"):
        assign_folds(np.ones((clips, 3), int), count, 42)


def test_as_many_folds_as_clips_are_possible():
    assert sorted(assign_folds(np.ones((4, 2), int), 4, 42)) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(8))
def test_the_split_keeps_sources_whole_and_classes_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    targets = (rng.random((400, 12)) < np.geomspace(0.02, 0.4, 12)).astype(np.uint8)
    targets[np.arange(400), rng.integers(0, 12, 400)] = 1
    groups = rng.integers(0, 200, 400)
    test = choose_test(targets, groups, 0.25, seed)
    share = targets[test].sum(0) / targets.sum(0)                                  # (classes,)
    assert not set(groups[test]) & set(groups[~test])
    assert share.min() > 0.15 and share.max() < 0.4 and 0.2 < test.mean() < 0.3


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_every_class_is_trained_and_tested_whatever_the_share(share):
    targets = np.eye(4, dtype=np.uint8)[[0, 0, 1, 1, 1, 2, 3, 3]]
    test = choose_test(targets, np.array([0, 1, 2, 3, 3, 4, 5, 5]), share, seed=0)
    assert targets[~test].sum(0).all()
    assert targets[test].sum(0)[:2].all() and not targets[test].sum(0)[2:].any()    # these have one source each
