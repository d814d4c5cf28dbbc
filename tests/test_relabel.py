"""Soft labels of the noisy set: how they are judged, and trained on."""
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import JOINT, TINY, Workshop, classes_of, mislabel_a_noisy_clip

from tagging.data.competition import open_competition
from tagging.data.folds import FoldedClips, open_folds
from tagging.data.tables import read_soft_labels
from tagging.errors import TaggingError
from tagging.evaluation.predict import predict_probabilities
from tagging.modeling.model import load_model
from tagging.run import StageFolder


@pytest.fixture(scope="module")
def judged(tmp_path_factory, sample) -> Workshop:
    """A run of both folds on both sets, and the labels of the noisy set judged by it."""
    shop = Workshop(tmp_path_factory.mktemp("judged"), sample)
    assert shop.train("train_curated.py", "first", *JOINT).code == 0
    result = shop.call("tools/relabel.py", *shop.options("first"))
    assert result.code == 0 and "given labels have a probability below 0.5" in result.out
    return shop


def soft_labels(shop: Workshop) -> pd.DataFrame:
    return pd.read_csv(shop.folder / "models" / "first" / "noisy_labels.csv", index_col="fname")


def noisy_set(shop: Workshop) -> FoldedClips:
    recipe = StageFolder(shop.stage("first", "curated")).recipe()
    return open_folds("noisy", open_competition(shop.data), recipe, shop.folder / "cache")


def test_each_noisy_clip_is_judged_by_the_model_that_has_not_seen_it(judged):
    noisy = noisy_set(judged)
    labels = soft_labels(judged)
    assert list(labels.columns) == classes_of(judged) and list(labels.index) == list(noisy.clips.fnames)
    for fold in (1, 2):
        clips = noisy.valid(fold)
        model = load_model(judged.stage("first", "curated") / f"fold{fold}.safetensors", torch.device("cpu"))
        expected = 0.3 * clips.targets + 0.7 * predict_probabilities(model, clips.store, tta=2)
        np.testing.assert_allclose(labels.loc[clips.fnames], expected, atol=1e-5)


def test_soft_labels_are_trained_on_and_a_removed_row_is_not(judged, tmp_path, monkeypatch, expect_error):
    from tagging.training import stage
    labels = soft_labels(judged)
    edited = labels.drop(index=labels.index[3])[labels.columns[::-1]]
    edited.iloc[0] = 0.25
    edited.to_csv(tmp_path / "edited.csv")
    seen = {}

    def spy(folder, metadata, train, valid, device, *, initial, micro_batches, noisy):
        seen[metadata.fold] = noisy
        raise TaggingError("enough")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "train_fold", spy)
        for fold in (1, 2):
            result = judged.train("train_curated.py", "second", *JOINT, "--noisy-labels", tmp_path / "edited.csv",
                                  "--folds", fold)
            assert "and 89 of the noisy set" in result.out and "enough" in result.err
    noisy = noisy_set(judged)
    for fold, examples in seen.items():
        expected = noisy.train(fold)
        kept = expected.fnames != labels.index[3]
        assert list(examples.fnames) == list(expected.fnames[kept])
        np.testing.assert_array_equal(examples.store.checksums, expected.store.checksums[kept])
        np.testing.assert_allclose(examples.targets, edited.loc[examples.fnames, labels.columns], rtol=1e-6)

    # A run does not go on with other labels, and what is trained with soft ones is a run like any other.
    expect_error(judged.train("train_curated.py", "second", *JOINT), "exists with other settings", "noisy_labels")
    done = judged.train("train_curated.py", "second", *JOINT, "--noisy-labels", tmp_path / "edited.csv")
    assert done.code == 0 and judged.predict("second", "--out", tmp_path / "second.csv").code == 0
    again = judged.call("tools/relabel.py", *judged.options("second"), "--trust", 1, "--out", tmp_path / "trusting.csv")
    assert again.code == 0
    trusting = pd.read_csv(tmp_path / "trusting.csv", index_col="fname")
    np.testing.assert_array_equal(trusting.loc[noisy.clips.fnames], noisy.clips.targets)    # all trust is in them
    kept = judged.stage("second", "curated") / "noisy_labels.csv"
    assert kept.read_bytes() == (tmp_path / "edited.csv").read_bytes()


