"""tagging.evaluation.error_analysis on examples with results computed by hand."""
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from tagging.evaluation import error_analysis
from tagging.metric import lwlrap
from tagging.run import StageFolder

CLASSES = ["a", "b", "c"]
CLIPS = ["one", "two", "three"]
#                                 one: b is above its only label a; two: c is between its labels; three: correct
TRUTH = pd.DataFrame([[1, 0, 0], [1, 1, 0], [0, 0, 1]], CLIPS, CLASSES)
PREDICTIONS = pd.DataFrame([[0.3, 0.9, 0.1], [0.8, 0.2, 0.4], [0.1, 0.2, 0.7]], CLIPS, CLASSES)


def random_example(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((40, 6)) < 0.3).astype(int)
    truth[np.arange(40), rng.integers(0, 6, 40)] = 1        # each clip has a label
    names = [f"clip{number}" for number in range(40)], list("abcdef")
    return pd.DataFrame(truth, *names), pd.DataFrame(rng.random((40, 6)).round(1), *names)      # rounding makes ties


def test_the_score_of_each_class_with_its_weight_and_clips():
    table = error_analysis.score_by_class(TRUTH, PREDICTIONS)
    assert list(table.lwlrap) == [(1 / 2 + 1) / 2, 2 / 3, 1]
    assert list(table.weight) == [0.5, 0.25, 0.25] and list(table.clips) == [2, 1, 1]
    assert (table.lwlrap * table.weight).sum() == pytest.approx(
        lwlrap(truth=TRUTH.to_numpy(), scores=PREDICTIONS.to_numpy()))


def test_a_class_without_a_clip_has_no_score():
    table = error_analysis.score_by_class(TRUTH.assign(d=0), PREDICTIONS.assign(d=0.0))
    assert np.isnan(table.lwlrap["d"]) and table.weight["d"] == table.clips["d"] == 0


def test_confusions_count_the_labels_that_a_wrong_class_outranks():
    counts = error_analysis.confusions(TRUTH, PREDICTIONS)
    assert counts.to_numpy().tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    pairs = error_analysis.frequent_confusions(counts, TRUTH, 5)
    assert pairs.to_dict("records") == [
        {"class": "a", "outranked by": "b", "times": 1, "of labels": 2, "share": 0.5},
        {"class": "b", "outranked by": "c", "times": 1, "of labels": 1, "share": 1.0}]


def test_a_class_outranks_a_label_in_a_tie_and_two_labels_of_a_clip_never_do():
    truth = pd.DataFrame([[1, 1, 0]], columns=CLASSES)
    counts = error_analysis.confusions(truth, pd.DataFrame([[0.5, 0.9, 0.5]], columns=CLASSES))
    assert counts.to_numpy().tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_the_most_frequent_confusions_come_first():
    counts = pd.DataFrame([[0, 1, 3], [2, 0, 0], [0, 0, 0]], CLASSES, CLASSES)
    pairs = error_analysis.frequent_confusions(counts, TRUTH, 2)
    assert list(zip(pairs["class"], pairs["outranked by"], pairs.times)) == [("a", "c", 3), ("b", "a", 2)]


def test_calibration_by_bins():
    """The bins are 0.1, 0.1, 0.4 with no true label, and 0.6, 0.9, 1.0 with two true labels."""
    truth = pd.DataFrame([[0, 0, 0], [1, 0, 1]], columns=CLASSES)
    predictions = pd.DataFrame([[0.1, 0.1, 0.4], [0.6, 0.9, 1.0]], columns=CLASSES)
    table = error_analysis.calibration(truth, predictions, bins=2)
    assert table["count"].tolist() == [3, 3] and table.low.tolist() == [0, 0.5] and table.high.tolist() == [0.5, 1]
    assert table.predicted.tolist() == pytest.approx([0.2, 2.5 / 3])
    assert table.observed.tolist() == pytest.approx([0, 2 / 3])
    assert error_analysis.calibration_error(table) == pytest.approx(0.5 * 0.2 + 0.5 * 0.5 / 3)


def test_empty_bins_are_left_out_and_perfect_probabilities_have_no_error():
    truth = pd.DataFrame([[1, 0], [0, 1]])
    table = error_analysis.calibration(truth, truth.astype(float))
    assert table.low.tolist() == [0, 0.9] and table.observed.tolist() == [0, 1]
    assert error_analysis.calibration_error(table) == 0


def test_the_precision_of_each_clip():
    precision = error_analysis.clip_precision(TRUTH, PREDICTIONS)
    assert precision.to_dict() == {"one": 1 / 2, "two": pytest.approx((1 + 2 / 3) / 2), "three": 1}


@pytest.mark.parametrize("seed", range(3))
def test_the_precisions_weighted_by_labels_add_up_to_the_lwlrap(seed):
    truth, predictions = random_example(seed)
    precision = error_analysis.clip_precision(truth, predictions)
    assert np.average(precision, weights=truth.sum(axis=1)) == pytest.approx(
        lwlrap(truth=truth.to_numpy(), scores=predictions.to_numpy()))
    assert precision.mean() == pytest.approx(
        label_ranking_average_precision_score(truth.to_numpy(), predictions.to_numpy()))


def test_the_clips_with_labels_and_predictions_the_worst_first(tmp_path):
    truth = pd.concat([TRUTH, pd.DataFrame([[0, 0, 0]], ["unlabelled"], CLASSES)]).rename(columns={"b": "b, loud"})
    predictions = pd.concat([PREDICTIONS, pd.DataFrame([[0.5, 0.5, 0.5]], ["unlabelled"], CLASSES)])
    table = error_analysis.clip_table(truth, predictions.set_axis(truth.columns, axis=1), tags=2)
    assert list(table.index) == ["one", "two", "three"]
    assert table.labels["two"] == 'a,"b, loud"' and table.predicted["one"] == "b, loud 0.90, a 0.30"

    error_analysis.write_clip_table(tmp_path / "clips.csv", table)
    read = pd.read_csv(tmp_path / "clips.csv", keep_default_na=False)
    assert list(read.columns) == ["fname", "labels", "precision", "predicted", "new_labels"]
    assert list(read.fname) == list(table.index) and list(read.new_labels) == ["", "", ""]
    assert read.precision[0] == 0.5 and read.labels[1] == 'a,"b, loud"'


def test_the_highest_classes_of_a_clip():
    assert error_analysis.top_tags(PREDICTIONS.loc["one"], 2) == [("b", 0.9), ("a", 0.3)]
    assert len(error_analysis.top_tags(PREDICTIONS.loc["one"])) == 3


def test_truth_and_predictions_of_a_run_are_aligned(trained):
    folder = StageFolder(trained.stage("first", "curated"))
    truth, predictions = error_analysis.out_of_fold(folder)
    assert truth.index.equals(predictions.index) and truth.columns.equals(predictions.columns)
    assert sorted(truth.index) == sorted(folder.clips().index)
    one_fold, _ = error_analysis.out_of_fold(folder, [1])
    assert set(one_fold.index) == set(folder.clips().index[folder.clips().fold == "1"])
