"""A search by several processes, some of which are killed. The training script is a quick one: see search_study.py."""
import os
import random
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from search_study import SPACE, fork, limits, make_sweep, make_workers, write_script

from tagging.errors import TaggingError
from tagging.search import worker
from tagging.search.journal import NAME, open_study
from tagging.search.report.sections import trial_table
from tagging.search.space import STRIDE, LegPruner, Space
from tagging.search.study import Reserved, Sweep
from tagging.utils import interrupts

KILLS = int(os.environ.get("KILLS", "10"))


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    return write_script(tmp_path / "scripts", monkeypatch)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "models/sweep"


def states(folder: Path) -> list[str]:
    return list(trial_table(open_study(folder)).state)


def lost_epochs(folder: Path) -> int:
    """The number of epochs that were trained again."""
    return sum(len(lines) - len(set(lines)) for lines in (
        path.read_text().split() for path in folder.glob("trial-*/curated/trained.txt")))


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


# Kills.

@pytest.mark.slow
def test_kills_lose_no_trial_and_finish_none_twice(scripts, folder, monkeypatch):
    """`KILLS=100 pytest tests/test_search.py -k kills` is a longer sweep."""
    monkeypatch.setenv("EPOCH", "0.08")
    rng, kills, trials = random.Random(KILLS), 0, max(8, KILLS)

    def start() -> int:
        return fork(lambda: make_workers(make_sweep(folder, trials, startup=3), epochs=5).run())

    processes = [start(), start()]
    while processes:
        time.sleep(rng.uniform(0.0, 0.4))
        place = rng.randrange(len(processes))
        process = processes[place]
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            assert status == 0
            del processes[place]
        elif kills < KILLS:
            kills += 1
            trainings = psutil.Process(process).children()
            if trainings and rng.random() < 0.5:
                trainings[0].kill()
            if not trainings or rng.random() < 0.7:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                processes[place] = start()
    assert kills >= KILLS // 4
    table = trial_table(open_study(folder))
    assert list(table.number) == list(range(trials)) and set(table.state) <= {"complete", "pruned"}
    assert lost_epochs(folder) <= kills
    ends = [line for line in (folder / NAME).read_text().splitlines()
            if '"op_code":6' in line and '"state":0' not in line]       # trials that end
    assert len(ends) == trials


def test_a_training_outlives_no_search_and_the_next_one_waits_for_it(scripts, folder, monkeypatch):
    monkeypatch.setenv("EPOCH", "0.3")
    (scripts / "behaviour.py").write_text("import signal\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), "
                                          "sys.exit(143)))\n")
    process = fork(lambda: make_workers(make_sweep(folder, 1), epochs=4).run())
    while not (folder / "trial-000/curated/trained.txt").exists():
        time.sleep(0.02)
    training, = psutil.Process(process).children()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert alive(training)      # it writes its checkpoint
    make_workers(make_sweep(folder, 1), epochs=4).run()
    assert not alive(training)
    assert states(folder) == ["complete"] and lost_epochs(folder) <= 1


def test_a_training_that_is_killed_starts_again_and_fails_in_the_end(scripts, folder, caplog):
    (scripts / "behaviour.py").write_text("if level > 0.58: os.kill(os.getpid(), 9)\n")
    sweep = make_sweep(folder, 2, space=Space(SPACE.recipe, (limits("curated.wave_mix", low=0.0, high=1.0),)))
    with pytest.raises(TaggingError, match=r"could not be trained: ended by SIGKILL\. It was started 3 times\. The tr"):
        make_workers(sweep).run()
    assert states(folder) == ["running"]
    assert [message for message in caplog.messages if "It starts again" in message] == [
        "trial 0: the training was ended by SIGKILL. It starts again."] * 2


def test_a_signal_stops_the_trials_and_the_next_call_resumes_them(scripts, folder, monkeypatch):
    monkeypatch.setenv("EPOCH", "0.3")
    before = {number: signal.getsignal(number) for number in interrupts.HANDLED}
    interrupts.install_handlers()
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(interrupts.Stopped):
            make_workers(make_sweep(folder, 4), devices=2, epochs=9).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupts._Pending.number = 0
    assert states(folder) == ["running", "running"]
    monkeypatch.setenv("EPOCH", "0")
    make_workers(make_sweep(folder, 4), devices=2, epochs=9).run()
    assert states(folder) == ["complete"] * 4 and lost_epochs(folder) <= 2


