"""A small model without torch, sounds to tag with it, and its command line: python tests/archive_case.py PATH..."""
import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tagging_lite.command import add_arguments, tag_paths
from tagging_lite.tagger import ModelInfo, Tagger

RATE = 8000
INFO = ModelInfo(("low", "high", "noisy"), RATE, RATE, 0.5, 60.0)


def features(windows):
    """Logits of three classes from crossings and energy, and then two features."""
    time.sleep(float(os.environ.get("SLOW", "0")))      # seconds a batch, so that a test can interrupt it
    crossings = (np.diff(np.sign(windows.astype(int)), axis=1) != 0).mean(1)
    energy = np.abs(windows.astype(float)).mean(1) / 32768
    columns = np.stack([0.3 - crossings, crossings - 0.3, energy, crossings, energy], 1).astype(np.float32) * 5
    return np.stack([columns, 2 * columns], 1)          # two models


def logits(windows):
    return features(windows)[..., :3]


def load(batch=5):
    return Tagger(INFO, logits, features, batch=batch, checksum="tones")


def load_slowly(seconds):
    """Load the tagger, which then takes so long for a batch."""
    os.environ["SLOW"] = str(seconds)
    return load()


def write_sounds(folder, count, seconds=1.0, suffix="wav", rate=RATE):
    """Write tones of many pitches. Return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        samples = int(rate * seconds * rng.uniform(0.3, 2))
        wave = np.sin(rng.uniform(100, 9000) / rate * np.arange(samples)) * rng.uniform(0.1, 0.9)
        soundfile.write(folder / f"{number:04}.{suffix}", wave, rate)
    return [str(path) for path in sorted(folder.iterdir())]


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def call(*words):
    """Tag in this process. Return the exit code."""
    return tag_paths(load, arguments(*words))


def main():
    sys.exit(call(*sys.argv[1:]))


if __name__ == "__main__":
    main()
