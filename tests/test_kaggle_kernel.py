"""tools.kaggle_kernel, and the script that it makes, run as Kaggle runs it."""
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Result, Workshop

from tagging.data.tables import read_scores
from tools.kaggle_kernel import kaggle_name

# What Kaggle's image has of what this repository needs: it has what Colab's has, which is listed in
# github.com/googlecolab/backend-info, pip-freeze.gpu.txt. Read in its version of June 2026.
ON_KAGGLE = ("torch", "torchvision", "torchaudio", "timm", "fastai", "numpy", "pandas", "scikit-learn", "soundfile",
             "safetensors", "tqdm", "typeguard", "psutil")

# Runs a script with no network, and without some of the modules that are installed here. It can still import modules
# of these names from a folder that it adds to sys.path.
KAGGLE = """
import runpy, socket, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
script, *hidden = sys.argv[1:]
installed = list(sys.path)

class Image:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is None and name in hidden:
            path = [folder for folder in sys.path if folder not in installed]
        return PathFinder.find_spec(name, path, target)

def refuse(*_):
    raise OSError("there is no network")

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Image]
socket.socket.connect = socket.getaddrinfo = refuse
runpy.run_path(script, run_name="__main__")
"""


def not_on_kaggle() -> list[str]:
    """The modules installed here that belong to none of ON_KAGGLE, nor to what these need."""
    def plain(name: str) -> str:
        return re.sub("[-_.]+", "-", name).lower()

    needed, waiting = set(), list(ON_KAGGLE)
    while waiting:
        name = plain(waiting.pop())
        if name in needed:
            continue
        needed.add(name)
        try:
            requirements = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:       # for another system
            continue
        waiting += [re.match(r"[\w.-]+", line)[0] for line in requirements if "extra ==" not in line]
    return [module for module, owners in metadata.packages_distributions().items()
            if not needed & set(map(plain, owners))]


def run_on_kaggle(folder: Path, script: str) -> subprocess.CompletedProcess:
    """Run a script in `folder`/working, which is made, apart from this repository and without a GPU."""
    for name in ("working", "scratch"):
        (folder / name).mkdir()
    (folder / "predict.py").write_text(script)
    surroundings = os.environ | {"TMPDIR": str(folder / "scratch"), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-I", "-c", KAGGLE, folder / "predict.py", *not_on_kaggle()], cwd=folder / "working",
        capture_output=True, text=True, env=surroundings)


def replaced(script: str, old: str, new: str) -> str:
    assert script.count(old) == 1
    return script.replace(old, new)


def script_for(made: Path, folder: Path) -> str:
    """The script, with its input in `folder`."""
    return replaced((made / "kernel" / "predict.py").read_text(), '"/kaggle/input"', repr(str(folder)))


@pytest.fixture(scope="module")
def make(trained):
    """Call the tool on run `first`."""
    def call(out: Path, *words: str) -> Result:
        return trained.call("tools/kaggle_kernel.py", "--run", "first", "--user", "ada", "--models",
                            trained.folder / "models", "--out", out, *words)
    return call


@pytest.fixture(scope="module")
def made(make, tmp_path_factory) -> Path:
    """What the tool makes of run `first`, with one additional view. Not to be changed."""
    out = tmp_path_factory.mktemp("made") / "out"
    result = make(out, "--tta", "1")
    assert result.code == 0, result.err
    return out


@pytest.fixture
def predicted(trained, tmp_path):
    """Call predict.py on run `first`; the submission."""
    def call(data: Path, *words: str):
        result = trained.call("predict.py", "--run", "first", "--models", trained.folder / "models", "--data", data,
                              "--cache", tmp_path / "cache", "--device", "cpu", "--out", tmp_path / "ours.csv", *words)
        assert result.code == 0, result.err
        return read_scores(tmp_path / "ours.csv")
    return call


def lay_out(folder: Path, competition: Path, made: Path) -> None:
    """Put the competition and the weights where Kaggle has them."""
    for place, source in (("competitions/freesound", competition), ("datasets/ada/weights", made)):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).symlink_to(source)


def test_the_script_writes_what_predict_does(made, predicted, sample, tmp_path):
    lay_out(tmp_path / "input", competition=sample, made=made / "dataset")
    result = run_on_kaggle(tmp_path, script_for(made, tmp_path / "input"))
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "working").iterdir()] == ["submission.csv"]
    assert not list((tmp_path / "scratch").iterdir())
    assert "view 1 of 1" in result.stdout and "minutes in total" in result.stdout
    found, expected = read_scores(tmp_path / "working" / "submission.csv"), predicted(sample, "--tta", "1")
    assert list(found.index) == list(expected.index) and list(found.columns) == list(expected.columns)
    assert abs(found - expected).to_numpy().max() <= 1e-6


