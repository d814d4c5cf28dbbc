"""What predict.py makes of trained folds and runs, through its real command line."""
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Workshop, classes_of, weighted_lrap

from tagging.data.tables import read_labels, read_scores
from tagging.evaluation.ensemble import blend, fit_weights, nested_blend


def test_prediction_writes_a_checked_submission_and_scores_the_blend(trained, tmp_path):
    out = tmp_path / "out" / "first.csv"
    result = trained.predict("first", "--out", out)
    assert result.code == 0, result.err
    submission, sample = read_scores(out), pd.read_csv(trained.data / "sample_submission.csv")
    assert list(submission.index) == list(sample.fname) and list(submission.columns) == list(sample.columns[1:])
    assert submission.to_numpy().min() >= 0 and submission.to_numpy().max() <= 1
    together = json.loads((trained.stage("first", "curated") / "scores.json").read_text())["out_of_fold"]
    assert f"out-of-fold lwlrap of the blend {together:.5f}" in result.out


def test_the_submission_is_the_mean_of_all_folds_of_all_runs(trained, tmp_path):
    parts = []
    for fold in (1, 2):
        trained.predict("first", "--folds", fold, "--out", tmp_path / f"{fold}.csv")
        parts.append(read_scores(tmp_path / f"{fold}.csv"))
    trained.predict("first", "--out", tmp_path / "both.csv")
    trained.predict("first", "--mean", "geometric", "--out", tmp_path / "geometric.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "both.csv"), (parts[0] + parts[1]) / 2, atol=1e-7)
    np.testing.assert_allclose(read_scores(tmp_path / "geometric.csv"), np.sqrt(parts[0] * parts[1]), atol=1e-7)


def let_balance(shop, run):
    """Change the settings of a run as if its recipe balanced the classes."""
    settings = shop.stage(run, "curated") / "settings.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps(content | {"recipe": content["recipe"] | {"balance": True}}))


@pytest.fixture(scope="module")
def two_runs(trained, tmp_path_factory) -> Workshop:
    """Beside run `first`, `second`, which has no stage 1."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(trained.folder / "models", folder / "models")
    shop = Workshop(folder, trained.data)
    assert shop.train("train_curated.py", "second", "--from-scratch", *TINY, "--seed", "1").code == 0
    return shop


def out_of_fold(shop, run, truth):
    folds = [read_scores(shop.stage(run, "curated") / f"fold{fold}.predictions.csv") for fold in (1, 2)]
    return pd.concat(folds).loc[truth.index]


def test_two_runs_are_blended_out_of_fold_too(two_runs, tmp_path):
    result = two_runs.predict("first", "--run", "first", "second", "--out", tmp_path / "two.csv")
    assert result.code == 0, result.err
    truth = read_labels(two_runs.data / "train_curated.csv", classes_of(two_runs))[0]
    known = (out_of_fold(two_runs, "first", truth) + out_of_fold(two_runs, "second", truth)) / 2
    assert f"blend {weighted_lrap(truth, known):.5f}" in result.out


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_runs_are_weighted_by_their_out_of_fold_predictions_if_asked(two_runs, tmp_path, mean):
    def predict(*runs, out):
        result = two_runs.predict("first", "--run", *runs, "--mean", mean, "--out", tmp_path / out, *fitted)
        assert result.code == 0, result.err
        return result.out, read_scores(tmp_path / out)

    fitted = ()
    single = [predict(run, out=f"{run}.csv")[1] for run in ("first", "second")]
    fitted = ("--weights", "fitted")
    printed, submission = predict("first", "second", out="fitted.csv")
    truth = read_labels(two_runs.data / "train_curated.csv", classes_of(two_runs))[0]
    frames = [out_of_fold(two_runs, run, truth) for run in ("first", "second")]
    weights = fit_weights(frames, truth, mean)
    told = [float(word.strip(",")) for word in printed.split("weights:")[1].split()[1:4:2]]
    assert told == pytest.approx(weights, abs=1e-3)
    np.testing.assert_allclose(submission, blend(single, mean, weights), atol=1e-6)
    clips = pd.read_csv(two_runs.stage("first", "curated") / "clips.csv", index_col="fname")
    nested = nested_blend(frames, truth, clips.fold.loc[truth.index], mean)
    assert f"blend {weighted_lrap(truth.loc[nested.index], nested):.5f}" in printed


def test_a_run_of_weight_0_is_left_out_of_everything(two_runs, tmp_path, monkeypatch):
    """Also of the question whether all runs balance their classes."""
    shutil.copytree(two_runs.folder / "models", tmp_path / "models")
    shop = Workshop(tmp_path, two_runs.data)
    let_balance(shop, "first")
    monkeypatch.setattr("tagging.evaluation.ensemble.fit_weights", lambda frames, *_: np.array([1.0, 0])[:len(frames)])
    for runs, out in ((("first",), "one.csv"), (("first", "second"), "two.csv")):
        result = shop.predict("first", "--run", *runs, "--weights", "fitted", "--out", tmp_path / out)
        assert result.code == 0, result.err
    assert "second/curated 0" in result.out and "second/curated/fold" not in result.out
    np.testing.assert_allclose(read_scores(tmp_path / "two.csv"), read_scores(tmp_path / "one.csv"), rtol=1e-5)
    assert read_scores(tmp_path / "two.csv").to_numpy().max() > 1       # balanced


def test_weights_are_refused_before_the_prediction_where_they_cannot_be_fitted(two_runs, tmp_path):
    result = two_runs.predict("first", "--run", "first", "second", "--weights", "fitted", "--folds", 1,
                              "--out", tmp_path / "alone.csv")
    assert result.code == 2 and "at least two folds" in result.err and not (tmp_path / "alone.csv").exists()


def test_augmented_views_change_the_prediction_reproducibly(trained, tmp_path):
    for name, views in (("plain", 0), ("tta", 2), ("again", 2)):
        trained.predict("first", "--tta", views, "--out", tmp_path / f"{name}.csv")
    plain, tta = read_scores(tmp_path / "plain.csv"), read_scores(tmp_path / "tta.csv")
    assert 0 < np.abs(plain - tta).to_numpy().max() < 0.5
    assert (tmp_path / "tta.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_balanced_classes_are_scored_as_they_are_written(trained, tmp_path):
    def predict(*words):
        result = trained.predict("first", *words, "--out", tmp_path / "a.csv")
        return result.out, read_scores(tmp_path / "a.csv")

    (plain, before), (balanced, after) = predict(), predict("--balance", "on")
    folds = [read_scores(trained.stage("first", "curated") / f"fold{fold}.predictions.csv") for fold in (1, 2)]
    known, truth = pd.concat(folds), read_labels(trained.data / "train_curated.csv", classes_of(trained))[0]
    means = pd.concat([before, known]).mean()
    np.testing.assert_allclose(after, before / means, rtol=1e-4)
    for printed, scores in ((plain, known), (balanced, known / means)):
        assert f"blend {weighted_lrap(truth.loc[scores.index], scores):.5f}" in printed


def test_a_recipe_says_whether_classes_are_balanced_and_all_runs_of_a_blend_must(trained, tmp_path):
    shutil.copytree(trained.folder / "models", tmp_path / "models")
    shutil.copytree(tmp_path / "models" / "first", tmp_path / "models" / "second")
    shop = Workshop(tmp_path, trained.data)
    let_balance(shop, "second")

    def predict(*words):
        result = shop.call("predict.py", *shop.options("first"), *words, "--out", tmp_path / "a.csv")
        assert result.code == 0, result.err
        return read_scores(tmp_path / "a.csv")

    plain, balanced = predict("--run", "first"), predict("--run", "first", "--balance", "on")
    assert np.abs(plain - balanced).to_numpy().max() > 0.1
    pd.testing.assert_frame_equal(predict("--run", "second"), balanced)
    pd.testing.assert_frame_equal(predict("--run", "second", "--balance", "off"), plain)
    pd.testing.assert_frame_equal(predict("--run", "first", "second"), plain)
