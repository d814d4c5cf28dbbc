"""tools.verify and tools.runs, on the runs of the real scripts."""
import json
import re
import shutil
import sys
from dataclasses import asdict

import pandas as pd
import pytest
import soundfile
from conftest import TINY, Workshop

from tagging.errors import TaggingError
from tagging.provenance import show_date
from tagging.recipe import RECIPES
from tagging.settings import differences
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
    assert out.splitlines()[0] == "data set sample, recipe smoke"
    lines = [line.split() for line in out.splitlines()[2:]]
    assert [line[:2] for line in lines] == [["later", "curated"], ["first", "noisy"], ["first", "curated"]]
    assert " 1 Jan 2020, 00:00 " in out
    scores = json.loads((copied.stage("first", "curated") / "scores.json").read_text())
    assert f"{scores['mean']:.4f}" in out and f"{scores['out_of_fold']:.4f}" in out and re.search(r"1/2", out)


def test_runs_are_grouped_by_data_set_and_recipe(copied, monkeypatch, capsys):
    def change(stage: str, date: str, command: str = "", recipe: dict | None = None) -> None:
        path = copied.stage("first", stage) / "settings.json"
        settings = json.loads(path.read_text())
        settings["made_by"] |= {"date": date} | ({"command": command} if command else {})
        path.write_text(json.dumps(settings | ({"recipe": recipe} if recipe else {})))

    shutil.copytree(copied.stage("first", "curated"), copied.stage("second", "curated"))
    change("noisy", "2099-02-01T00:00:00+00:00", command="python train_noisy.py --data=/x/other --run first")
    change("curated", "2099-01-01T00:00:00+00:00", recipe=asdict(RECIPES["podium"]))
    _, out = call(runs, monkeypatch, capsys, "--models", copied.folder / "models")
    groups = [group.splitlines() for group in out.strip().split("\n\n")]
    assert [(group[0], *group[2].split()[:2]) for group in groups] == [
        ("data set other, recipe smoke", "first", "noisy"), ("data set sample, recipe podium", "first", "curated"),
        ("data set sample, recipe smoke", "second", "curated")]


def test_the_version_of_a_data_set_is_named_if_there_are_several(copied, monkeypatch, capsys):
    shutil.copytree(copied.stage("first", "curated"), copied.stage("second", "curated"))
    path = copied.stage("second", "curated") / "settings.json"
    settings = json.loads(path.read_text())
    before = settings["made_by"]["files"]["train_curated.csv"][:7]
    settings["made_by"]["files"]["train_curated.csv"] = "0" * 64
    path.write_text(json.dumps(settings))
    _, out = call(runs, monkeypatch, capsys, "--models", copied.folder / "models")
    assert "data set sample (train_curated.csv 0000000), recipe smoke" in out
    assert f"data set sample (train_curated.csv {before}), recipe smoke" in out and "data set sample, recipe" in out


@pytest.mark.parametrize(("command", "name"), [
    ("python t.py --data data/x --run a", "x"), ("python t.py --data=/a/b/ --run a", "b"),
    ("python t.py --data 'my data' --data second", "second"), ("python t.py --data PATH", "unknown"),
    ("python t.py", "unknown")])
def test_the_name_of_a_data_set(command, name):
    assert runs.data_name(command) == name


def test_dates_are_as_people_write_them():
    assert show_date("2026-11-05T20:34:19+00:00") == "5 Nov 2026, 20:34" and show_date("") == "-"


def test_a_comparison_shows_what_differs_in_long_values():
    names = [f"a rather long name of a class {number}" for number in range(80)]
    old = {"classes": names, "seed": 1, "noisy_labels": "a" * 64,
           "made_by": {"command": f"python t.py --data {'x' * 90} --run one", "date": "2026-11-05T20:34:19+00:00"}}
    new = {"classes": [*names[1:], "Bark"], "seed": 2, "noisy_labels": None,
           "made_by": {"command": f"python t.py --data {'x' * 90} --run two", "date": "2026-11-06T08:00:00+00:00"}}
    assert differences(old, new, with_origin=True) == [
        f"classes: only left: {names[0]}; only right: Bark",
        "made_by.command: only left: --run one; only right: --run two",
        "made_by.date: 5 Nov 2026, 20:34 -> 6 Nov 2026, 08:00", "noisy_labels: aaaaaaaaaa… -> None", "seed: 1 -> 2"]
    assert differences({"a": names}, {"a": names[::-1]}) == ["a: the same in another order"]
    both = differences({"a": names}, {"a": [name[::-1] for name in names]})
    assert "and 75 more" in both[0] and len(both[0]) < 600


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
    assert "curated" in out.splitlines()[2] and f"not listed: {path} has no sample_rate" in out


def test_no_run_at_all_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["runs", "--models", str(tmp_path)])
    with pytest.raises(TaggingError, match="contains no run"):
        runs.main()
