"""The report of a study."""
import shlex
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from search_study import SPACE, limits, make_sweep, make_workers, write_script

from tagging.metric import lwlrap
from tagging.reporting.sections import Section
from tagging.search.journal import NAME, find_studies
from tagging.search.report import sections
from tagging.search.report.sections import expected_maximum, score_error, study_sections, write_study_report
from tagging.search.space import Space

TITLES = ["Best trials", "Importance of each knob", "Score by knob", "Parallel coordinates", "Learning curves"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A study with complete, pruned and failed trials, and with knobs of all kinds. Not to be changed."""
    work = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        scripts = write_script(work / "scripts", patch)
        patch.setenv("EPOCH", "0.03")
        (scripts / "behaviour.py").write_text("if option('--mels') == '64': fail('the loss is not finite.')\n")
        space = Space(SPACE.recipe, (*SPACE.knobs, limits("mask_width", choices=[[0, 4], [0, 8]]),
                                     limits("mels", choices=[64, 96, 128])))
        make_workers(make_sweep(work / "models/sweep", 8, space=space, startup=2)).run()
    return work / "models/sweep"


def texts(section: Section) -> str:
    return " ".join([section.text, *(block for block in section.blocks if isinstance(block, str))])


def test_the_sections_show_trials_knobs_and_curves(folder):
    found = {section.title: section for section in study_sections(folder)}
    assert list(found) == [*TITLES, "Failed trials", "Train the winner"]
    best, = found["Best trials"].blocks
    assert list(best.lwlrap) == sorted(best.lwlrap, reverse=True) and "0, the recipe" in set(best.trial)
    assert {"weight_decay", "curated.wave_mix", "mask_width", "mels"} <= set(best) and "0 8" in set(best.mask_width)
    assert "complete" in found["Best trials"].text and "failed" in found["Best trials"].text
    for title in TITLES[1:]:
        assert [type(block) for block in found[title].blocks] == [Figure], title
    failed, = found["Failed trials"].blocks
    assert set(failed.reason) == {"the loss is not finite."}
    labels = [text.get_text() for text in found["Parallel coordinates"].blocks[0].axes[0].get_xticklabels()]
    assert labels == ["weight_decay", "curated.wave_mix", "mask_width", "mels", "lwlrap"]
    curves = found["Learning curves"].blocks[0].axes[0].lines
    pruned = sum(line.get_marker() == "x" for line in curves)
    assert pruned > 0 and f"{pruned} pruned" in found["Best trials"].text


def test_the_report_ends_with_the_command_and_the_warning(folder):
    winner = study_sections(folder)[-1]
    command, warning = winner.blocks
    words = shlex.split(command)
    assert words[:2] == ["python", "train_curated.py"] and "--folds" not in words
    assert words[words.index("--data") + 1] == "sounds" and words[words.index("--run") + 1] == "sweep-best"
    assert words[words.index("--recipe") + 1] == "podium" and "--from-scratch" in words
    complete = sections.trial_table(sections.open_study(folder)).state.eq("complete").sum()
    assert f"picked from {complete} complete trials" in warning and "too high" in warning


def test_the_files(folder):
    before = (folder / NAME).read_bytes()
    path = write_study_report(folder)
    assert path == folder / "report.html" and "Train the winner" in path.read_text()
    table = pd.read_csv(folder / "trials.csv")
    assert list(table.columns[:3]) == ["number", "state", "score"] and len(table) > 8
    assert table.best.sum() == 1 and table.score[table.best].item() == table.score.max()
    assert (folder / NAME).read_bytes() == before
    assert find_studies(folder.parent) == ["sweep"]


def test_a_study_at_its_beginning(tmp_path):
    sweep = make_sweep(tmp_path, 3)
    assert [section.title for section in study_sections(tmp_path)] == ["Trials"]
    with ExitStack() as held:
        trials = [sweep.reserve(held) for _ in range(3)]
    sweep.report(trials[0].number, 0, {1: 0.5})
    assert [section.title for section in study_sections(tmp_path)] == ["Trials", "Learning curves"]
    sweep.complete(trials[0].number, {"sounds fold 1": 0.5})
    found = {section.title: section for section in study_sections(tmp_path)}
    assert "too few complete trials" in found["Importance of each knob"].text
    assert not found["Parallel coordinates"].blocks
    assert "The run of trial 0 is missing" in texts(found["Train the winner"])
    for trial in trials[1:]:
        sweep.complete(trial.number, {"sounds fold 1": 0.5})
    found = {section.title: section for section in study_sections(tmp_path)}
    assert "all of them have the same score" in found["Importance of each knob"].text


def test_the_standard_error_is_that_of_resampled_clips():
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 12)) < 0.15).astype(int)
    scores = truth + rng.normal(0, 0.8, truth.shape)
    drawn = [rng.integers(0, 300, 300) for _ in range(300)]
    resampled = [lwlrap(truth=truth[clips], scores=scores[clips]) for clips in drawn]
    assert score_error(truth, scores) == pytest.approx(np.std(resampled), rel=0.15)


def test_the_expected_maximum():
    drawn = np.random.default_rng(0).normal(size=(4000, 20)).max(1).mean()
    assert expected_maximum(20) == pytest.approx(drawn, abs=0.03) and expected_maximum(1) == pytest.approx(0)