# Trials.

def test_the_number_of_trials_is_exact_and_grows_with_the_option(scripts, folder):
    make_workers(make_sweep(folder, 4), devices=3).run()
    assert states(folder) == ["complete"] * 4
    make_workers(make_sweep(folder, 4)).run()
    assert states(folder) == ["complete"] * 4
    make_workers(make_sweep(folder, 6, startup=1), devices=3).run()
    table = trial_table(open_study(folder))
    assert len(table) == 6 and set(table.state) <= {"complete", "pruned"}
    first = table.iloc[0]
    assert first["weight_decay"] == SPACE.recipe.weight_decay and first["curated.wave_mix"] == 0.8
    assert first["score"] == pytest.approx(0.59)
    assert table["weight_decay"].nunique() == 6


def test_the_same_trials_are_drawn_whichever_process_draws_them(scripts, folder, tmp_path):
    make_workers(make_sweep(folder, 3)).run()
    for trials in (1, 3):
        make_workers(make_sweep(tmp_path / "other/sweep", trials)).run()
    ours, theirs = (trial_table(open_study(each)).drop(columns="minutes")
                    for each in (folder, tmp_path / "other/sweep"))
    assert ours.equals(theirs)


def test_a_bad_trial_is_pruned_and_its_run_stays(scripts, folder, monkeypatch):
    monkeypatch.setenv("EPOCH", "0.1")
    sweep = make_sweep(folder, 8, startup=2)
    make_workers(sweep).run()
    table = trial_table(open_study(folder))
    pruned, complete = table[table.state == "pruned"], table[table.state == "complete"]
    assert len(pruned) + len(complete) == 8 and len(pruned)
    assert pruned.score.isna().all() and (pruned.epochs < 3).all()
    for number in pruned.number:
        assert (folder / f"trial-{number:03d}/curated/fold1.log.csv").exists()
    level = 0.5 + table["weight_decay"] + table["curated.wave_mix"] / 10
    assert level[pruned.index].max() < level[complete.index].max()


def test_trials_fail_with_their_reason_and_do_not_count(scripts, folder):
    (scripts / "behaviour.py").write_text("if level > 0.6: fail('the loss is not finite in epoch 1')\n")
    make_workers(make_sweep(folder, 4)).run()
    table = trial_table(open_study(folder))
    failed = table[table.state == "failed"]
    assert len(table) - len(failed) == 4 and len(failed) > 0
    assert set(failed.reason) == {"the loss is not finite in epoch 1"}


def test_an_error_of_the_data_or_the_machine_stops_the_search(scripts, folder):
    (scripts / "behaviour.py").write_text("fail('train_curated.csv, line 3: a fault.')\n")
    with pytest.raises(TaggingError, match=r"Trial 0 could not be trained: train_curated.csv, line 3: a fault."):
        make_workers(make_sweep(folder, 5, startup=9)).run()
    (scripts / "behaviour.py").write_text("if level > 0.6: fail('x.csv could not be written: No space left.')\n")
    with pytest.raises(TaggingError, match="No space left"):
        make_workers(make_sweep(folder, 5, startup=9)).run()
    assert states(folder)[-1] == "running" and "failed" not in states(folder)
    (scripts / "behaviour.py").unlink()
    make_workers(make_sweep(folder, 5, startup=9)).run()
    assert states(folder) == ["complete"] * 5


def test_many_failures_in_a_row_end_the_search(scripts, folder, monkeypatch):
    monkeypatch.setattr(worker, "FAILURES", 3)
    (scripts / "behaviour.py").write_text("fail('the loss is not finite.')\n")
    with pytest.raises(TaggingError, match=r"3 trials in a row failed.*not finite"):
        make_workers(make_sweep(folder, 6)).run()


def test_knobs_that_contradict_each_other_are_a_failed_trial(folder):
    space = Space(SPACE.recipe, (limits("n_fft", low=1000, high=4000), limits("n_window", low=16, high=4000)))
    sweep, drawn = make_sweep(folder, 30, space=space), []
    for _ in range(12):
        with ExitStack() as held:
            drawn.append(sweep.reserve(held))
            sweep.complete(drawn[-1].number, {"sounds fold 1": 0.5})
    table = trial_table(open_study(folder))
    failed = table[table.state == "failed"]
    assert len(failed) and set(failed.reason) == {
        "invalid: --n-window must be 16 or more and at most --n-fft, and that at most 131072."}
    assert (failed.n_window > failed.n_fft).all() and (table.state == "complete").sum() == 12
    assert not list(folder.glob("trial-*"))


