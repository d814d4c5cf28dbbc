"""A synthetic competition with the number and the lengths of the clips of Freesound Audio Tagging 2019.

The sounds are bursts of noise. The clips are hard links to a few hundred sound files of each part, so that 80 hours of
clips need little time and space. Decoded clips need as much space as the real ones.
"""
import os
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from tagging.data.competition import Competition, open_competition
from tagging.utils.files import new_folder

RATE = 44_100
COUNTS = {"noisy": 19_815, "curated": 4_970, "test": 3_361}      # clips; test is the private leaderboard
CLASSES = 80
FILES = 400             # largest number of different sound files of each part


def clip_count(part: str, scale: float) -> int:
    """Return the number of clips of a part, at least one for each class."""
    return max(CLASSES, round(COUNTS[part] * scale))


def draw_seconds(part: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the lengths of clips in seconds.

    Noisy clips have 1 to 16 s, mostly 15 to 16 s, and 14.6 s on average. Curated and test clips have 0.3 to 30 s, and
    7.6 and 10.4 s on average.
    """
    if part == "noisy":
        return np.where(rng.random(count) < 0.88, rng.uniform(15, 16, count), rng.uniform(1, 15, count))
    mean = {"curated": 7.6, "test": 10.4}[part]
    share = (mean - 0.3) / 29.7
    return 0.3 + 29.7 * rng.beta(0.8, 0.8 / share - 0.8, count)         # the mean of a beta(a, b) is a / (a + b)


def noise_in_bursts(seconds: int, rng: np.random.Generator) -> np.ndarray:
    """Return (samples,) int16. Each half second has its own loudness within a range of 30 dB."""
    loudness = np.repeat(3000 * 10 ** rng.uniform(-1.5, 0, 2 * seconds), RATE // 2)
    return (rng.standard_normal(len(loudness)) * loudness).clip(-32768, 32767).astype(np.int16)


def make_competition(out: Path, scale: float) -> Competition:
    """Write the competition in Kaggle's layout to the folder `out`. An existing one is opened."""
    if out.exists():
        return open_competition(out)
    rng = np.random.default_rng(2019)
    block = noise_in_bursts(60, rng)
    classes = [f"Class_{number:02}" for number in range(CLASSES)]
    with new_folder(out) as folder:
        for part in COUNTS:
            count, home = clip_count(part, scale), folder / (part if part == "test" else f"train_{part}")
            home.mkdir()
            fnames = [f"{part}{number:05}.wav" for number in range(count)]
            lengths = (draw_seconds(part, min(count, FILES), rng) * RATE).astype(int)
            for fname, length in zip(fnames, lengths):
                start = rng.integers(len(block) - length)
                soundfile.write(home / fname, block[start:start + length], RATE, subtype="PCM_16")
            for number in range(FILES, count):
                os.link(home / fnames[number % FILES], home / fnames[number])
            if part == "test":
                pd.DataFrame(0, pd.Index(fnames, name="fname"), classes).to_csv(folder / "sample_submission.csv")
            else:
                pd.DataFrame({"fname": fnames, "labels": np.resize(classes, count)}).to_csv(
                    folder / f"train_{part}.csv", index=False)
    return open_competition(out)
