"""tools.download run on a local server with a tiny competition, for the tests of downloads from Zenodo."""
import os
from pathlib import Path

import pytest
from conftest import Workshop
from fake_zenodo import FakeZenodo, competition_files, contents, release

from tools.download import retries

ARCHIVES = competition_files()
CLIPS = {path: data for content in ARCHIVES.values() for path, data in content.items() if "doc" not in path}
TEST, NOISY = "FSDKaggle2019.audio_test.zip", "FSDKaggle2019.audio_train_noisy.z01"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(retries, "backoff", lambda state: 0.0)
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture
def zenodo():
    with FakeZenodo(release(ARCHIVES)).serve() as server:
        yield server


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "fsdkaggle2019"


@pytest.fixture
def download(tmp_path, zenodo, out):
    def call(*words, folder=out):
        return Workshop(tmp_path, folder).call("tools/download/__main__.py", folder, "--record-url",
                                               f"{zenodo.url}/record", *words)
    return call


def assert_complete(result, out: Path, expected=CLIPS) -> None:
    assert result.code == 0, result.out + result.err
    assert contents(out) == expected
    assert not list((out / ".download").glob("*.partial"))
