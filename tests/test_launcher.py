"""Folds side by side, each on a device and in a process of its own."""
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from conftest import ROOT, TINY, Result, Workshop
from filelock import FileLock
from safetensors.torch import load_file

from tagging.training import launcher
from tagging.training.launcher import FoldLauncher
from tagging.utils import interrupts
from tagging.utils.files import read_json

CPU = torch.device("cpu")


def options(shop: Workshop) -> list[str]:
    """Those of all tests, with two devices in place of one."""
    return [*shop.options("r")[:-2], "--devices", "cpu", "cpu", *TINY, "--noisy.epochs", "3"]


def train(shop: Workshop, *words: str) -> Result:
    return shop.call(str(ROOT / "train_noisy.py"), *options(shop), *words)


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory, sample) -> Workshop:
    """The same folds, one after the other. Not to be changed."""
    shop = Workshop(tmp_path_factory.mktemp("in_turn"), sample)
    assert shop.train("train_noisy.py", "r", *TINY, "--noisy.epochs", "3").code == 0
    return shop


def assert_same_run(ours: Workshop, theirs: Workshop) -> None:
    one, other = ours.stage("r", "noisy"), theirs.stage("r", "noisy")
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for fold in (1, 2):
        mine, yours = (load_file(folder / f"fold{fold}.safetensors") for folder in (one, other))
        assert all(mine[name].equal(yours[name]) for name in yours)
    mine, yours = (read_json(folder / "scores.json", "") for folder in (one, other))
    assert all(mine[name] == yours[name] for name in ("folds", "mean", "spread", "out_of_fold", "clips"))


def test_two_devices_give_the_bits_of_one_and_one_table(workshop, in_turn):
    result = train(workshop)
    assert result.code == 0, result.err
    assert_same_run(workshop, in_turn)
    lines = result.out.splitlines()
    for fold in (1, 2):
        assert sum(line.startswith(f"noisy fold {fold} epoch ") and line.endswith(" s") for line in lines) == 3
    assert sum(line.startswith("noisy stage") for line in lines) == 2       # the head and the table
    assert sum("together" in line for line in lines) == 1


def test_a_fold_that_fails_is_named_and_the_others_finish(workshop, in_turn, expect_error):
    folder = workshop.stage("r", "noisy")
    folder.mkdir(parents=True)
    with FileLock(folder / ".fold1.lock"):
        result = train(workshop)
    expect_error(result, "noisy fold 1 failed: another process is training fold 1 of", "same command")
    assert "noisy fold 1 failed on cpu. The other folds continue" in result.out and "together" in result.out
    assert set(read_json(folder / "scores.json", "")["folds"]) == {"2"}
    result = workshop.train("train_noisy.py", "r", *TINY, "--noisy.epochs", "3")       # without --devices this time
    assert result.code == 0 and "fold 2 is finished" in result.out and "noisy fold 2 epoch" not in result.out
    assert_same_run(workshop, in_turn)


def test_a_stopped_run_goes_on_to_the_same_bits(workshop, in_turn):
    words = [sys.executable, ROOT / "train_noisy.py", *options(workshop)]
    process = subprocess.Popen(words, cwd=workshop.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert any("epoch 1/3" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143 and err == "stopped by SIGTERM. Run the same command again to resume.\n"
    assert list(workshop.stage("r", "noisy").glob("*.checkpoint.safetensors"))
    result = train(workshop)
    assert result.code == 0 and "resumes in epoch" in result.out
    assert_same_run(workshop, in_turn)


@pytest.fixture
def stand_in(monkeypatch):
    """Let a line of Python stand in for the training of a fold, with `fold` and `device` in it."""
    def stand_in(code: str) -> None:
        code = "import json, os, signal, sys, time\nfold, device = int(sys.argv[1]), sys.argv[2]\n" + code
        monkeypatch.setattr(launcher, "command", lambda fold, device: [
            sys.executable, "-c", code, str(fold), str(device)])
    return stand_in


def test_a_free_device_takes_the_next_fold(stand_in, capsys):
    stand_in("""
time.sleep(1 if fold == 1 else 0)
print("what other programs print is ignored")
print(json.dumps({"fold": fold, "message": f"curated fold {fold} on {device}"}))
""")
    devices = [CPU, torch.device("cuda:1")]
    assert FoldLauncher("curated", [1, 2, 3, 4], devices, 1).run() == {}
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == [f"curated fold {fold} on {'cpu' if fold == 1 else 'cuda:1'}" for fold in (1, 2, 3, 4)]
    assert lines[-1] == "curated fold 1 on cpu"


def test_the_reason_of_a_failure_is_its_message_its_signal_or_its_traceback(stand_in):
    stand_in("""
if fold == 1:
    print(json.dumps({"error": "the disk is full. Buy another."}))
    sys.exit("a warning")
if fold == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if fold == 3:
    raise ValueError("a bug")
""")
    reasons = FoldLauncher("noisy", [1, 2, 3, 4], [CPU, CPU], 1).run()
    assert reasons.keys() == {1, 2, 3}
    assert reasons[1] == "the disk is full. Buy another." and reasons[2] == "ended by SIGKILL."
    assert reasons[3].startswith("Traceback") and reasons[3].endswith("ValueError: a bug")


@pytest.mark.slow
def test_ctrl_c_reaches_each_process_once_and_no_fold_is_started_after_it(stand_in, tmp_path):
    stand_in(f"""
def note(number, frame):
    open({str(tmp_path)!r} + f"/{{fold}}", "a").write(f"{{number}} ")
    time.sleep(0.5)         # time for a second signal
    sys.exit(130)
signal.signal(signal.SIGINT, note)
print(json.dumps({{"fold": fold, "epoch": 1, "message": "epoch 1/9"}}), flush=True)
time.sleep(60)
""")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.install_handlers()
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(interrupts.Stopped) as stop:
            FoldLauncher("noisy", [1, 2, 3, 4], [CPU, CPU], 9).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stop.value.exit_code == 130
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"1": "2 ", "2": "2 "}


@pytest.mark.parametrize("words, message", [
    (("--devices", "cpu", "cpu", "--device", "cpu"), "--device and --devices exclude each other"),
    (("--devices", "cpu", "tpu"), "--devices tpu cannot be used here"),
    (("--devices", "cpu", "64"), "--devices 64 cannot be used here")])
def test_devices_that_cannot_be_used(workshop, expect_error, words, message):
    expect_error(workshop.call("train_noisy.py", *workshop.options("r")[:-2], *TINY, *words), message)
    assert not workshop.stage("r", "noisy").exists()


def test_processes_on_a_cpu_divide_its_cores_unless_the_user_has(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert launcher.environment(CPU, 3)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in launcher.environment(torch.device("cuda:0"), 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert launcher.environment(CPU, 3)["OMP_NUM_THREADS"] == "5"


def test_the_command_of_a_fold_is_the_users_with_one_fold_and_one_device(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_noisy.py", "--folds", "3", "4", "--data", "d", "--devices", "0", "1",
                                      "--noisy.epochs", "1", "2", "--run", "r"])
    assert launcher.command(4, torch.device("cuda:1"))[1:] == [
        "train_noisy.py", "--data", "d", "--noisy.epochs", "1", "2", "--run", "r", "--folds", "4", "--device", "cuda:1"]
