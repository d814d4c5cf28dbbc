"""Blends against numbers worked by hand, and the checks of a submission."""
import numpy as np
import pandas as pd
import pytest

from tagging.data.tables import read_scores
from tagging.errors import TaggingError
from tagging.evaluation.ensemble import (
    blend,
    check_submission,
    class_means,
    fill_rows,
    fit_weights,
    nested_blend,
    write_submission,
)
from tagging.metric import lwlrap

CLIPS, CLASSES = ["b.wav", "a.wav"], ["Meow", "Bark"]       # neither is sorted: the given order is kept


def frame(values, clips=CLIPS, classes=CLASSES):
    return pd.DataFrame(values, pd.Index(clips, name="fname"), classes)


@pytest.mark.parametrize("mean, values, expected", [
    # b.wav, Meow: (0.1 + 0.2 + 0.6) / 3 = 0.3, and so on
    ("arithmetic", [[[.1, .5], [0, 1]], [[.2, .5], [0, 0]], [[.6, .5], [.3, 0]]], [[.3, .5], [.1, 1 / 3]]),
    # b.wav, Meow: the cube root of 0.1 * 0.2 * 0.4 = 0.008 is 0.2
    ("geometric", [[[.1, .5], [.9, 1]], [[.2, .5], [.9, 1]], [[.4, .5], [.9, .001]]], [[.2, .5], [.9, .1]]),
    ("arithmetic", [[[.1, .5], [0, 1]]], [[.1, .5], [0, 1]]),
    ("geometric", [[[.1, .5], [.2, 1]]], [[.1, .5], [.2, 1]]),
])
def test_means_worked_by_hand(mean, values, expected):
    result = blend([frame(value) for value in values], mean)
    pd.testing.assert_frame_equal(result, frame(expected), atol=1e-12)


def test_the_mean_is_arithmetic_unless_asked_otherwise():
    assert blend([frame([[0, .5], [1, 1]]), frame([[1, .5], [1, 1]])]).iloc[0].tolist() == [.5, .5]


def test_a_zero_of_one_model_does_not_overrule_the_others_in_a_geometric_mean():
    # Three models are certain of Meow, none gives Bark more than a ten-thousandth.
    sure, contrary = frame([[1, 1e-4], [1, 1]]), frame([[0, 1e-4], [1, 0]])
    result = blend([sure, contrary, sure, sure], "geometric")
    assert result.loc["b.wav", "Meow"] > result.loc["b.wav", "Bark"] > 0
    assert np.isfinite(result.to_numpy()).all()


def test_weights_worked_by_hand():
    # b.wav, Meow: (1 * 0.2 + 3 * 0.6) / 4 = 0.5
    frames = [frame([[.2, .4], [1, 0]]), frame([[.6, .8], [0, 1]])]
    pd.testing.assert_frame_equal(blend(frames, weights=[1, 3]), frame([[.5, .7], [.25, .75]]), atol=1e-12)
    pd.testing.assert_frame_equal(blend(frames, weights=[2, 2]), blend(frames), atol=1e-12)
    geometric = blend([frame([[.1, 1], [1, 1]]), frame([[.8, 1], [1, 1]])], "geometric", [1, 2])
    assert geometric.loc["b.wav", "Meow"] == pytest.approx(.4)      # the cube root of 0.1 * 0.8 * 0.8


def noisy_runs(noises, clips=200, seed=0):
    """Out-of-fold predictions of one label a clip, as bad as each noise says, and the labels."""
    rng = np.random.default_rng(seed)
    names, classes = [f"{number}.wav" for number in range(clips)], [f"class {number}" for number in range(6)]
    truth = frame(np.eye(6, dtype=int)[rng.integers(0, 6, clips)], names, classes)
    return [truth + noise * rng.standard_normal(truth.shape) for noise in noises], truth


def test_fitted_weights_leave_out_what_does_not_help_and_favour_what_does():
    (good, fair, useless), truth = noisy_runs([.8, 1, 9])
    weights = fit_weights([useless, fair, good], truth)
    assert weights.sum() == pytest.approx(1) and weights[0] == 0 and weights[2] > weights[1] > .2
    assert fit_weights([good], truth).tolist() == [1]
    assert fit_weights([good, good + 0], truth).tolist() == [.5, .5]        # what gains nothing changes nothing
    perfect = truth.astype(float)
    assert fit_weights([1 - perfect, perfect], truth).tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(20))
