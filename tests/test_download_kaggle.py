"""tools.download from Kaggle. kagglehub is real, and its download is replaced by one without a network."""
import os
import sys
from pathlib import Path

import kagglehub
import pytest
import requests
from conftest import Workshop
from fake_zenodo import contents, stop_at, zipped
from kagglehub.exceptions import DataCorruptionError, KaggleApiHTTPError, UnauthenticatedError

from tools.download import kaggle as kaggle_part
from tools.download import retries, unpack

CLIPS = {"train_curated": ["a.wav", "b.wav"], "train_noisy": ["c.wav", "d.wav", "e.wav"], "test": ["f.wav"]}
TABLES = {"train_curated.csv": b"fname,labels\na.wav,Bark\nb.wav,Meow\n",
          "train_noisy.csv": b"fname,labels\nc.wav,Bark\nd.wav,Meow\ne.wav,\"Bark,Meow\"\n",
          "sample_submission.csv": b"fname,Bark,Meow\nf.wav,0,0\n"}
EXPECTED = TABLES | {f"{folder}/{name}": name.encode() * 50 for folder, names in CLIPS.items() for name in names}


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "fsdkaggle2019"


class FakeKaggle:
    """kagglehub's download: `shape` says how the archive of the competition holds the clips."""

    def __init__(self):
        self.shape, self.errors, self.calls = "zips", [], 0

    def __call__(self, handle: str) -> str:
        assert handle == "freesound-audio-tagging-2019"
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        folder = Path(os.environ["KAGGLEHUB_CACHE"], "competitions", handle)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in TABLES.items():
            (folder / name).write_bytes(data)
        for part, names in CLIPS.items():
            prefix = f"{part}/" if self.shape == "zips with folders" else ""
            if self.shape == "folders":
                (folder / part).mkdir(exist_ok=True)
                for name in names:
                    (folder / part / name).write_bytes(EXPECTED[f"{part}/{name}"])
            else:
                (folder / f"{part}.zip").write_bytes(zipped({prefix + name: EXPECTED[f"{part}/{name}"]
                                                             for name in names}))
        return str(folder)


@pytest.fixture
def kaggle(monkeypatch) -> FakeKaggle:
    fake = FakeKaggle()
    monkeypatch.setattr(kagglehub, "competition_download", fake)
    monkeypatch.setattr(retries, "backoff", lambda state: 0.0)
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(kaggle_part, "SPACE", 0)
    monkeypatch.setenv("KAGGLEHUB_CACHE", "to be replaced")
    return fake


@pytest.fixture
def download(tmp_path, out, kaggle):
    return lambda *words: Workshop(tmp_path, out).call("tools/download/__main__.py", out, "--from", "kaggle", *words)


def assert_complete(result, out: Path) -> None:
    assert result.code == 0, result.out + result.err
    assert contents(out) == EXPECTED
    assert not (out / ".download/kaggle").exists()


@pytest.mark.parametrize("shape", ["zips", "zips with folders", "folders"])
def test_the_whole_competition(download, kaggle, out, shape):
    kaggle.shape = shape
    result = download()
    assert_complete(result, out)
    for line in ("curated: all 2 clips", "noisy: all 3 clips", "test: all 1 clips"):
        assert line in result.out
    assert_complete(download(), out)
    assert kaggle.calls == 1


def test_a_lost_clip_is_downloaded_again(download, kaggle, out):
    download()
    (out / "train_noisy/d.wav").unlink()
    result = download()
    assert "1 of 9 files are missing" in result.out and "train_noisy/d.wav" in result.out
    assert_complete(result, out)
    assert kaggle.calls == 2


def test_files_of_the_user_are_set_aside(download, out):
    out.mkdir()
    (out / "train_curated.csv").write_text("fname,labels\na.wav,Meow\n")
    result = download()
    assert_complete(result, out)
    assert "differed from the download" in result.out
    assert (out / ".download/replaced/train_curated.csv").read_text().endswith("a.wav,Meow\n")


def http_error(status: int) -> KaggleApiHTTPError:
    response = requests.Response()
    response.status_code = status
    return KaggleApiHTTPError(f"{status} Client Error.", response=response)


RULES = "https://www.kaggle.com/c/freesound-audio-tagging-2019/rules"


@pytest.mark.parametrize("error, words", [
    (UnauthenticatedError(), ["there is no token", "https://www.kaggle.com/settings", "KAGGLE_API_TOKEN"]),
    (http_error(401), ["does not accept your token", "https://www.kaggle.com/settings"]),
    (http_error(403), ["has not accepted the rules", RULES, "run the same command again"]),
    (http_error(404), ["404", "--from zenodo"]),
    (http_error(418), ["418"]),
    (ValueError("Invalid Kaggle credentials file at /home/x/kaggle.json"), ["/home/x/kaggle.json", "settings"]),
    (DataCorruptionError("The X-Goog-Hash header"), ["DataCorruptionError", "X-Goog-Hash"]),
    (OSError(28, "No space left on device"), ["No space left on device", "free space"])])
def test_errors_are_explained(download, kaggle, out, expect_error, error, words):
    kaggle.errors = [error]
    expect_error(download(), *words)
    assert kaggle.calls == 1
    assert_complete(download(), out)


@pytest.mark.parametrize("error", [requests.ConnectionError("reset"), requests.Timeout("slow"), http_error(429),
                                   http_error(503), requests.exceptions.ChunkedEncodingError("broken")])
def test_a_broken_connection_is_tried_again(download, kaggle, out, expect_error, error):
    kaggle.errors = [error] * 2
    result = download()
    assert "Attempt 3 of 6" in result.out
    assert_complete(result, out)


def test_a_connection_that_always_breaks(download, kaggle, out, expect_error):
    kaggle.errors = [requests.ConnectionError("no route")] * 99
    expect_error(download(), "connection to Kaggle failed", "no route", "HTTPS_PROXY", "to resume")
    assert kaggle.calls == 6


def test_files_that_kaggle_provides_elsewhere_stay_there(download, kaggle, out, expect_error, monkeypatch, tmp_path):
    (tmp_path / "input").mkdir()
    monkeypatch.setattr(kagglehub, "competition_download", lambda handle: str(tmp_path / "input"))
    expect_error(download(), f"use --data {tmp_path / 'input'}")


def test_without_kagglehub(download, out, expect_error, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    expect_error(download(), "needs the package kagglehub", "pip install -r requirements-tools.txt")


def test_a_disk_that_may_be_too_small_is_announced(download, monkeypatch, out):
    monkeypatch.setattr(kaggle_part, "SPACE", 10**18)
    result = download()
    assert "note: the download and its files take up to about 1000000000.0 GB" in result.out
    assert_complete(result, out)


@pytest.mark.slow
@pytest.mark.parametrize("place, name, call", [
    (kaggle_part, "move", 2), (kaggle_part, "unpack", 2), (unpack, "write_member", 3),
    (kaggle_part, "write_record", 1), (kaggle_part, "write_record", 3), (kaggle_part, "write_record", 5),
    (kaggle_part, "clean", 1)])
@pytest.mark.parametrize("shape", ["zips", "folders"])
def test_a_signal_at_any_step(download, kaggle, out, monkeypatch, place, name, call, shape):
    kaggle.shape = shape
    with stop_at(monkeypatch, place, name, call) as calls:
        result = download()
    assert result.code == (143 if len(calls) >= call else 0)
    assert contents(out).items() <= EXPECTED.items()
    assert_complete(download(), out)
    assert kaggle.calls <= 2