def test_several_competitions_and_folds_are_averaged(scripts, folder):
    (scripts / "behaviour.py").write_text("level += 0.2 * (option('--data') == 'b')\n")
    make_workers(make_sweep(folder, 1, data=("a", "b"), folds=(1, 2))).run()
    row = trial_table(open_study(folder)).iloc[0]
    assert row.score == pytest.approx(0.69) and row.epochs == 12
    assert [row[f"{name} fold {fold}"] for name in "ab" for fold in (1, 2)] == pytest.approx([0.59, 0.59, 0.79, 0.79])
    assert {path.name for path in folder.glob("trial-*")} == {"trial-000-a", "trial-000-b"}


def test_only_epochs_of_the_same_fold_are_compared(folder):
    """The first competition is easy, so its scores would hide a bad score on the second one."""
    sweep = make_sweep(folder, 9, data=("easy", "hard"), startup=1)
    with ExitStack() as held:
        first, second = sweep.reserve(held), sweep.reserve(held)
        assert isinstance(first, Reserved) and isinstance(second, Reserved)
        assert not sweep.report(first.number, 0, {1: 0.9}) and not sweep.report(first.number, 1, {1: 0.5})
        sweep.complete(first.number, {"easy fold 1": 0.9, "hard fold 1": 0.5})
        assert not sweep.report(second.number, 0, {1: 0.91})
        assert sweep.report(second.number, 1, {1: 0.4}) and not sweep.report(second.number, 1, {1: 0.4, 2: 0.6})
    with sweep.study() as study:
        trial = study.get_trials()[1]
        assert set(trial.intermediate_values) == {1, STRIDE + 1, STRIDE + 2}
        assert not LegPruner(1, 2).prune(study, trial) and not LegPruner(2, 0).prune(study, trial)


# Studies.

def test_another_plan_is_refused_unless_it_is_wanted(scripts, folder):
    make_workers(make_sweep(folder, 2)).run()
    space = Space(SPACE.recipe, (limits("weight_decay", low=1e-3, high=0.1, log=True),
                                 limits("mels", choices=[64, 128])))
    with pytest.raises(TaggingError, match=r"(?s)other settings:\n.*weight_decay.low: 0.0001 -> 0.001.*--change-study"):
        make_sweep(folder, 4, space=space)
    with pytest.raises(TaggingError, match=r"data\.sounds"):
        make_sweep(folder, 4, data=("other",))
    before = make_sweep(folder, 4)
    with ExitStack() as held:
        found = before.reserve(held)
        with pytest.raises(TaggingError, match=r"another process trains trial 2 of .*Stop it first"):
            Sweep(folder, make_sweep(folder.with_name("x"), 4, space=space).plan, 4, change=True)
    sweep = Sweep(folder, make_sweep(folder.with_name("x"), 4, space=space).plan, 4, change=True)
    table = trial_table(open_study(folder))
    assert list(table.state) == ["complete", "complete", "failed"] and found.number == 2
    assert list(table.columns[-3:]) == ["reason", "weight_decay", "best"]       # wave_mix is no knob any more
    assert "other settings" in table.reason[2]
    with pytest.raises(TaggingError, match="was changed by another process"), ExitStack() as held:
        before.reserve(held)
    make_workers(sweep).run()
    table = trial_table(open_study(folder))
    assert list(table.state) == ["complete", "complete", "failed", "complete", "complete"]
    assert table.mels[3:].isin([64, 128]).all()


def test_folders_of_trials_without_their_journal_are_kept(scripts, folder):
    make_workers(make_sweep(folder, 2)).run()
    (folder / NAME).unlink()
    with pytest.raises(TaggingError, match=r"trial-000 exists, but .*journal.log has no trial 0\. Restore"):
        make_workers(make_sweep(folder, 2)).run()


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(TaggingError, match=r"contains no study. Start one with `python -m tools.search`"):
        open_study(tmp_path)