def test_fitted_weights_are_no_worse_than_equal_ones_and_than_each_run_where_they_were_fitted(seed):
    runs, truth = noisy_runs([1, 1.1, 1.2], 60, seed)
    scores = [lwlrap(truth=truth.to_numpy(), scores=blend(runs, "arithmetic", weights).to_numpy())
              for weights in (fit_weights(runs, truth), None, *np.eye(3))]
    assert scores[0] == max(scores)


def test_fitted_weights_gain_on_equal_ones_where_the_runs_differ():
    runs, truth = noisy_runs([.8, 2, 4])
    scores = [lwlrap(truth=truth.to_numpy(), scores=blend(runs, "arithmetic", weights).to_numpy())
              for weights in (fit_weights(runs, truth), None)]
    assert scores[0] > scores[1] + .02


def test_a_fold_is_weighted_without_a_look_at_its_own_labels():
    runs, truth = noisy_runs([1, 1.2, 1.4])
    folds = pd.Series(np.arange(200) % 4 + 1, truth.index)
    result = nested_blend(runs, truth, folds)
    assert set(result.index) == set(truth.index)
    for fold in range(1, 5):
        inside = folds.index[folds == fold]
        outside = folds.index[folds != fold]
        weights = fit_weights([run.loc[outside] for run in runs], truth.loc[outside])
        pd.testing.assert_frame_equal(result.loc[inside], blend([run.loc[inside] for run in runs], weights=weights))
        lies = truth.copy()
        lies.loc[inside] = 1 - lies.loc[inside]
        pd.testing.assert_frame_equal(nested_blend(runs, lies, folds).loc[inside], result.loc[inside])
    assert len({tuple(fit_weights([run[folds != fold] for run in runs], truth[folds != fold]))
                for fold in range(1, 5)}) > 1       # else this would hold for weights of all clips too


@pytest.mark.parametrize("clips", [0, 10])
def test_weights_cannot_be_fitted_to_clips_of_one_fold(clips):
    runs, truth = noisy_runs([1, 1], 10)
    with pytest.raises(TaggingError, match="at least two folds"):
        nested_blend([run[:clips] for run in runs], truth[:clips], pd.Series(1, truth.index[:clips]))


def test_class_means_worked_by_hand():
    # Meow has a mean of 0.5 over the clips, Bark of 0.2: the clip with more of Meow than of Bark ranks Bark first.
    scores = frame([[.4, .3], [.6, .1]])
    pd.testing.assert_frame_equal(scores / class_means(scores), frame([[.8, 1.5], [1.2, .5]]), atol=1e-12)
    assert class_means(scores, frame([[0.8, .2], [0.2, .2]]).iloc[:1, ::-1]).tolist() == pytest.approx([.6, .2])
    assert class_means(frame([[0, .3], [0, .1]])).tolist() == pytest.approx([1, .2])       # nothing to divide by


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_predictions_are_joined_by_name(mean):
    rng = np.random.default_rng(0)
    clips, classes = [f"{number}.wav" for number in range(20)], [f"class {number}" for number in range(7)]
    frames = [frame(rng.random((20, 7)), clips, classes) for _ in range(3)]
    shuffled = [f.iloc[rng.permutation(20), rng.permutation(7)] for f in frames[1:]]
    pd.testing.assert_frame_equal(blend([frames[0], *shuffled], mean), blend(frames, mean))


def test_a_blend_of_float32_is_computed_in_double_precision():
    values = np.random.default_rng(0).random((2, 2)).astype(np.float32)
    result = blend([frame(values)] * 7, "arithmetic")
    assert np.array_equal(result.to_numpy().astype(np.float32), values)
    assert (result.dtypes == np.float64).all()


@pytest.mark.parametrize("other, words", [
    (frame([[1, 1]], ["b.wav"]), ["1 clips missing (a.wav)"]),
    (frame([[1, 1]] * 3, [*CLIPS, "c.wav"]), ["1 clips too many (c.wav)"]),
    (frame([[1, 1]] * 2, ["b.wav", "c.wav"]), ["missing (a.wav)", "too many (c.wav)"]),
    (frame([[1, 1]] * 2, classes=["Meow", "Growl"]), ["1 classes missing (Bark)", "1 classes too many (Growl)"]),
    (frame([[1]] * 2, classes=["Meow"]), ["1 classes missing (Bark)"]),
])
def test_predictions_of_other_clips_or_classes_are_not_blended(other, words):
    good = frame([[1, 1]] * 2)
    with pytest.raises(TaggingError) as caught:
        blend([good, good, other])
    for word in ["prediction 3", *words]:
        assert word in str(caught.value)


