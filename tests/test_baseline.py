"""tools.baseline and tools.learning_curve: ordinary runs, which the scripts and tools take like those of networks."""
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Workshop

from tagging.data.folds import ClipDataset
from tagging.data.waveforms import WaveStore
from tagging.evaluation.learning_curve import draw_part, explain_curve, read_curve, write_curve
from tagging.evaluation.truth import strongest_tag
from tagging.metric import lwlrap
from tagging.run import StageFolder

FOLDS = ("--fold-count", "2")
pytestmark = pytest.mark.slow         # most tests run the scripts


@pytest.fixture(scope="module")
def shop(tmp_path_factory, sample) -> Workshop:
    """Run `tab` of a decision tree and runs `two-tree` and `two-logistic`. Not to be changed."""
    shop = Workshop(tmp_path_factory.mktemp("baselines"), sample)
    for run, words in (("tab", ("tree",)), ("two", ("tree", "logistic"))):
        result = fit(shop, run, "--model", *words, *FOLDS)
        assert result.code == 0, result.err
    return shop


@pytest.fixture
def copied(shop, tmp_path) -> Workshop:
    """A copy, whose runs a test may change."""
    shutil.copytree(shop.folder, tmp_path / "shop")
    return Workshop(tmp_path / "shop", shop.data)


def options(shop: Workshop, run: str) -> list[str]:
    return [word for word in shop.options(run) if word not in ("--device", "cpu")]


def fit(shop: Workshop, run: str, *words: str):
    return shop.call("tools/baseline.py", *options(shop, run), *words)


def digest(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("fold*")}


def test_a_baseline_is_an_ordinary_run(shop):
    folder = StageFolder(shop.stage("tab", "curated"))
    assert folder.finished_folds() == [1, 2] and (folder.path.parent / "report.html").exists()
    truth, scores = folder.truth(), folder.out_of_fold([1, 2])
    assert set(scores.index) == set(truth.index)
    recorded = json.loads((folder.path / "scores.json").read_text())
    score = lwlrap(truth=truth.loc[scores.index].to_numpy(), scores=scores.to_numpy())
    assert recorded["out_of_fold"] == pytest.approx(score, abs=1e-6) and recorded["mean"] > 0.35
    settings = json.loads(folder.settings_path.read_text())
    assert settings["schema"] == 3                  # earlier versions ask for a newer one
    assert settings["baseline"]["model"] == "tree" and settings["noisy_clips"]
    assert json.loads(folder.record(1).read_text())["package"].startswith("scikit-learn ")


def test_the_folds_are_those_of_a_network(shop):
    """So a blend with a network is out-of-fold for both."""
    from tagging.data.competition import open_competition
    from tagging.data.folds import fold_clips
    from tagging.recipe import RECIPES
    recipe = StageFolder(shop.stage("tab", "curated")).recipe()
    network = RECIPES["capstone"]
    assert (recipe.fold_seed, recipe.stratified, recipe.source_column, recipe.trim_db) == (
        network.fold_seed, network.stratified, network.source_column, network.trim_db)
    clips, folds = fold_clips("curated", open_competition(shop.data), recipe)
    recorded = StageFolder(shop.stage("tab", "curated")).clips().fold.astype(int)
    assert recorded.to_dict() == dict(zip(clips.fnames, folds))


def test_several_models_are_compared(shop):
    home = shop.folder / "models" / "two"
    table = pd.read_csv(home / "baselines.csv")
    assert list(table.columns) == ["model", "settings", "out_of_fold", "test", "accuracy", "kappa", "fit_seconds",
                                   "predict_seconds", "megabytes"]
    assert list(table.model) == ["tree", "logistic"] and json.loads(table.settings[1])["C"] == 0.01
    for model, row in zip(table.model, table.itertuples()):
        scores = json.loads((shop.stage(f"two-{model}", "curated") / "scores.json").read_text())
        assert row.out_of_fold == pytest.approx(scores["out_of_fold"], abs=1e-6)
        assert 0 < row.test <= 1 and 0 < row.accuracy <= 1 and -1 <= row.kappa <= 1 and row.megabytes > 0
    lines = (home / "baselines.md").read_text().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| tree | {") and all(line.count("|") == 10 for line in lines)


def test_the_test_score_is_that_of_the_submission(shop, tmp_path):
    out = tmp_path / "x.csv"
    assert shop.predict("two-logistic", "--balance", "off", "--out", out).code == 0
    result = shop.call("lwlrap.py", out, "--truth", shop.data / "test_post_competition.csv")
    score = float(result.out.split("lwlrap ")[1])
    table = pd.read_csv(shop.folder / "models" / "two" / "baselines.csv", index_col="model")
    assert table.test["logistic"] == pytest.approx(score, abs=2e-5)


def test_a_blend_and_its_views(shop, tmp_path):
    result = shop.call("predict.py", *shop.options("tab"), "two-logistic", "--weights", "fitted", "--tta", "2", "--out",
                       tmp_path / "x.csv")
    # --run takes several names, so the second one belongs to it only if it follows the first.
    assert result.code == 2
    words = shop.options("tab")
    words.insert(words.index("tab") + 1, "two-logistic")
    result = shop.call("predict.py", *words, "--weights", "fitted", "--tta", "2", "--out", tmp_path / "x.csv")
    assert result.code == 0, result.err
    assert "a baseline has the plain view only" in result.out and "out-of-fold lwlrap of the blend" in result.out
    assert len(pd.read_csv(tmp_path / "x.csv")) == 30


def test_verify_recomputes_the_scores(copied):
    words = options(copied, "tab")
    assert copied.call("tools/verify.py", *words, "--device", "cpu").code == 0
    path = copied.stage("tab", "curated") / "fold1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lwlrap": 0.1}))
    result = copied.call("tools/verify.py", *words, "--device", "cpu")
    assert result.code == 1 and "fold 1  DIFFERS" in result.out and "fold 2  same" in result.out


