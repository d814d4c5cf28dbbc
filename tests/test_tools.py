"""tools.verify and tools.runs, on the runs of the real scripts."""
import json
import re
import shutil
import sys

import pandas as pd
import pytest
import soundfile
from conftest import TINY, Workshop

from tagging.errors import TaggingError
from tools import runs, verify


@pytest.fixture
def copied(trained, tmp_path) -> Workshop:
    """A trained run and its data, to change."""
    shutil.copytree(trained.folder / "models", tmp_path / "models")
    shutil.copytree(trained.data, tmp_path / "sample")
    return Workshop(tmp_path, tmp_path / "sample")


def call(tool, monkeypatch, capsys, *words) -> tuple[int, str]:
    """Run a tool's main as the command line does; its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", [tool.__name__, *map(str, words)])
    code = 0
    try:
        tool.main()
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out


@pytest.mark.parametrize("stage", ["noisy", "curated"])
def test_a_run_that_is_as_recorded(trained, monkeypatch, capsys, stage):
    code, out = call(verify, monkeypatch, capsys, *trained.options("first"), "--stage", stage)
    assert code == 0 and out.count("same") == 2 and "2 of 2 folds" in out


def test_weights_that_are_not_those_of_the_predictions(copied, monkeypatch, capsys):
    folder = copied.stage("first", "curated")
    shutil.copy(folder / "fold1.safetensors", folder / "fold2.safetensors")
    code, out = call(verify, monkeypatch, capsys, *copied.options("first"))
    assert code == 1 and "fold 1  same" in out and "fold 2  DIFFERS" in out and "1 of 2 folds" in out


def test_a_score_that_was_embellished(copied, monkeypatch, capsys):
    path = copied.stage("first", "curated") / "fold2.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"lwlrap": record["lwlrap"] + 0.01, "versions": {"torch": "1.4.0"}}))
    code, out = call(verify, monkeypatch, capsys, *copied.options("first"))
    assert code == 1 and "fold 2  DIFFERS" in out and "torch was 1.4.0" in out


def test_changed_clips_and_labels_are_named(copied, monkeypatch, capsys):
    table = pd.read_csv(copied.data / "train_curated.csv")
    sound, silent_end, relabelled = table.fname[:3]
    path = copied.data / "train_curated" / sound
    wave, rate = soundfile.read(path)
    soundfile.write(path, wave[::-1], rate)
    table.loc[2, "labels"] = "Bell" if table.labels[2] != "Bell" else "Surf"
    table.to_csv(copied.data / "train_curated.csv", index=False)
    _, out = call(verify, monkeypatch, capsys, *copied.options("first"))
    assert f"1 clips have other samples: {sound}" in out and silent_end not in out
    assert f"1 clips have other labels: {relabelled}" in out
    assert out.count("1 of 2 folds") == 1


def test_other_labels_are_a_difference_although_weights_and_scores_are_the_same(copied, monkeypatch, capsys):
    table = pd.read_csv(copied.data / "train_curated.csv")
    table.assign(labels=table.labels.to_numpy()[::-1]).to_csv(copied.data / "train_curated.csv", index=False)
    code, out = call(verify, monkeypatch, capsys, *copied.options("first"))
    assert code == 1 and "clips have other labels" in out.splitlines()[0] and "0 of 2 folds" in out


@pytest.mark.parametrize("form", ["./{}", "../train_curated/{}"])
def test_other_spellings_of_the_names_change_nothing(copied, monkeypatch, capsys, form):
    table = pd.read_csv(copied.data / "train_curated.csv")
    table.assign(fname=[form.format(name) if number % 2 else name for number, name in enumerate(table.fname)]).to_csv(
        copied.data / "train_curated.csv", index=False)
    code, out = call(verify, monkeypatch, capsys, *copied.options("first"))
    assert code == 0 and out.count("same") == 2 and "are new" not in out


def test_data_without_a_clip_of_a_fold_and_other_classes_are_refused(copied, monkeypatch, capsys):
    folds = pd.read_csv(copied.stage("first", "curated") / "clips.csv", index_col="fname").fold
    table = pd.read_csv(copied.data / "train_curated.csv")
    table[table.fname.map(folds) != 2].to_csv(copied.data / "train_curated.csv", index=False)
    with pytest.raises(TaggingError, match=r"has no curated clip of fold 2 of .*Use the data of the run"):
        call(verify, monkeypatch, capsys, *copied.options("first"))
    sample = pd.read_csv(copied.data / "sample_submission.csv")
    sample.rename(columns={sample.columns[1]: "Other"}).to_csv(copied.data / "sample_submission.csv", index=False)
    with pytest.raises(TaggingError, match=r"1 classes missing .*1 classes too many"):
        call(verify, monkeypatch, capsys, *copied.options("first"))


def test_all_runs_are_listed_newest_first(copied, monkeypatch, capsys):
    assert copied.train("train_curated.py", "later", *TINY, "--from-scratch", "--folds", 1).code == 0
    path = copied.stage("first", "curated") / "settings.json"
    settings = json.loads(path.read_text())
    settings["made_by"]["date"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(settings))
    _, out = call(runs, monkeypatch, capsys, "--models", copied.folder / "models")
    lines = [line.split() for line in out.splitlines()[1:]]
    assert [line[:2] for line in lines] == [["later", "curated"], ["first", "noisy"], ["first", "curated"]]
    scores = json.loads((copied.stage("first", "curated") / "scores.json").read_text())
    assert f"{scores['mean']:.4f}" in out and f"{scores['out_of_fold']:.4f}" in out and re.search(r"1/2", out)


def test_two_runs_are_compared(copied, monkeypatch, capsys):
    copied.train("train_curated.py", "later", *TINY, "--from-scratch", "--folds", 1, "--batch-size", 8)
    _, out = call(runs, monkeypatch, capsys, "--models", copied.folder / "models", "--compare", "first", "later")
    assert "recipe.batch_size: 16 -> 8" in out and "initial_weights: first -> scratch" in out
    assert "noisy exists" in out and "recipe.network" not in out


def test_a_run_of_another_version_does_not_hide_the_others(copied, monkeypatch, capsys):
    path = copied.stage("first", "noisy") / "settings.json"
    settings = json.loads(path.read_text())
    del settings["sample_rate"]
    path.write_text(json.dumps(settings))
    _, out = call(runs, monkeypatch, capsys, "--models", copied.folder / "models")
    assert "curated" in out.splitlines()[1] and f"not listed: {path} has no sample_rate" in out


def test_no_run_at_all_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["runs", "--models", str(tmp_path)])
    with pytest.raises(TaggingError, match="contains no run"):
        runs.main()