def test_left_out_clips_get_the_mean_of_the_others_and_are_named(caplog):
    filled = fill_rows(frame([[.2, 1], [.4, 0]]), ["x.wav", "a.wav", "y.wav", "b.wav"])
    assert list(filled.index) == ["x.wav", "a.wav", "y.wav", "b.wav"]
    assert filled.to_numpy() == pytest.approx(np.array([[.3, .5], [.4, 0], [.3, .5], [.2, 1]]))
    output = caplog.text
    assert "2 test clips" in output and "x.wav, y.wav" in output and "a.wav" not in output


def test_with_no_clip_left_out_nothing_changes_but_the_order(capsys):
    scores = frame([[.2, 1], [.4, 0]])
    filled = fill_rows(scores, ["a.wav", "b.wav"])
    # The type too: a column of objects would be written with other digits than one of numbers.
    pd.testing.assert_frame_equal(filled, scores.loc[["a.wav", "b.wav"]], check_names=False)
    assert capsys.readouterr().out == ""


def test_a_submission_is_written_in_the_order_asked_for(tmp_path):
    path = tmp_path / "submissions" / "one.csv"
    scores = frame(np.array([[1 / 3, .5], [1e-8, 1]], np.float32))
    write_submission(path, scores, ["a.wav", "b.wav"], ["Bark", "Meow"])
    assert path.read_text() == "fname,Bark,Meow\na.wav,1,9.99999994e-09\nb.wav,0.5,0.333333343\n"
    pd.testing.assert_frame_equal(read_scores(path).astype(np.float32), scores.loc[["a.wav", "b.wav"],
                                                                                   ["Bark", "Meow"]])


@pytest.mark.parametrize("clips", [["a.wav"], ["a.wav", "b.wav", "c.wav"]])
def test_a_prediction_of_other_clips_is_not_written(tmp_path, clips):
    with pytest.raises(TaggingError, match=r"1 rows (missing \(c|too many \(b).wav\)"):
        write_submission(tmp_path / "one.csv", frame([[0, 1], [1, 0]]), clips, CLASSES)
    assert not list(tmp_path.iterdir())


GOOD = "fname,Meow,Bark\nb.wav,0.1,0.2\na.wav,0.3,0.4\n"


def test_rows_of_a_submission_may_come_in_any_order(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text(GOOD)
    scores = check_submission(path, sorted(CLIPS), CLASSES)
    assert scores.loc["a.wav"].to_dict() == {"Meow": .3, "Bark": .4}


@pytest.mark.parametrize("old, new, words", [
    ("a.wav,0.3,0.4\n", "", ["1 rows missing (a.wav)"]),
    ("a.wav", "c.wav,0,0\na.wav", ["1 rows too many (c.wav)"]),
    ("a.wav", "c.wav", ["1 rows missing (a.wav)", "1 rows too many (c.wav)"]),
    ("a.wav", "b.wav", ["line 3", "'b.wav'", "line 2"]),
    ("Meow,Bark", "Bark,Meow", ["another order", "column 2 is Bark and should be Meow"]),
    ("Meow,Bark", "Meow,Growl", ["1 classes missing (Bark)", "1 classes too many (Growl)"]),
    ("Meow,Bark\nb.wav,0.1,0.2\na.wav,0.3,0.4", "Meow\nb.wav,0\na.wav,0", ["1 classes missing (Bark)"]),
    ("0.4", "nan", ["line 3", "a.wav", "Bark", "'nan'"]),
    ("0.4", "", ["line 3", "a.wav", "Bark"]),
    ("0.1", "loud", ["line 2", "b.wav", "Meow", "'loud'"]),
    (GOOD, "", ["no column fname"]),
])
def test_a_faulty_submission_is_refused(tmp_path, old, new, words):
    path = tmp_path / "one.csv"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(TaggingError) as caught:
        check_submission(path, CLIPS, CLASSES)
    for word in [str(path), *words]:
        assert word in str(caught.value)