def test_what_is_told_of_a_second_round_says_that_its_scores_are_too_good(judged, tmp_path):
    told = judged.train("train_curated.py", "told", *JOINT, "--noisy-labels",
                        judged.folder / "models" / "first" / "noisy_labels.csv")
    report = (judged.folder / "models" / "told" / "report.html").read_text()
    published = judged.call("tools/publish.py", "--models", judged.folder / "models", "--run", "told", "--out",
                            tmp_path / "card", "--licence", "CC0", "--code", "here")
    assert published.code == 0, published.err
    for text in (told.out, report, (tmp_path / "card" / "README.md").read_text()):
        assert "the scores are too high" in text
    assert (tmp_path / "card" / "told" / "curated" / "noisy_labels.csv").exists()
    assert "the scores are too high" not in (judged.folder / "models" / "first" / "report.html").read_text()


@pytest.mark.parametrize("trust", [0, 0.15, 0.45, 0.7])
def test_sure_judges_of_right_labels_stay_within_1(judged, tmp_path, monkeypatch, trust):
    """A sum of 1.00000002, as float32 would give it, could not be trained on."""
    monkeypatch.setattr("tagging.evaluation.predict.predict_probabilities",
                        lambda model, store, **_: np.ones((len(store), 10), np.float32))
    result = judged.call("tools/relabel.py", *judged.options("first"), "--trust", trust, "--out", tmp_path / "sure.csv")
    assert result.code == 0
    assert read_soft_labels(tmp_path / "sure.csv", classes_of(judged)).max().max() == 1


@pytest.mark.parametrize("edit, words", [
    (lambda labels: labels.rename(index={labels.index[0]: "odd.wav"}), ("1 clips that are not among", "odd.wav")),
    (lambda labels: labels.drop(columns=labels.columns[0]), ("1 classes missing",)),
    (lambda labels: labels + 0.9, ("column", "is not between 0 and 1")),
    (lambda labels: labels.iloc[:1], ("has clips of fold 1 only",)),
])
def test_wrong_soft_labels_are_named(judged, tmp_path, expect_error, edit, words):
    edit(soft_labels(judged)).to_csv(tmp_path / "wrong.csv")
    expect_error(judged.train("train_curated.py", "wrong", *JOINT, "--noisy-labels", tmp_path / "wrong.csv"),
                 "wrong.csv", *words)
    assert not judged.stage("wrong", "curated").exists()


def test_soft_labels_need_both_sets_at_once(judged, expect_error):
    expect_error(judged.train("train_curated.py", "alone", *JOINT, "--noisy-share", 0, "--noisy-labels", "any.csv"),
                 "--noisy-labels needs a recipe that trains on both sets at once")


@pytest.mark.slow
def test_what_may_not_judge_says_so(judged, sample, tmp_path, expect_error):
    def relabel(shop: Workshop, run: str, *words: object):
        return shop.call("tools/relabel.py", *shop.options(run), *words)

    expect_error(relabel(judged, "first", "--trust", 1.5), "--trust must be from 0 to 1")
    expect_error(relabel(judged, "first"), "noisy_labels.csv exists and may have been edited")
    assert judged.train("train_curated.py", "clean", *JOINT, "--noisy-share", 0, "--folds", 1).code == 0
    expect_error(relabel(judged, "clean"), "not trained on both sets at once")
    assert judged.train("train_noisy.py", "tuned", *TINY).code == 0
    assert judged.train("train_curated.py", "tuned", "--noisy-share", 0.5).code == 0
    expect_error(relabel(judged, "tuned"), "started from the noisy stage of tuned, which may have other folds")
    assert judged.train("train_curated.py", "half", *JOINT, "--folds", 1).code == 0
    expect_error(relabel(judged, "half"), "has no finished fold 2")
    shutil.copytree(sample, tmp_path / "own")
    other = Workshop(judged.folder, tmp_path / "own")
    mislabel_a_noisy_clip(other)
    expect_error(relabel(other, "first", "--out", tmp_path / "other.csv"),
                 "may have been trained on the clips that it would predict")
