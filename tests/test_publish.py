"""tools.publish: what it gathers can be used, says what the run says, and does not tell of the machine."""
import hashlib
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, Result, Workshop

from tagging.data.tables import read_scores
from tagging.utils.files import new_folder
from tools.publish import table_cell, without_paths


def publish(shop: Workshop, out: Path, *words: str) -> Result:
    return shop.call("tools/publish.py", "--run", "first", "--models", shop.folder / "models", "--out", out, *words)


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory) -> Path:
    """Run `first`, published. Not to be changed."""
    out = tmp_path_factory.mktemp("published") / "out"
    result = publish(trained, out, "--licence", "mit", "--data-name", "a | b")
    assert result.code == 0, result.err
    assert "names and\nlabels of the training clips may be public" in result.out
    return out


@pytest.fixture
def copied(trained, tmp_path) -> Workshop:
    """A trained run to change."""
    shutil.copytree(trained.folder / "models" / "first" / "curated", tmp_path / "models" / "first" / "curated")
    return Workshop(tmp_path, trained.data)


def test_predict_gives_the_same_with_what_was_published(published, trained, tmp_path):
    for name, models in (("ours", trained.folder / "models"), ("theirs", published)):
        result = trained.call("predict.py", "--run", "first", "--models", models, "--data", trained.data, "--cache",
                              tmp_path / "cache", "--device", "cpu", "--out", tmp_path / f"{name}.csv")
        assert result.code == 0, result.err
    pd.testing.assert_frame_equal(read_scores(tmp_path / "ours.csv"), read_scores(tmp_path / "theirs.csv"))


def test_the_run_is_whole_and_nothing_else_is_there(published, trained):
    ends = ".safetensors", ".json", ".log.csv", ".predictions.csv"
    names = {"settings.json", "clips.csv", "scores.json", *(f"fold{fold}{end}" for fold in (1, 2) for end in ends)}
    assert {str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()} == {
        "README.md", "SHA256SUMS", *(f"first/curated/{name}" for name in names)}
    for name in names - {"settings.json", "fold1.json", "fold2.json"}:
        assert (published / "first/curated" / name).read_bytes() == (
            trained.stage("first", "curated") / name).read_bytes()


