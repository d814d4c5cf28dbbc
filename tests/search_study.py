"""Studies for the tests of the search, with a training script that takes milliseconds."""
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from tagging.recipe import RECIPES
from tagging.search import worker
from tagging.search.commands import Trainings
from tagging.search.limits import read_limits
from tagging.search.space import Knob, Plan, Space
from tagging.search.study import Sweep
from tagging.search.worker import Workers

RECIPE = RECIPES["podium"]
EPOCHS = sum(RECIPE.curated.epochs)

# Like train_curated.py: it locks the fold, resumes at its log, writes a row after each epoch, and the record last.
# The score rises with the epochs up to the sum of 0.5, --weight-decay and --curated.wave-mix / 10.
SCRIPT = """
import fcntl, json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
def option(name, default=None):
    return words[words.index(name) + 1] if name in words else default
epochs, stage = int(option("--curated.epochs", "3")), Path(option("--models"), option("--run"), "curated")
stage.mkdir(parents=True, exist_ok=True)
def replace(name, text):
    (stage / f"{name}.tmp").write_text(text)
    (stage / f"{name}.tmp").replace(stage / name)
def fail(message):
    print(json.dumps({"error": message}), flush=True)
    sys.exit(2)
replace("settings.json", Path(__file__).with_name("settings.json").read_text())
level = 0.5 + float(option("--weight-decay", 0.01)) + float(option("--curated.wave-mix", 0.8)) / 10
behaviour = Path(__file__).with_name("behaviour.py")
if behaviour.exists():
    exec(behaviour.read_text())
for fold in words[words.index("--folds") + 1:]:
    if fold.startswith("--"):
        break
    lock = open(stage / f".fold{fold}.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fail(f"another process is training fold {fold}")
    log = stage / f"fold{fold}.log.csv"
    rows = log.read_text() if log.exists() else "epoch,train_loss,valid_loss,lwlrap,lr,seconds\\n"
    for epoch in range(rows.count("\\n"), epochs + 1):
        time.sleep(float(os.environ.get("EPOCH", "0")))
        with open(stage / "trained.txt", "a") as trained:
            trained.write(f"{fold}.{epoch}\\n")
        rows += f"{epoch},1,1,{level * epoch / epochs},0.1,0.1\\n"
        replace(f"fold{fold}.log.csv", rows)
        print(json.dumps({"message": f"epoch {epoch}", "fold": int(fold), "epoch": epoch}), flush=True)
    replace(f"fold{fold}.json", json.dumps({"lwlrap": level}))
"""


def limits(name: str, **table) -> Knob:
    stage, _, knob = name.rpartition(".")
    own = getattr(getattr(RECIPE, stage) if stage else RECIPE, knob)
    return Knob(name, own, read_limits(f"space.toml, {name}", own, table))


SPACE = Space(RECIPE, (limits("weight_decay", low=1e-4, high=0.1, log=True),
                       limits("curated.wave_mix", low=0.0, high=1.0, step=0.1)))


def make_plan(space: Space = SPACE, folds=(1,), data=("sounds",), startup=5, warmup=0) -> Plan:
    return Plan("podium", space, folds, dict.fromkeys(data, "hash"), {name: Path(name) for name in data}, "scratch",
                startup, warmup)


def make_sweep(folder: Path, trials: int, **plan) -> Sweep:
    return Sweep(folder, make_plan(**plan), trials)


def write_script(folder: Path, monkeypatch) -> Path:
    """Write the training script, and let the workers use it."""
    folder.mkdir(exist_ok=True)
    (folder / "train_curated.py").write_text(SCRIPT)
    made = {"command": "", "date": "2026-11-25", "commit": "", "clean": True, "versions": {}}
    (folder / "settings.json").write_text(json.dumps({
        "schema": 2, "recipe": asdict(RECIPE), "classes": ["a", "b"], "sample_rate": 44_100,
        "initial_weights": "scratch", "made_by": made}))
    monkeypatch.setattr(worker, "ROOT", folder)
    return folder


def make_workers(sweep: Sweep, devices: int = 1, epochs: int = 3) -> Workers:
    words = ("--models", str(sweep.folder), "--curated.epochs", str(epochs), "--folds", *map(str, sweep.plan.folds))
    trainings = Trainings({name: Path(name) for name in sweep.plan.data}, ("curated",), words, ())
    return Workers(sweep, trainings, [torch.device("cpu")] * devices)


def fork(function) -> int:
    """Call a function in another process, and return its id. The libraries are imported there already."""
    process = os.fork()
    if not process:
        code = 1
        try:
            function()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return process
