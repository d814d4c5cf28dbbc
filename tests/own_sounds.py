"""A user's own sounds, in folders or listed in a csv file, for the tests of tools.make_competition."""
import pandas as pd
import pytest
import soundfile
from clips import RATE, noise
from conftest import Workshop

TOOL = "tools/make_competition.py"


def sound(seed, seconds=0.3, rate=RATE, channels=1):
    wave = noise((round(seconds * rate), channels), seed)
    return wave if channels > 1 else wave[:, 0]


def write(path, samples, rate=RATE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **how)


def table(path):
    return pd.read_csv(path, index_col=0, keep_default_na=False)


@pytest.fixture
def shop(tmp_path) -> Workshop:
    """A folder whose `data` is the competition to be made."""
    return Workshop(tmp_path, tmp_path / "out")


@pytest.fixture
def folders(tmp_path):
    """Six clips of each of two classes, in all the ways in which people keep them."""
    for number in range(5):
        write(tmp_path / f"own/Dog/rec {number}.wav", sound(number))
        write(tmp_path / f"own/Möwe, Ruf/{number}.flac", sound(10 + number, channels=2))
    write(tmp_path / "own/Dog/field 2024/ü.MP3", sound(20).astype(float) / 65536)
    write(tmp_path / "own/Möwe, Ruf/hoch.ogg", sound(21, rate=48_000), 48_000)
    return tmp_path / "own"


@pytest.fixture
def listed(tmp_path):
    """30 clips with one label or two, three of each recording, and the csv that names them."""
    rows = []
    for number in range(30):
        write(tmp_path / f"clips/{number:02}.wav", sound(number, 0.1))
        labels = ("A", "B", "C", "A,B", "B,C", "A,C")[number % 6]
        rows.append((f"{number:02}.wav", labels, f"rec{number // 3}"))
    pd.DataFrame(rows, columns=["fname", "labels", "recording"]).to_csv(tmp_path / "own.csv", index=False)
    return ["--csv", tmp_path / "own.csv", "--clips", tmp_path / "clips"]