def test_the_same_command_keeps_finished_folds_and_fits_the_others_alike(copied, expect_error):
    folder = copied.stage("tab", "curated")
    before = digest(folder)
    (folder / "fold2.json").unlink()
    assert fit(copied, "tab", "--model", "tree", *FOLDS).code == 0
    after = digest(folder)
    same = {name for name in before if before[name] == after[name]}
    assert {"fold1.safetensors", "fold1.json", "fold1.predictions.csv", "fold2.predictions.csv"} <= same
    expect_error(fit(copied, "tab", "--model", "logistic", *FOLDS), "exists with other settings",
                 "baseline.model: tree -> logistic", "Choose another --run")
    expect_error(fit(copied, "tab", "--model", "tree", "--sets", "curated", *FOLDS), "recipe.noisy_share: 0.5 -> 0.0")


def test_the_list_of_runs_and_the_tags(shop):
    result = shop.call("tools/runs.py", "--models", shop.folder / "models")
    assert "recipe baseline" in result.out and "baseline:logistic" in result.out and not result.err
    result = shop.call("tools/tag.py", "--run", "two-logistic", "--models", shop.folder / "models", "--device", "cpu",
                       "--format", "json", next((shop.data / "test").iterdir()))
    assert result.code == 0, result.err
    tags = json.loads(result.out)
    assert len(next(iter(tags.values() if isinstance(tags, dict) else tags))["tags"]) == 5


def test_a_short_clip_is_tagged_as_predict_does(shop):
    from tagging.baselines.runs import load_fold, load_tagger
    from tagging.data.competition import open_competition
    from tagging.data.waveforms import open_store
    from tagging.modeling.model import CPU
    from tagging_lite.audio import make_trim
    folder, competition = StageFolder(shop.stage("two-logistic", "curated")), open_competition(shop.data)
    clips, store = open_store(competition.clips("test"), make_trim(folder.recipe().trim_db), shop.folder / "cache")
    models = [load_fold(folder, fold, competition.classes, CPU) for fold in (1, 2)]
    expected = sum(model.predict(ClipDataset(clips.fnames, store, clips.targets)) for model in models) / 2
    tagger = load_tagger(folder, (), CPU)
    for place in (0, 1):
        wave = store.samples[store.offsets[place]:][:store.lengths[place]]
        np.testing.assert_allclose(tagger.tag(np.array(wave)), expected.iloc[place], atol=1e-4)


@pytest.mark.parametrize("tool, words", [
    ("tools/export.py", ("--run", "tab")), ("tools/publish.py", ("--run", "tab", "--out", "published")),
    ("tools/kaggle_kernel.py", ("--run", "tab", "--user", "me", "--out", "kernel"))])
