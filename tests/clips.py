"""Clips of noise on disk, for the tests of what reads them, and the recordings that fastaudio's arrays belong to."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tagging.data import waveforms
from tagging.data.competition import Clips
from tools.fastaudio_parity.arrays import read_arrays

RATE = 16_000
MARGIN = 12_000
PARITY = Path(__file__).parent / "data" / "parity.npz"
STORED = read_arrays(PARITY)        # `make fastaudio-parity` writes them


@pytest.fixture(autouse=True)
def small_margin(monkeypatch):
    """The real margin would write 16 MB for every store."""
    monkeypatch.setattr(waveforms, "MARGIN", MARGIN)


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def write_clips(folder, sounds):
    """Write {name: samples} as 16-bit WAV, and describe them as a part of a competition does."""
    folder.mkdir(exist_ok=True)
    for fname, samples in sounds.items():
        soundfile.write(folder / fname, samples, RATE)
    return clips_of(folder, sounds)


def clips_of(folder, fnames):
    fnames = list(fnames)
    return Clips("curated", folder / "train.csv", pd.Index(fnames), [folder / fname for fname in fnames],
                 np.arange(len(fnames))[:, None])


def whole(store, clip):
    return store.crops(np.array([clip]), np.array([0]), int(store.lengths[clip]))[0]


def folders(cache):
    """All that lies in a cache, hidden or not, but for lock files."""
    return [path for path in cache.iterdir() if path.is_dir()]
