"""Outputs that cannot be written are refused before anything is computed, and the check leaves nothing behind."""
import os
import shutil

import pytest
from conftest import Workshop

from tagging.baselines import runs
from tagging.data import waveforms
from tagging.errors import TaggingError
from tagging.reporting.report import write_page
from tagging.utils.files import check_file, check_folder, check_new_folder, check_run_folder, read_json, write_json


@pytest.fixture
def shop(tmp_path) -> Workshop:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder/full").mkdir(parents=True)
    (tmp_path / "broken").symlink_to("nowhere")
    return Workshop(tmp_path, tmp_path / "data")


def paths(folder):
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("check", [check_file, check_folder, check_new_folder])
@pytest.mark.parametrize(("place", "reason"), [
    ("file/out", "file is not a folder"), ("file/deep/er/out", "file is not a folder"),
    ("/proc/out", ""), ("/proc/self/deep/out", ""),
    ("new/" + 300 * "x" + "/out", "File name too long"), (256 * "x", "File name too long")])
def test_a_place_that_cannot_be_written(shop, check, place, reason):
    before = paths(shop.folder)
    with pytest.raises(TaggingError, match=rf"cannot be written: .*{reason}.*Choose another --out"):
        check(shop.folder / place, "--out")
    assert paths(shop.folder) == before


@pytest.mark.parametrize(("check", "place", "reason"), [
    (check_file, "broken/out", "broken is not a folder"), (check_folder, "broken", "broken is not a folder"),
    (check_file, "folder", "folder is a folder"), (check_file, ".", "is a folder"), (check_file, "/", "is a folder"),
    (check_file, "pipe", "pipe is a device or a pipe"),
    (check_folder, "file", "file is not a folder"), (check_new_folder, "file", "file exists"),
    (check_new_folder, "folder", "folder exists")])
def test_a_path_that_is_taken_by_something_else(shop, check, place, reason):
    os.mkfifo(shop.folder / "pipe")
    before = paths(shop.folder)
    with pytest.raises(TaggingError, match=reason):
        check(shop.folder / place, "--out")
    assert paths(shop.folder) == before


@pytest.mark.parametrize(("check", "places"), [
    (check_file, ["out.csv", "new/deep/out.csv", "file", "folder/../out.csv", "new/../out.csv"]),
    (check_folder, ["folder", "new/deep", ".", "/"]), (check_new_folder, ["new", "new/deep", "folder/full"])])
def test_a_place_that_can_be_written_stays_as_it_is(shop, monkeypatch, check, places):
    before = paths(shop.folder)
    monkeypatch.chdir(shop.folder)
    for place in places:
        check(shop.folder / place, "--out")
        check(type(shop.folder)(place), "--out")        # the same place, relative
    assert paths(shop.folder) == before


def test_weights_need_a_path_in_utf_8_and_other_files_do_not(shop):
    name = os.fsdecode(b"caf\xe9")
    with pytest.raises(TaggingError, match=r"is not UTF-8, and weights files need that.*--models"):
        check_run_folder(shop.folder / name / "run")
    check_folder(shop.folder / name / "data", "OUT")
    check_file(shop.folder / name / "s.csv", "--out")
    write_json(shop.folder / name / "settings.json", {"command": name, "other": "ü"})
    assert read_json(shop.folder / name / "settings.json", "") == {"command": name, "other": "ü"}
    write_page(shop.folder / name / "page.html", "title", f"<{name}>", [])
    assert "caf\\udce9&gt;" in (shop.folder / name / "page.html").read_text("utf-8")


DATA = ("--data", "nowhere")
# Neither the data nor the run exists: the output is checked before they are read.
COMMANDS = {
    "predict.py": (*DATA, "--run", "r", "--out"), "train_noisy.py": (*DATA, "--run", "r", "--models"),
    "train_curated.py": (*DATA, "--run", "r", "--models"), "tools/export.py": ("--run", "r", "--out"),
    "tools/publish.py": ("--run", "r", "--out"), "tools/kaggle_kernel.py": ("--run", "r", "--user", "me", "--out"),
    "tools/relabel.py": (*DATA, "--run", "r", "--out"), "tools/eda.py": (*DATA, "--out"),
    "tools/make_competition.py": ("--folders", "nowhere"), "tools/sample_competition.py": ()}


@pytest.mark.parametrize("script", COMMANDS)
def test_every_script_checks_its_output_first(shop, expect_error, script):
    before = paths(shop.folder)
    result = shop.call(script, *COMMANDS[script], shop.folder / "file/below")
    assert "nowhere" not in expect_error(result, "cannot be written", "file is not a folder")
    assert paths(shop.folder) == before


@pytest.mark.parametrize("option", ["--out", "--scratch"])
def test_the_benchmark_checks_its_outputs_first(shop, expect_error, option):
    expect_error(shop.call("tools/benchmark/__main__.py", "--quick", option, shop.folder / "file/below"),
                 "cannot be written", "file is not a folder", option)


def test_the_default_place_is_checked_too(shop, monkeypatch, expect_error):
    monkeypatch.chdir(shop.folder)
    (shop.folder / "submissions").write_text("no folder")
    expect_error(shop.call("predict.py", *DATA, "--run", "r"), "submissions/r.csv cannot be written")


def test_a_run_that_is_refused_for_another_reason_leaves_nothing(shop, expect_error):
    before = paths(shop.folder)
    expect_error(shop.call("train_noisy.py", *DATA, "--run", "r", "--models", shop.folder / "new"), "nowhere")
    expect_error(shop.call("predict.py", *DATA, "--run", "r", "--out", shop.folder / "new/r.csv"), "nowhere")
    assert paths(shop.folder) == before


def test_the_clips_of_all_runs_are_opened_before_the_first_is_predicted(trained, tmp_path, monkeypatch):
    """The cache may be read-only, or the clips of one run cannot be used."""
    shutil.copytree(trained.folder / "models/first", tmp_path / "models/second")
    shutil.copytree(trained.folder / "models/first", tmp_path / "models/first")
    calls = []

    def noted(function):
        def call(*words, **options):
            calls.append(function.__name__)
            return function(*words, **options)
        return call

    monkeypatch.setattr(waveforms, "open_store", noted(waveforms.open_store))
    monkeypatch.setattr(runs, "predict_clips", noted(runs.predict_clips))
    result = trained.call("predict.py", "--data", trained.data, "--run", "first", "second", "--models",
                          tmp_path / "models", "--cache", trained.folder / "cache", "--device", "cpu", "--out",
                          tmp_path / "s.csv")
    assert result.code == 0, result.err
    assert calls == ["open_store"] * 2 + ["predict_clips"] * 4
