"""Nothing that was computed is lost: kills, signals, full disks, damaged files, two processes at once.

KILLS=50 python -m pytest tests/test_survive.py -k kill     the sweep; see docs/reliability.md
"""
import json
import os
import pkgutil
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, Workshop
from filelock import FileLock
from safetensors.torch import load_file

from tagging.data.tables import read_scores
from tagging.training.loop import MicroBatches
from tagging.training.optimizer import Ranger

# Two folds of two epochs of several steps, in two cycles.
STEPS = (*TINY, "--noisy.epochs", "1", "1", "--noisy.lrs", "3e-3", "1e-3", "--noisy.sizes", "32", "48",
         "--curated.epochs", "2")
KILLS = int(os.environ.get("KILLS", "3"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, sample) -> Workshop:
    """A run of both stages and a submission that nothing has disturbed."""
    shop = Workshop(tmp_path_factory.mktemp("undisturbed"), sample)
    for script, words in COMMANDS:
        assert shop.call(script, *shop.options("r"), *words(shop)).code == 0
    return shop


COMMANDS = (("train_noisy.py", lambda shop: STEPS), ("train_curated.py", lambda shop: ()),
            ("predict.py", lambda shop: ("--out", shop.folder / "r.csv")))


def assert_same_run(ours: Workshop, theirs: Workshop, stages=("noisy", "curated"), folds=(1, 2)) -> None:
    for stage in stages:
        for fold in folds:
            one, other = (shop.stage("r", stage) / f"fold{fold}" for shop in (ours, theirs))
            mine, yours = load_file(f"{one}.safetensors"), load_file(f"{other}.safetensors")
            assert all(mine[name].equal(yours[name]) for name in yours)
            name = ".predictions.csv"
            assert Path(f"{one}{name}").read_bytes() == Path(f"{other}{name}").read_bytes()
            logs = [[line.split(",")[:5] for line in Path(f"{path}.log.csv").read_text().splitlines()]
                    for path in (one, other)]
            assert logs[0] == logs[1]           # all but the seconds
            assert not Path(f"{one}.checkpoint.safetensors").exists()
    assert not list(ours.folder.rglob("*.tmp")) and not list(ours.folder.rglob("*.partial"))


LONGER = ("--noisy.epochs", "6", "6", "--curated.epochs", "12")      # so that most kills fall into an epoch


def start(shop: Workshop, script: str) -> subprocess.Popen:
    words = [*shop.options("r"), *dict(COMMANDS)[script](shop)]
    words += LONGER if script == "train_noisy.py" else ()
    return subprocess.Popen([sys.executable, "-u", ROOT / script, *map(str, words)], cwd=shop.folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_kill_9_at_random_moments_changes_nothing(workshop, sample, tmp_path_factory):
    reference, span = Workshop(tmp_path_factory.mktemp("reference"), sample), {}
    for script, _ in COMMANDS:
        begun, process = time.monotonic(), start(reference, script)
        said = [time.monotonic() - begun for _ in process.stdout]
        assert process.wait() == 0
        # From the first line, before which libraries are imported, to the last; a prediction says its first one late.
        span[script] = (0.7 if script == "predict.py" else 1) * said[0], said[-1]

    rng, kills, outcomes = random.Random(KILLS), 0, []
    while kills < KILLS:
        shutil.rmtree(workshop.folder / "models", ignore_errors=True)
        shutil.rmtree(workshop.folder / "cache", ignore_errors=True)
        (workshop.folder / "r.csv").unlink(missing_ok=True)
        for script, _ in COMMANDS:
            for _ in range(rng.randint(1, 3)):
                process = start(workshop, script)
                time.sleep(rng.uniform(*span[script]))
                if kills < KILLS and process.poll() is None:
                    process.kill()
                    kills += 1
                    outcomes.append(f"{script}: {(process.stdout.read().splitlines() or ['nothing said yet'])[-1]}")
                process.wait()
            assert start(workshop, script).wait() == 0
        assert_same_run(workshop, reference)
        assert (workshop.folder / "r.csv").read_bytes() == (reference.folder / "r.csv").read_bytes()
    print(f"{kills} kills survived, the last words of each:", *outcomes, sep="\n  ")


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_signal_within_any_step_goes_on_to_the_same_bits(workshop, undisturbed, monkeypatch, step):
    monkeypatch.setattr(Ranger, "step", after(step, Ranger.step, ask_to_stop))
    result = workshop.train("train_noisy.py", "r", *STEPS)
    assert result.code == 143 and "SIGTERM" in result.err and "same command again to resume" in result.err
    monkeypatch.undo()
    result = workshop.train("train_noisy.py", "r", *STEPS)
    assert result.code == 0 and "resumes in epoch" in result.out
    assert_same_run(workshop, undisturbed, ["noisy"])


def after(count: int, function, act):
    """`function`, with `act` called in the middle of its call number `count`."""
    calls = [0]

    def wrapped(*arguments, **options):
        calls[0] += 1
        if calls[0] == count:
            act()
        return function(*arguments, **options)
    return wrapped


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("module, name, count", [
    ("evaluation.predict.WindowPooling", "add", 1), ("evaluation.predict.WindowPooling", "add", 2),
    ("training.checkpoint", "write_weights", 1), ("training.loop", "measure_normalisation", 1),
    ("training.stage", "predict_clips", 1), ("data.waveforms", "load_clip", 7)])
def test_a_signal_elsewhere_goes_on_to_the_same_bits(workshop, undisturbed, monkeypatch, module, name, count):
    place = pkgutil.resolve_name(f"tagging.{module}")
    monkeypatch.setattr(place, name, after(count, getattr(place, name), ask_to_stop))
    assert workshop.train("train_noisy.py", "r", *STEPS).code == 143
    monkeypatch.undo()
    assert workshop.train("train_noisy.py", "r", *STEPS).code == 0
    assert_same_run(workshop, undisturbed, ["noisy"])


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_real_process_stops_in_time_with_the_right_code(workshop, number, code):
    words = [str(word) for word in (*workshop.options("r"), *STEPS, "--noisy.epochs", "500", "500")]
    process = subprocess.Popen([sys.executable, "-u", ROOT / "train_noisy.py", *words], cwd=workshop.folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while "epoch 2/1000" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code and "Traceback" not in err and "to resume" in err
    assert (workshop.stage("r", "noisy") / "fold1.checkpoint.safetensors").exists()


@pytest.mark.parametrize("limit, what", [(200_000, "noisy-"), (9_000_000, "fold1.checkpoint.safetensors")])
def test_a_full_disk_is_one_clear_error_and_nothing_is_hurt(workshop, undisturbed, limit, what):
    """The greatest size of a file stands in for the end of the disk: the same call fails in the same place."""
    words = [*map(str, workshop.options("r")), *STEPS]
    if what.startswith("fold"):
        words += ["--network", "timm:resnet18"]         # its checkpoint is larger than the store of the clips
        shutil.copytree(undisturbed.folder / "cache", workshop.folder / "cache")
    result = subprocess.run([sys.executable, ROOT / "train_noisy.py", *words], cwd=workshop.folder, text=True,
                            capture_output=True, check=False,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert what in result.stderr and "could not be written: File too large" in result.stderr
    left = [path.name for path in workshop.folder.rglob("*") if path.suffix in (".tmp", ".partial", ".safetensors")]
    assert not left


@pytest.mark.parametrize("option", ["--models", "--cache"])
def test_a_folder_that_cannot_be_written(workshop, expect_error, option):
    words = [*workshop.options("r"), *TINY, option, "/proc/nowhere"]
    expect_error(workshop.call("train_noisy.py", *words), "/proc/nowhere", "be written")


def test_a_fold_that_another_process_trains_is_left_to_it(workshop, expect_error):
    folder = workshop.stage("r", "noisy")
    folder.mkdir(parents=True)
    with FileLock(folder / ".fold2.lock"):
        result = workshop.train("train_noisy.py", "r", *TINY)
    expect_error(result, "fold 2", "another process", "--folds")
    assert json.loads((folder / "fold1.json").read_text())["lwlrap"]        # fold 1 is done, and stays


def test_two_processes_on_two_folds_end_in_one_right_table(workshop, undisturbed):
    words = [str(word) for word in (*workshop.options("r"), *STEPS)]
    both = [subprocess.Popen([sys.executable, ROOT / "train_noisy.py", *words, "--folds", str(fold)],
                             cwd=workshop.folder, stdout=subprocess.DEVNULL) for fold in (1, 2)]
    assert [process.wait() for process in both] == [0, 0]
    ours, theirs = (json.loads((shop.stage("r", "noisy") / "scores.json").read_text())
                    for shop in (workshop, undisturbed))
    assert all(ours[name] == theirs[name] for name in ("folds", "mean", "spread", "out_of_fold", "clips"))
    assert_same_run(workshop, undisturbed, ["noisy"])


@pytest.mark.parametrize("module, name", [     # fastai rewrites the message of what a callback raises
    ("training.optimizer.Ranger", "step"), ("training.loop.MicroBatches", "before_batch")])
def test_a_device_without_memory_names_the_flags_that_help(workshop, undisturbed, monkeypatch, expect_error, module,
                                                           name):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
                                     "3.94 GiB of which 1.20 GiB is free. Some more advice. And more.")
    place = pkgutil.resolve_name(f"tagging.{module}")
    monkeypatch.setattr(place, name, after(4, getattr(place, name), full))
    result = workshop.train("train_noisy.py", "r", *STEPS)
    error = expect_error(result, "2.00 GiB", "3.94 GiB", "--micro-batches", "--batch-size")
    assert error.startswith("error: CUDA out of memory")
    monkeypatch.undo()
    assert workshop.train("train_noisy.py", "r", *STEPS).code == 0
    assert_same_run(workshop, undisturbed, ["noisy"])


def test_a_batch_in_parts_gives_the_same_weights_up_to_rounding(workshop):
    """Of a network without batch norm: its statistics are those of the parts."""
    weights = []
    for parts in (1, 2, 3):
        words = [*TINY, "--network", "timm:test_vit", "--folds", 1, "--micro-batches", parts]
        assert workshop.train("train_noisy.py", f"r{parts}", *words).code == 0
        weights.append(load_file(workshop.stage(f"r{parts}", "noisy") / "fold1.safetensors"))
    start = workshop.train("train_noisy.py", "far", *TINY, "--network", "timm:test_vit", "--folds", 1, "--seed", 1)
    assert start.code == 0
    for other in weights[1:]:
        for name, value in weights[0].items():
            torch.testing.assert_close(other[name], value, atol=2e-5, rtol=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_clips(workshop, monkeypatch, expect_error):
    before_batch, calls = MicroBatches.before_batch, [0]

    def poisoned(self):
        calls[0] += self.training
        if self.training and calls[0] == 4:                   # epoch 2, batch 2 of 2
            self.learn.xb = (self.xb[0] * float("nan"),)
        before_batch(self)
    monkeypatch.setattr(MicroBatches, "before_batch", poisoned)
    error = expect_error(workshop.train("train_noisy.py", "r", *STEPS), "epoch 2", "batch 2 of 2", ".wav", "not finite")
    assert error.count(".wav") == 16 and calls[0] == 4
    monkeypatch.undo()
    result = workshop.train("train_noisy.py", "r", *STEPS)
    assert result.code == 0 and "resumes in epoch 2, after 0 steps" in result.out


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "cut", "index", "no index", "empty"])
def test_a_damaged_store_is_named_and_made_again(workshop, undisturbed, damage):
    shutil.copytree(undisturbed.folder / "cache", workshop.folder / "cache")
    (folder,) = (workshop.folder / "cache").glob("noisy-*")
    samples, index = folder / "samples.i16", folder / "index.json"
    whole = samples.read_bytes()
    if damage == "flipped":
        flip(samples, len(whole) // 2)
    elif damage == "cut":
        samples.write_bytes(whole[:-2])
    elif damage == "index":
        index.write_text(index.read_text().replace('"lengths"', '"widths"'))
    elif damage == "no index":
        index.unlink()
    else:
        samples.write_bytes(b"")
    result = workshop.train("train_noisy.py", "r", *STEPS)
    assert result.code == 0 and str(folder) in result.out and "is built again" in result.out
    assert samples.read_bytes() == whole
    assert_same_run(workshop, undisturbed, ["noisy"])


@pytest.mark.parametrize("damage", ["flipped", "header", "cut", "other kind"])
def test_a_damaged_checkpoint_is_named_and_not_used(workshop, undisturbed, monkeypatch, expect_error, damage):
    monkeypatch.setattr(Ranger, "step", after(3, Ranger.step, ask_to_stop))
    assert workshop.train("train_noisy.py", "r", *STEPS).code == 143
    monkeypatch.undo()
    path = workshop.stage("r", "noisy") / "fold1.checkpoint.safetensors"
    whole = path.read_bytes()
    if damage == "flipped":
        flip(path, len(whole) // 2)
    elif damage == "header":
        path.write_bytes(whole.replace(rb'\"step\": 1, \"seconds', rb'\"step\": 0, \"seconds'))
    elif damage == "cut":
        path.write_bytes(whole[:-1000])
    else:
        shutil.copy(undisturbed.stage("r", "noisy") / "fold1.safetensors", path)
    assert path.read_bytes() != whole
    expect_error(workshop.train("train_noisy.py", "r", *STEPS), str(path), "Delete it")
    path.write_bytes(whole)
    assert workshop.train("train_noisy.py", "r", *STEPS).code == 0
    assert_same_run(workshop, undisturbed, ["noisy"])


@pytest.mark.slow
def test_predictions_of_a_resumed_run_are_whole(undisturbed):
    frame = read_scores(undisturbed.folder / "r.csv")
    assert np.isfinite(frame.to_numpy()).all() and len(frame) == 30
