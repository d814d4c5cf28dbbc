"""Thresholds of each class from out-of-fold predictions, and the option --threshold."""
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tagging.errors import TaggingError
from tagging.evaluation.thresholds import add_thresholds, best_f1, precision_steps, threshold_steps
from tagging.run import StageFolder
from tagging_lite.tagger import ModelInfo, Tagger
from tagging_lite.thresholds import choose_thresholds

INFO = ModelInfo(("a", "b"), 8000, 8000, 0.5, 0.0)


def f1(truth, scores, threshold):
    given = scores >= threshold
    return 2 * (given & truth).sum() / (given.sum() + truth.sum())


def precision(truth, scores, threshold):
    given = scores >= threshold
    return truth[given].mean() if given.any() else 1.0


@pytest.mark.parametrize("seed", range(20))
def test_no_other_threshold_is_better(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(40) < 0.3
    truth[0] = True
    scores = (rng.random(40) * 0.5 + truth * rng.random(40) * 0.5).round(1 if seed % 2 else 6)      # with ties
    steps = threshold_steps(truth.astype(int), scores)
    candidates = np.concatenate([scores, scores + 1e-9, [0.0, 1.0]])
    assert f1(truth, scores, best_f1(*steps)) == pytest.approx(max(f1(truth, scores, each) for each in candidates))
    curve = precision_steps(*steps[:2])
    for wanted in np.linspace(0, 1, 21):
        possible = [each for each in candidates if (scores >= each).any() and precision(truth, scores, each) >= wanted]
        found = next((threshold for reached, threshold in curve if reached >= wanted), math.inf)
        assert bool(possible) == math.isfinite(found)
        if possible:
            given = scores >= found
            assert precision(truth, scores, found) >= wanted
            assert given.sum() == max((scores >= each).sum() for each in possible)      # no other finds more


def test_a_threshold_is_in_the_middle_between_two_scores():
    thresholds, precisions, recalls = threshold_steps(np.array([0, 1, 1]), np.array([0.2, 0.6, 0.9]))
    np.testing.assert_allclose(thresholds, [0.75, 0.4, 0.1])
    np.testing.assert_allclose(precisions, [1, 1, 2 / 3])
    np.testing.assert_allclose(recalls, [0.5, 1, 1])
    assert best_f1(thresholds, precisions, recalls) == pytest.approx(0.4)
    assert precision_steps(thresholds, precisions) == ((2 / 3, pytest.approx(0.1)), (1.0, pytest.approx(0.4)))


def test_a_class_without_labels_gets_no_tags():
    steps = threshold_steps(np.zeros(3, int), np.array([0.2, 0.6, 0.9]))
    assert best_f1(*steps) == math.inf and precision_steps(*steps[:2]) == ()


def test_one_number_is_the_threshold_of_all_classes():
    chosen, notes = choose_thresholds("0.25", INFO)
    assert chosen.tolist() == [0.25, 0.25] and not notes


def test_thresholds_by_class_and_the_remark_on_classes_without_tags():
    info = replace(INFO, thresholds=(0.3, math.inf), precisions=(((0.5, 0.1), (0.8, 0.6)), ((1.0, 0.9),)))
    chosen, notes = choose_thresholds("auto", info)
    assert chosen.tolist() == [0.3, math.inf]
    assert notes == ["note: These classes have no label in the out-of-fold clips and get no tags: b"]
    assert choose_thresholds("precision:0.8", info)[0].tolist() == [0.6, 0.9]
    chosen, notes = choose_thresholds("precision:0.9", info)
    assert chosen.tolist() == [math.inf, 0.9] and "do not reach a precision of 0.9 out of fold" in notes[0]
    tagger = Tagger(info, None)
    assert tagger.top_tags(np.array([0.99, 0.95]), 5, chosen) == [("b", 0.95)]


def test_the_threshold_comes_before_the_number_of_tags():
    tagger = Tagger(INFO, None)
    assert tagger.top_tags(np.array([0.9, 0.4]), 1, np.array([math.inf, 0.3])) == [("b", 0.4)]


@pytest.mark.parametrize("text", ["", "high", "-0.1", "1.5", "nan", "precision", "precision:", "precision:2", "auto:1"])
def test_other_thresholds_are_refused(text):
    with pytest.raises(TaggingError, match="must be a number from 0 to 1, auto, or precision:P"):
        choose_thresholds(text, INFO)


@pytest.mark.parametrize("text", ["auto", "precision:0.5"])
def test_a_model_without_thresholds_needs_another_export(text):
    with pytest.raises(TaggingError, match=r"The model has no thresholds for --threshold .* Export it again with"):
        choose_thresholds(text, INFO)


def test_thresholds_of_a_run(trained):
    folder = StageFolder(trained.folder / "models" / "first" / "curated")
    scores, truth = folder.out_of_fold(folder.finished_folds()), folder.truth()
    info = replace(INFO, classes=tuple(truth.columns))
    found = add_thresholds(info, folder)
    one = add_thresholds(info, folder, [2])
    assert len(found.thresholds) == len(found.precisions) == len(truth.columns) and one != found
    for name, threshold in zip(truth.columns, found.thresholds):
        labels, values = truth.loc[scores.index, name].to_numpy().astype(bool), scores[name].to_numpy()
        assert f1(labels, values, threshold) >= max(f1(labels, values, each) for each in values) - 1e-9


def test_a_run_that_does_not_fit_its_predictions_is_refused(trained, tmp_path):
    source = trained.folder / "models" / "first" / "curated"
    folder = StageFolder(tmp_path / "curated")
    shutil.copytree(source, folder.path)
    info = replace(INFO, classes=tuple(folder.truth().columns))
    with pytest.raises(TaggingError, match=r"predictions has .* classes"):
        add_thresholds(replace(info, classes=info.classes[1:]), folder)
    lines = (folder.path / "clips.csv").read_text().splitlines()
    (folder.path / "clips.csv").write_text("\n".join(lines[:-2]) + "\n")
    with pytest.raises(TaggingError, match=r"clips.csv has 2 clips missing"):
        add_thresholds(info, folder)
