"""The command line of the search, and a trial of the real scripts."""
from pathlib import Path

import pytest
from conftest import TINY, Workshop

from tagging.search.journal import open_study
from tagging.search.report.sections import trial_table


def search(shop: Workshop, *words: object):
    """Call the tool with the options of all tests. Later options replace them."""
    return shop.call("tools/search.py", *shop.options("sweep"), *TINY, *map(str, words))


@pytest.mark.parametrize(("words", "message"), [
    (("--trials", "0"), "--trials must be 1 or more"), (("--startup", "-1"), "must not be negative"),
    (("--warmup", "-1"), "must not be negative"), (("--folds", "3"), "--folds must be different numbers from 1 to 2"),
    (("--folds", "1", "1"), "--folds must be different numbers"), (("--folds", "--trials", "3"), "--folds must be"),
    (("--micro-batches", "9"), "--micro-batches must be 1 to 8"),
    (("--noisy-run", "x", "--from-scratch"), "exclude each other"),
    (("--noisy-run", "nobody"), "nobody/noisy is no noisy stage. Train it with train_noisy.py --run nobody"),
    (("--device", "tpu"), "--device tpu cannot be used here"), (("--devices", "cpu"), "--device and --devices exclude"),
    (("--device", "auto", "--devices", "tpu"), "--device tpu cannot be used here"),
    (("--run", "../sweep"), "--run '../sweep'"), (("--recipe", "podum"), "Did you mean 'podium'?"),
    (("--data", "nowhere"), "nowhere is not a folder"), (("--data", "--trials", "3"), "--data needs a competition"),
    (("--space", "nothing.toml"), "nothing.toml could not be read"), (("--mels", "4"), "--mels and --frames must be")])
def test_wrong_options_are_refused_before_anything_is_written(workshop, expect_error, words, message):
    expect_error(search(workshop, *words), message)
    assert not (workshop.folder / "models").exists()


def test_two_competitions_need_two_names(workshop, tmp_path, expect_error):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / workshop.data.name).symlink_to(workshop.data, target_is_directory=True)
    expect_error(search(workshop, "--data", workshop.data, tmp_path / "copy" / workshop.data.name), "has two folders")


def test_an_ordinary_run_is_no_place_for_a_study(workshop, tmp_path, expect_error):
    (tmp_path / "models/sweep/curated").mkdir(parents=True)
    (tmp_path / "models/sweep/curated/settings.json").write_text("{}")
    expect_error(search(workshop), "models/sweep is a run. Choose another --run")


@pytest.mark.slow
def test_a_trial_is_an_ordinary_run(workshop, tmp_path, expect_error):
    (tmp_path / "space.toml").write_text("[curated.lrs]\nlow = 1e-3\nhigh = 1e-2\nlog = true\n")
    words = ["--from-scratch", "--space", tmp_path / "space.toml", "--trials", "1"]
    result = search(workshop, *words)
    assert result.code == 0, result.err
    assert "trial 0 starts on cpu: the recipe itself" in result.out and "the best so far" in result.out
    models, trial = tmp_path / "models/sweep", Path("trial-000/curated")
    assert f"-> {models / 'report.html'}" in result.out and "Train the winner" in (models / "report.html").read_text()
    assert (models / "trial-000/report.html").exists() and (models / trial / "fold1.safetensors").exists()
    listed = workshop.call("tools/runs.py", "--models", models)
    assert listed.code == 0 and "trial-000" in listed.out
    again = search(workshop, *words)
    assert again.code == 0 and "starts" not in again.out and len(trial_table(open_study(models))) == 1
    expect_error(search(workshop, *words, "--curated.mixup", "0.1"), "curated.mixup: 0.4 -> 0.1", "--change-study")