def test_the_checksums_are_those_of_all_files(published):
    lines = [line.split("  ") for line in (published / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {
        str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    for checksum, name in lines:
        assert hashlib.sha256((published / name).read_bytes()).hexdigest() == checksum


def test_no_file_tells_of_the_machine(published, trained):
    private = str(ROOT), str(trained.folder), str(trained.data), f"{Path.home()}/"
    recorded = (trained.stage("first", "curated") / "settings.json").read_text()
    assert str(ROOT) in recorded and str(trained.data) in recorded
    for path in published.rglob("*.*"):
        assert not [place for place in private if place.encode() in path.read_bytes()], path
    settings = json.loads((published / "first/curated/settings.json").read_text())
    assert settings["made_by"]["command"].startswith("python train_curated.py --data PATH --run first --models PATH")
    assert {**json.loads(recorded), "made_by": 0} == {**settings, "made_by": 0}


@pytest.mark.parametrize(("command", "public"), [
    ("python train_noisy.py --data data/x --run a", "python train_noisy.py --data data/x --run a"),
    ("python /home/ada/tagging/train_noisy.py --data=/home/ada", "python train_noisy.py --data=PATH"),
    ("python t.py --data '/home/ada/my data' --cache ../../ada/x", "python t.py --data PATH --cache PATH"),
    ("python t.py --data=x/../../ada --models '~/ada\nx'", "python t.py --data=PATH --models PATH"),
    ("python t.py --noisy.lrs 3e-3 0.001 --folds 1 2", "python t.py --noisy.lrs 3e-3 0.001 --folds 1 2")])
def test_paths_are_taken_out_of_a_command(command, public):
    assert without_paths({"command": command, "date": "today"}) == {"command": public, "date": "today"}


def test_the_card_says_what_the_run_says(published, trained):
    card = (published / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit" and front["metrics"] == ["lwlrap"] and "audio-tagging" in front["tags"]
    folder = trained.stage("first", "curated")
    scores = json.loads((folder / "scores.json").read_text())
    assert f"| mean of the folds | {scores['mean']:.4f} +- {scores['spread']:.4f} |" in card
    assert f"| all {scores['clips']} clips together | {scores['out_of_fold']:.4f} |" in card
    for fold in ("1", "2"):
        record = json.loads((folder / f"fold{fold}.json").read_text())
        assert f"| {fold} | {record['lwlrap']:.4f} | {record['clips']} | " in card and record["device"] in card
    labels = pd.read_csv(folder / "clips.csv").labels.str.split(",").explode()
    for name, count in labels.value_counts().items():
        assert f"| {name} | {count} | " in card
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["made_by"]["commit"] in card and "| network | timm:test_resnet |" in card
    assert f"| train_curated.csv | sha256 {settings['made_by']['files']['train_curated.csv']} |" in card
    assert "Stage curated, from stage noisy of run first:" in card
    assert r"| data | a \| b |" in card and "| licence of the data | not stated |" in card and "model.onnx" not in card


def test_hugging_face_reads_the_scores_of_the_card(published, trained):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard((published / "README.md").read_text())
    scores = json.loads((trained.stage("first", "curated") / "scores.json").read_text())
    results = card.data.eval_results
    assert card.data.model_name == "first" and [result.metric_value for result in results] == [
        scores["mean"], scores["out_of_fold"]]
    for result in results:
        assert (result.task_type, result.metric_type) == ("audio-classification", "lwlrap")
        assert (result.dataset_name, result.dataset_type, result.dataset_split) == ("a | b", "a-b", "out-of-fold")
        assert result.verified is False


def test_the_lines_of_the_card_work(published, trained):
    card = (published / "README.md").read_text().replace("DIR", str(published))
    shell, python = re.findall(r"^```(?:python)?\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)[:2]
    sound = sorted((trained.data / "test").iterdir())[0]
    tag = next(line for line in shell.splitlines() if "tools.tag" in line).split()
    result = trained.call("tools/tag.py", *tag[3:-1], sound)
    assert result.code == 0 and sound.name in result.out, result.err
    names = {"waves": torch.zeros(3, 16_000, dtype=torch.int16)}
    exec(python, names)
    assert names["logits"].shape == (3, 10)


def test_the_noisy_stage_is_published_as_what_it_is(trained, tmp_path):
    assert publish(trained, tmp_path / "out", "--stage", "noisy").code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "This is stage 1 alone." in card and "Stage noisy, from random weights:" in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "unknown"


def test_an_exported_model_goes_along_unless_it_names_folders_of_the_machine(copied, expect_error):
    exported = copied.stage("first", "curated") / "model.onnx"
    exported.write_bytes(b"weights")
    assert publish(copied, copied.folder / "out").code == 0
    assert (copied.folder / "out" / "first" / "curated" / "model.onnx").read_bytes() == b"weights"
    assert "out/first/curated/model.onnx" in (copied.folder / "out" / "README.md").read_text().replace("DIR", "out")
    exported.write_bytes(f"File {ROOT}/tagging/model.py, line 1".encode())
    expect_error(publish(copied, copied.folder / "again"), "model.onnx", str(ROOT), "nothing was published")
    assert {path.name for path in copied.folder.iterdir()} == {"models", "out"}


def test_what_is_stated_cannot_break_the_card(trained, tmp_path):
    licence = 'mit"\nlicense: x: [\\'
    words = "--licence", licence, "--code", "<b>\n| x", "--data-name", licence
    assert publish(trained, tmp_path / "out", *words).code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == licence
    assert front["model-index"][0]["results"][0]["dataset"] | {"split": 0} == {
        "name": licence, "type": "mit-license-x", "split": 0}
    assert r"Code: &lt;b&gt; \| x, commit" in card
    assert table_cell("a|b\n<c>") == r"a\|b &lt;c&gt;"


@pytest.mark.parametrize(("words", "named"), [
    (("--run", "nobody"), "nobody/curated/settings.json"), (("--run", "../first"), "--run '../first'")])
def test_a_run_that_is_none_is_an_error(trained, expect_error, tmp_path, words, named):
    expect_error(publish(trained, tmp_path / "out", *words), named)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_whole_is_not_published(copied, expect_error):
    folder, out = copied.stage("first", "curated"), copied.folder / "out"
    (folder / "fold2.log.csv").rename(folder / "elsewhere")
    expect_error(publish(copied, out), "fold2.log.csv: No such file")
    (folder / "elsewhere").rename(folder / "fold2.log.csv")
    (folder / "fold2.safetensors").write_bytes(b"cut short")
    expect_error(publish(copied, out), "fold2.safetensors is damaged")
    (folder / "fold2.json").unlink()
    expect_error(publish(copied, out), "scores.json has other folds than the finished ones [1]")
    (folder / "fold1.json").unlink()
    expect_error(publish(copied, out), "has no finished fold")
    assert [path.name for path in copied.folder.iterdir()] == ["models"]


def test_a_folder_that_holds_something_is_left_alone(trained, expect_error, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    expect_error(publish(trained, tmp_path), str(tmp_path), "Choose a new folder")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").write_text("half")
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]