def test_tools_that_need_a_network_refuse_a_baseline(shop, tool, words, expect_error, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    expect_error(shop.call(tool, *words, "--models", shop.folder / "models"),
                 "is a baseline, tree, and a network is needed", "Choose another --run")


def test_training_refuses_the_folder_of_a_baseline(shop, expect_error):
    expect_error(shop.train("train_curated.py", "tab", "--from-scratch"), "is a baseline, tree", "Choose another --run")


@pytest.mark.parametrize("words, said", [
    (("--model", "lightgmb"), ("--model 'lightgmb' is unknown", "Did you mean 'lightgbm'?")),
    (("--folds", "9"), ("--folds 9 is not among 1 to 5",)), (("--fold-count", "1"), ("cannot be split into 1 folds",)),
    (("--trim-db", "-1"), ("--trim-db must be 0 or more",)),
    (("--truth", "no.csv", "--model", "tree"), ("no.csv",))])
def test_wrong_options_are_refused(copied, words, said, expect_error):
    expect_error(fit(copied, "new", *words), *said)


def test_without_noisy_clips_the_curated_set_is_used(workshop, expect_error):
    shutil.copytree(workshop.data, workshop.folder / "own", ignore=shutil.ignore_patterns("*noisy*"))
    own = Workshop(workshop.folder, workshop.folder / "own")
    expect_error(fit(own, "tab", "--sets", "both", "--model", "tree"), "has none. Choose --sets curated")
    (own.data / "test_post_competition.csv").unlink()
    result = fit(own, "tab", "--model", "tree", *FOLDS)
    assert result.code == 0 and "models of the curated set" in result.out and "out-of-fold clips" in result.out
    assert pd.read_csv(own.folder / "models" / "tab" / "baselines.csv").test.isna().all()


# Learning curves.

def test_the_learning_curve_of_a_baseline_is_in_its_report(copied):
    words = [*options(copied, "tab"), "--device", "cpu", "--shares", "0.5"]
    result = copied.call("tools/learning_curve.py", *words)
    assert result.code == 0, result.err
    table = read_curve(copied.stage("tab", "curated") / "learning_curve.csv")
    assert len(table) == 2 and table.notna().all(axis=None)
    assert table.clips[0] == pytest.approx(table.clips[1] / 2, abs=1)
    recorded = json.loads((copied.stage("tab", "curated") / "fold1.json").read_text())["lwlrap"]
    assert table.out_of_fold[1] == pytest.approx(recorded, abs=1e-5)
    page = (copied.folder / "models" / "tab" / "report.html").read_text()
    assert "Bias and variance" in page and explain_curve(table) in page.replace("&#39;", "'")
    part = copied.stage("tab", "curated") / "parts" / "0.5" / "fold1.safetensors"
    written = part.stat().st_mtime_ns
    assert copied.call("tools/learning_curve.py", *words).code == 0 and part.stat().st_mtime_ns == written


def test_the_learning_curve_refuses_wrong_options(shop, expect_error):
    for words, said in ((("--shares", "2"), "--shares must be above 0"), (("--fold", "3"), "no finished fold 3")):
        expect_error(shop.call("tools/learning_curve.py", *options(shop, "tab"), "--device", "cpu", *words), said)


def test_a_smaller_part_is_contained_in_a_larger_one():
    store = WaveStore(np.zeros(40, np.int16), 8000, np.ones(40, int), np.arange(40), np.zeros(40), {}, {})
    clips = ClipDataset(pd.Index(map(str, range(40))), store, np.zeros((40, 2)))
    parts = [draw_part(clips, share, 0) for share in (0.001, 0.25, 0.5, 1)]
    assert [len(part) for part in parts] == [1, 10, 20, 40]
    for smaller, larger in pairwise(parts):
        assert set(smaller.fnames) < set(larger.fnames)
    assert parts[1].store.offsets.astype(str).tolist() == list(parts[1].fnames)


@pytest.mark.parametrize("rows, words", [
    ([(10, 1.0, 0.5), (20, 1.0, 0.7)], ("variance", "more clips would probably help")),
    ([(10, 0.6, 0.59), (20, 0.6, 0.595)], ("bias", "probably help little")),
    ([(10, 1.0, 0.98), (20, 1.0, 0.985)], ("little bias and little variance", "help little")),
    ([(20, 1.0, 0.7)], ("More points are needed",))])
def test_a_curve_is_explained_in_two_sentences(tmp_path, rows, words):
    table = pd.DataFrame(rows, columns=["clips", "training", "out_of_fold"]).assign(test=np.nan)
    write_curve(tmp_path / "curve.csv", table)
    text = explain_curve(read_curve(tmp_path / "curve.csv"))
    assert all(word in text for word in words) and text.count(". ") == 1 and text.endswith(".")


def test_accuracy_and_kappa_of_the_strongest_tag():
    from sklearn.metrics import cohen_kappa_score
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    truth = np.eye(3, dtype=int)[labels]
    scores = truth + rng.normal(0, 0.6, (50, 3))
    accuracy, kappa = strongest_tag(truth=truth, scores=scores)
    assert accuracy == pytest.approx((scores.argmax(1) == labels).mean())
    assert kappa == pytest.approx(cohen_kappa_score(labels, scores.argmax(1)))
    both = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    accuracy, kappa = strongest_tag(truth=both, scores=np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0]]))
    assert accuracy == 0.5 and kappa == 0           # the clip without a label does not count
    assert np.isnan(strongest_tag(truth=np.zeros((2, 3)), scores=np.ones((2, 3)))).all()


def test_a_network_and_a_baseline_are_blended_and_have_learning_curves(trained, tmp_path):
    shop = Workshop(tmp_path, trained.data)
    shutil.copytree(trained.folder / "models", tmp_path / "models")
    assert fit(shop, "tab", "--model", "logistic", *FOLDS).code == 0
    assert "is the run of a network. Choose another --run" in fit(shop, "first", "--model", "logistic", *FOLDS).err
    words = shop.options("first")
    words.insert(words.index("first") + 1, "tab")
    result = shop.call("predict.py", *words, "--out", tmp_path / "x.csv")
    assert result.code == 0 and "(45 clips" in result.out, result.err
    result = shop.call("tools/learning_curve.py", *shop.options("first"), "--shares", "0.5")
    assert result.code == 0, result.err
    table = read_curve(shop.stage("first", "curated") / "learning_curve.csv")
    assert len(table) == 2 and ((table[["training", "out_of_fold", "test"]] > 0.1).all(axis=None))
    assert "Bias and variance" in (shop.folder / "models" / "first" / "report.html").read_text()
