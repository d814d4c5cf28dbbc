"""A tiny competition, and the real scripts run on it."""
import os

# The tensors of the tests are small: threads would only get into each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import hashlib
import io
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from tagging.reporting import sections
from tools.sample_competition import write_competition

sections.WORST = 2      # clips in a report. Drawing twelve takes most of the time of a small run.

# pytest explains failed assertions in these modules too.
pytest.register_assert_rewrite("competition_folder", "csv_reader", "downloads", "hostile", "sounds_of_formats")

ROOT = Path(__file__).resolve().parents[1]

# Two folds, one epoch and one of timm's test networks: seconds a run, through every line of the real path.
TINY = ("--recipe", "smoke", "--network", "timm:test_resnet", "--fold-count", "2", "--mels", "32", "--frames", "32",
        "--noisy.epochs", "1", "--noisy.sizes", "32", "--curated.epochs", "1", "--curated.sizes", "32")

# The same with both sets in one stage.
JOINT = ("--recipe", "podium", "--network", "timm:test_resnet", "--fold-count", "2", "--mels", "32", "--frames", "32",
         "--batch-size", "16", "--curated.epochs", "1", "--curated.sizes", "32")


SLOW_FIXTURES = {"workshop", "trained", "exported"}       # they run the scripts


def pytest_collection_modifyitems(items):
    """Tests that run the scripts are slow; a few others are marked by hand. `make quick` skips them."""
    for item in items:
        if SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker("slow")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Workshop:
    """A folder to work in, with the options that keep everything inside it."""
    folder: Path
    data: Path

    def options(self, run: str) -> list[str]:
        return ["--data", str(self.data), "--run", run, "--models", str(self.folder / "models"),
                "--cache", str(self.folder / "cache"), "--device", "cpu"]

    def stage(self, run: str, stage: str) -> Path:
        return self.folder / "models" / run / stage

    def call(self, script: str, *words: str) -> Result:
        """Run a script or tool in this process: quicker than a new one, and the same code but for `sections.WORST`."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        argv, sys.argv = sys.argv, [script, *map(str, words)]
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.argv = argv
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Result(code, out.getvalue(), err.getvalue())

    def train(self, script: str, run: str, *words: str) -> Result:
        return self.call(script, *self.options(run), *words)

    def predict(self, run: str, *words: str) -> Result:
        return self.call("predict.py", *self.options(run), *words)


def weighted_lrap(truth: pd.DataFrame, scores: pd.DataFrame) -> float:
    truth = truth.to_numpy()
    return label_ranking_average_precision_score(truth, scores.to_numpy(), sample_weight=truth.sum(1))


def classes_of(shop: Workshop) -> list[str]:
    return list(pd.read_csv(shop.data / "sample_submission.csv", nrows=0).columns[1:])


def digests(folder: Path) -> dict[str, str]:
    """The checksum of every file in a folder."""
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*") if path.is_file()}


def mislabel_a_noisy_clip(shop: Workshop) -> None:
    """Give the first one another label in the csv."""
    table = pd.read_csv(shop.data / "train_noisy.csv")
    table.loc[0, "labels"] = next(name for name in classes_of(shop) if name not in table.labels[0])
    table.to_csv(shop.data / "train_noisy.csv", index=False)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A competition of 10 classes, 45 curated, 90 noisy and 30 test clips. Not to be changed."""
    out = tmp_path_factory.mktemp("data") / "sample"
    write_competition(out, scale=0.3)
    return out


@pytest.fixture
def workshop(tmp_path, sample) -> Workshop:
    return Workshop(tmp_path, sample)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, sample) -> Workshop:
    """Run `first`, both stages, by the scripts' own command lines in processes of their own. Not to be changed."""
    shop = Workshop(tmp_path_factory.mktemp("trained"), sample)
    for script, words in (("train_noisy.py", TINY), ("train_curated.py", ())):
        subprocess.run([sys.executable, ROOT / script, *shop.options("first"), *words], check=True, cwd=shop.folder,
                       capture_output=True, text=True)
    return shop


@pytest.fixture(scope="session")
def exported(trained) -> Path:
    """Run `first`, all folds, as ONNX, checked against torch on the test clips."""
    path = trained.folder / "model.onnx"
    result = trained.call("tools/export.py", "--run", "first", "--models", trained.folder / "models", "--out", path,
                          "--check", trained.data / "test")
    assert result.code == 0, result.err
    return path


@pytest.fixture(autouse=True)
def log_everything(caplog):
    """The library logs, and scripts show it; `caplog` has it in tests that call the library."""
    caplog.set_level("INFO", "tagging")


@pytest.fixture
def expect_error() -> Callable[..., str]:
    """Check that a result is one clear error, and that it names what it should."""
    def check(result: Result, *words: str) -> str:
        assert result.code == 2, result.out + result.err
        assert result.err.startswith("error: ") and "Traceback" not in result.err
        for word in words:
            assert word in result.err
        return result.err
    return check