@pytest.mark.slow
def test_the_script_hears_views_and_balances_classes_as_the_recipe_says(sample, tmp_path):
    shop = Workshop(tmp_path, sample)
    words = ("--from-scratch", *TINY, "--view-speeds", "0.9", "--balance")
    assert shop.train("train_curated.py", "fast", *words).code == 0
    result = shop.predict("fast", "--out", tmp_path / "ours.csv")
    assert result.code == 0 and "1 views beside" in result.out
    assert shop.predict("fast", "--out", tmp_path / "plain.csv", "--tta", "0", "--balance", "off").code == 0
    result = shop.call("tools/kaggle_kernel.py", "--run", "fast", "--user", "ada", "--models", tmp_path / "models",
                       "--out", tmp_path / "made")
    assert result.code == 0, result.err
    (shop.stage("fast", "curated") / "fold2.predictions.csv").write_text("x,y\n1,2\n")
    broken = shop.call("tools/kaggle_kernel.py", "--run", "fast", "--user", "ada", "--models", tmp_path / "models",
                       "--out", tmp_path / "broken")
    assert broken.code == 2 and "fold2.predictions.csv" in broken.err and not (tmp_path / "broken").exists()
    lay_out(tmp_path / "input", competition=sample, made=tmp_path / "made" / "dataset")
    result = run_on_kaggle(tmp_path, script_for(tmp_path / "made", tmp_path / "input"))
    assert result.returncode == 0, result.stderr
    found, expected, plain = (read_scores(tmp_path / name) for name in (
        "working/submission.csv", "ours.csv", "plain.csv"))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert abs(expected - plain).to_numpy().max() > 0.1


def test_a_bad_clip_and_a_lack_of_time_do_not_cost_the_submission(made, predicted, sample, tmp_path):
    """In the older layout of Kaggle's input."""
    data = tmp_path / "input" / "freesound"
    shutil.copytree(sample / "test", data / "test")
    shutil.copy(sample / "sample_submission.csv", data)
    bad = sorted((data / "test").iterdir())[3]
    bad.write_bytes(b"")
    shutil.copytree(made / "dataset", tmp_path / "input" / "weights")
    script = replaced(script_for(made, tmp_path / "input"), "LIMIT = 50 * 60", "LIMIT = 0")
    result = run_on_kaggle(tmp_path, script)
    assert result.returncode == 0, result.stderr
    assert bad.name in result.stdout and "There is no time for the additional views from 1 on." in result.stdout
    found, expected = read_scores(tmp_path / "working" / "submission.csv"), predicted(data, "--skip-bad-clips")
    assert list(found.index) == list(expected.index) and bad.name in found.index
    assert abs(found - expected).to_numpy().max() <= 1e-6


@pytest.mark.parametrize(("script", "fault"), [
    *((f"import {name}", f"No module named '{name}'") for name in ("tyro", "iterstrat", "onnxruntime", "tagging")),
    ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "there is no network")])
def test_these_tests_keep_out_what_kaggle_has_not(tmp_path, script, fault):
    result = run_on_kaggle(tmp_path, script)
    assert result.returncode == 1 and fault in result.stderr


def test_without_the_weights_the_script_says_what_to_add(made, sample, tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "freesound").symlink_to(sample)
    result = run_on_kaggle(tmp_path, script_for(made, tmp_path / "input"))
    assert result.returncode == 1 and "has no fold1.safetensors. Add the competition and the weights" in result.stderr


def test_the_metadata_are_what_kaggle_asks_for(made):
    assert {path.name for path in (made / "dataset").iterdir()} == {
        "fold1.safetensors", "fold2.safetensors", "dataset-metadata.json"}
    dataset = json.loads((made / "dataset" / "dataset-metadata.json").read_text())
    kernel = json.loads((made / "kernel" / "kernel-metadata.json").read_text())
    assert dataset["id"] == "ada/audio-tagging-first-curated" and [*dataset["licenses"][0]] == ["name"]
    assert (made / "kernel" / kernel["code_file"]).is_file()
    assert (kernel["language"], kernel["kernel_type"]) == ("python", "script")
    assert (kernel["enable_internet"], kernel["enable_gpu"], kernel["is_private"]) == (False, True, True)
    assert kernel["competition_sources"] == ["freesound-audio-tagging-2019"]
    assert kernel["dataset_sources"] == [dataset["id"]]
    for content in (dataset, kernel):
        assert content["title"].lower().replace(" ", "-") == content["id"].split("/")[1]


@pytest.mark.parametrize("run", ["a", "first", "x" * 200, "Größe_2.v1", "_-._", "日本"])
def test_any_run_has_a_name_that_kaggle_takes(run):
    for stage in ("noisy", "curated"):
        name = kaggle_name(run, stage)
        assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name) and 6 <= len(name) <= 50 and name.endswith(stage)


def test_folds_and_stage_can_be_chosen(make, tmp_path):
    assert make(tmp_path / "out", "--folds", "2", "--stage", "noisy", "--competition", "other").code == 0
    assert {path.name for path in (tmp_path / "out" / "dataset").glob("fold*")} == {"fold2.safetensors"}
    kernel = json.loads((tmp_path / "out" / "kernel" / "kernel-metadata.json").read_text())
    assert kernel["id"] == "ada/audio-tagging-first-noisy" and kernel["competition_sources"] == ["other"]
    assert "\nmain((2,), 0, " in (tmp_path / "out" / "kernel" / "predict.py").read_text()


@pytest.mark.parametrize(("words", "named"), [
    (("--run", "nobody"), "nobody/curated/settings.json"), (("--run", "../first"), "--run '../first'"),
    (("--user", "ada/../x"), "--user 'ada/../x'"), (("--competition", "a b"), "--competition 'a b'"),
    (("--folds", "1", "3"), "no finished fold 3"), (("--tta", "-1"), "--tta")])
def test_what_cannot_be_made_is_an_error_and_makes_nothing(make, expect_error, tmp_path, words, named):
    expect_error(make(tmp_path / "out", *words), named)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(make, expect_error, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    expect_error(make(tmp_path / "out"), str(tmp_path / "out"), "Choose a new folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]
    expect_error(make(tmp_path / "out" / "mine.txt"), "mine.txt exists")
