"""Several processes, started by torchrun, that train each fold together."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, TINY, Workshop
from safetensors.torch import load_file

from tagging.training.optimizer import Ranger
from tagging.utils.files import read_json

# Two folds of four epochs of two steps, in two cycles.
STEPS = (*TINY, "--noisy.epochs", "2", "2", "--noisy.lrs", "3e-3", "1e-3", "--noisy.sizes", "32", "48")
# Batches of 16 clips in two parts, which three processes share as 3, 3 and 2; batch norm within timm's activations.
UNEVEN = (*TINY, "--network", "timm:test_efficientnet", "--micro-batches", "2", "--folds", "1")


def torchrun(shop: Workshop, *words: str, processes: int = 2) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                             str(processes), "--", ROOT / "train_noisy.py", *shop.options("r"), *words],
                            cwd=shop.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(process: subprocess.Popen, words: str) -> None:
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"'{words}' was not said: {process.stderr.read()}")


def assert_same_up_to_rounding(ours: Workshop, theirs: Workshop, folds=(1, 2)) -> None:
    for fold in folds:
        one, other = (shop.stage("r", "noisy") / f"fold{fold}" for shop in (ours, theirs))
        torch.testing.assert_close(load_file(f"{one}.safetensors"), load_file(f"{other}.safetensors"),
                                   rtol=1e-3, atol=1e-4)
        records = [read_json(Path(f"{path}.json"), "") for path in (one, other)]
        assert records[0]["lwlrap"] == pytest.approx(records[1]["lwlrap"], abs=1e-4)
        logs = [pd.read_csv(f"{path}.log.csv").drop(columns="seconds") for path in (one, other)]
        pd.testing.assert_frame_equal(*logs, rtol=1e-3)


def files(shop: Workshop) -> set[str]:
    return {path.name for path in shop.stage("r", "noisy").iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, sample) -> Workshop:
    """The run of one process, to which several must come. Not to be changed."""
    shop = Workshop(tmp_path_factory.mktemp("alone"), sample)
    assert shop.train("train_noisy.py", "r", *STEPS).code == 0
    return shop


def test_three_processes_train_the_weights_of_one_from_uneven_shares(workshop, tmp_path_factory, sample):
    one = Workshop(tmp_path_factory.mktemp("one"), sample)
    expected = one.train("train_noisy.py", "r", *UNEVEN)
    out, err = torchrun(workshop, *UNEVEN, processes=3).communicate(timeout=180)
    assert "error" not in err and expected.code == 0
    assert_same_up_to_rounding(workshop, one, [1])
    assert files(workshop) == files(one)
    assert out.count("epoch 1/1") == out.count("together") == 1         # one process speaks for all
    assert "3 x cpu" in read_json(workshop.stage("r", "noisy") / "fold1.json", "")["device"]
    # The weights are those of plain batch norm, for anyone to load.
    assert workshop.predict("r", "--stage", "noisy", "--out", workshop.folder / "r.csv").code == 0


def test_a_run_of_two_processes_that_is_stopped_goes_on_in_one(workshop, alone):
    process = torchrun(workshop, *STEPS)
    wait_for(process, "fold 1 epoch 2/4")
    process.send_signal(signal.SIGTERM)         # torchrun hands it on to all
    _, err = process.communicate(timeout=60)
    assert process.returncode and err.count("stopped by SIGTERM. Run the same command again to resume") == 1
    assert "fold1.checkpoint.safetensors" in files(workshop)
    result = workshop.train("train_noisy.py", "r", *STEPS)
    assert result.code == 0 and "noisy fold 1 resumes in epoch" in result.out
    assert_same_up_to_rounding(workshop, alone)


def test_a_run_of_one_process_goes_on_in_two_and_outlives_one_of_them(workshop, alone, monkeypatch):

    def step(optimizer):
        steps.append(optimizer)
        if len(steps) == 3:         # the first of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return do_step(optimizer)

    do_step, steps = Ranger.step, []
    monkeypatch.setattr(Ranger, "step", step)
    assert workshop.train("train_noisy.py", "r", *STEPS).code == 143
    monkeypatch.undo()

    process = torchrun(workshop, *STEPS)
    wait_for(process, "resumes in epoch 2, after 1 steps")
    wait_for(process, "fold 1 epoch 3/4")
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(ranks[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode and "Run the same command again to resume" in err
    result = workshop.train("train_noisy.py", "r", *STEPS)
    assert result.code == 0 and "noisy fold 1 resumes in epoch" in result.out
    assert_same_up_to_rounding(workshop, alone)


def test_an_error_of_all_processes_is_said_once_and_ends_them(workshop):
    workshop.stage("r", "noisy").mkdir(parents=True)
    process = torchrun(workshop, *TINY, "--folds", "3")
    out, err = process.communicate(timeout=60)
    assert process.returncode and "epoch" not in out
    assert err.count("error: ") == 1 and "error: --folds 3 is not among 1 to 2" in err


def test_more_processes_than_clips_of_a_batch(workshop, expect_error, monkeypatch):
    monkeypatch.setattr("tagging.training.distributed.world_size", lambda: 17)
    monkeypatch.setattr("tagging.training.distributed.broadcast", lambda value: value)
    monkeypatch.setattr("tagging.training.distributed.sync_stop", lambda: None)
    expect_error(workshop.train("train_noisy.py", "r", *TINY), "batch of 16", "17 processes")
