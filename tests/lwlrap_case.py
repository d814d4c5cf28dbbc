"""A submission and its truth on disk, and lwlrap.py run on them."""
import numpy as np
import pandas as pd
import pytest
from conftest import Result, Workshop, weighted_lrap

from tagging.data import csv_files
from tagging.data.tables import join_labels

CLASSES = ["Bark", "Meow", "Chink, clink", "Möwe", "Tap water", "Never heard"]     # the last one has no label


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Score in the folder of the test and in this process, which is quicker."""
    def call(*arguments) -> Result:
        monkeypatch.setattr(csv_files, "said", set())
        monkeypatch.chdir(tmp_path)
        return Workshop(tmp_path, tmp_path).call("lwlrap.py", *arguments)
    return call


def expected_line(truth, scores):
    return f"lwlrap {weighted_lrap(truth, scores.loc[truth.index, truth.columns]):.5f}"


def write_classes(folder, classes=CLASSES):
    """Write a sample submission beside the truth, as in Kaggle's layout."""
    pd.DataFrame([[0] * len(classes)], pd.Index(["x.wav"], name="fname"), classes).to_csv(
        folder / "sample_submission.csv")


def labels_of(truth):
    return [join_labels([name for name in CLASSES if row[name]]) for _, row in truth.iterrows()]


@pytest.fixture
def case(tmp_path):
    """A submission with ties, and its truth as a frame; both in the same order."""
    rng = np.random.default_rng(19)
    fnames = pd.Index([f"{number:08x}.wav" for number in range(40)], name="fname")
    truth = pd.DataFrame((rng.random((40, 6)) < 0.3).astype(int), fnames, CLASSES)
    truth["Never heard"] = 0
    truth.iloc[0, :2] = 1                       # one row with two labels
    truth.iloc[1] = 0                           # one without any
    scores = pd.DataFrame(rng.integers(0, 20, (40, 6)) / 20 + truth / 5, fnames, CLASSES)
    scores.to_csv(tmp_path / "submission.csv")
    write_classes(tmp_path)
    return truth, scores


def write_labels(path, truth, **columns):
    pd.DataFrame({"labels": labels_of(truth), **columns}, truth.index).to_csv(path)
