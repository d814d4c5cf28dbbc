"""Run fastaudio's own transforms on clips. This script runs in an environment of its own: see requirements.txt.

    .venv-fastaudio/bin/python tools/fastaudio_parity/reference.py CLIPS OUT.npz

CLIPS is a folder of mono 16-bit WAV files. CLIPS/resample.json names each file and the sample rates to resample it to.
`python -m tools.fastaudio_parity` writes the folder, calls this script, and compares OUT.npz with this repository. The
settings are those of the starting system, and nothing of this repository is imported.
"""
# mypy: ignore-errors
# The packages of that environment are not those that mypy sees.
import argparse
import importlib.metadata
import json
import platform
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import matplotlib

matplotlib.use("Agg")
# librosa 0.9 and fastaudio import these by names that newer versions of their packages no longer have.
matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap
import librosa.display  # noqa: E402

librosa.display.waveplot = librosa.display.waveshow

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchaudio  # noqa: E402
from fastai.data.block import DataBlock  # noqa: E402
from fastaudio.augment import preprocess  # noqa: E402
from fastaudio.augment.all import MaskFreq, MaskTime, RemoveSilence, Resample, ResizeSignal  # noqa: E402
from fastaudio.core.all import AudioBlock, AudioSpectrogram, AudioTensor, SpectrogramTransformer  # noqa: E402

PACKAGES = ("fastaudio", "fastai", "fastcore", "torch", "torchaudio", "librosa", "numpy", "scipy")
SECONDS, MELS = 2, 128
MASK_SIZES = (1, 8, 64)         # the starting system's is 8
TOP_DBS = (60, 30)              # the starting system's is 60
# Choices of a whole number from the first to the last, both included.
PLACES: dict[str, Callable[[int, int], int]] = {
    "first": lambda first, last: first, "middle": lambda first, last: (first + last) // 2,
    "last": lambda first, last: last}


@contextmanager
def draws(choose: Callable[[int, int], int] = random.randint) -> Iterator[list[tuple[int, int, int]]]:
    """Replace `random.randint`, from which fastaudio draws all places. List the first, last and drawn number."""
    drawn = []

    def draw(first: int, last: int) -> int:
        drawn.append((first, last, choose(first, last)))
        return drawn[-1][2]
    with mock.patch.object(random, "randint", draw):
        yield drawn


def remove_silence(audio: AudioTensor, pad_mode: str) -> tuple[AudioTensor, tuple[int, int]]:
    """Trim a clip, and return the first sample that is kept and the one after the last.

    librosa 0.8, with which the starting system ran, padded the ends of a clip by reflection before it computed the
    energy of frames. librosa 0.9 pads with zeros ("constant"), and `split` has no option for it.
    """
    splits = [np.array([[0, audio.nsamples]])]

    def split(*args, **options) -> np.ndarray:
        splits.append(librosa.effects.split(*args, **options))
        return splits[-1]
    rms = partial(librosa.feature.rms, pad_mode=pad_mode)
    with mock.patch.object(librosa.feature, "rms", rms), mock.patch.object(preprocess, "split", split):
        transform = RemoveSilence(threshold=20, pad_ms=20)
        trimmed = transform(AudioTensor(audio.clone(), audio.sr))
    pad = int(transform.pad_ms / 1000 * audio.sr) if len(splits) > 1 else 0
    first, last = max(0, splits[-1][0, 0] - pad), min(audio.nsamples, splits[-1][-1, -1] + pad)
    if not torch.equal(torch.Tensor(trimmed), torch.Tensor(audio)[:, first:last]):
        sys.exit("RemoveSilence keeps other samples than its splits say. Is this fastaudio 1.0.2?")
    return trimmed, (int(first), int(last))


def to_spectrogram(rate: int, top_db: int):
    """Build AudioToSpec with the settings of the starting system.

    They are for 44.1 kHz. At another rate the lengths have the same duration, and a crop 128 frames.
    """
    scale = rate / 44_100
    return SpectrogramTransformer(mel=True, to_db=True)(
        sample_rate=rate, n_fft=2 * round(10 * MELS * scale), win_length=round(1024 * scale),
        hop_length=SECONDS * rate // MELS + 1, n_mels=MELS, f_min=20, f_max=min(20_000, rate / 2), top_db=top_db)


def run_transforms(path: Path, rates: list[int]) -> dict[str, np.ndarray]:
    """Run each transform on a clip. Random numbers are forced to the first, the middle and the last possible one."""
    audio = AudioTensor.create(path)
    trimmed, bounds = remove_silence(audio, "reflect")
    found = {"decoded": audio.numpy()[0], "trim": np.array(bounds),
             "trim_const": np.array(remove_silence(audio, "constant")[1])}
    for place, choose in PLACES.items():
        with draws(choose) as drawn:
            crop = ResizeSignal(1000 * SECONDS)(AudioTensor(trimmed.clone(), audio.sr))
        found[f"crop_{place}"] = crop.numpy()[0]
        found[f"crop_{place}_draw"] = np.array(drawn[0] if drawn else (0, 0, 0))
    crop = AudioTensor(torch.from_numpy(found["crop_first"])[None], audio.sr)
    images = {top_db: to_spectrogram(audio.sr, top_db)(crop) for top_db in TOP_DBS}
    for top_db, image in images.items():
        found[f"logmel_{top_db}"] = image.numpy()[0]
    for name, kind in (("time", MaskTime), ("freq", MaskFreq)):
        for size in MASK_SIZES:
            for place, choose in PLACES.items():
                with draws(choose) as drawn:
                    masked = kind(num_masks=1, size=size)(images[TOP_DBS[0]].clone())
                found[f"{name}_{size}_{place}"] = masked.numpy()[0]
                found[f"{name}_{size}_{place}_draw"] = np.array(drawn[0])
    found["masks"] = place_masks(images[TOP_DBS[0]])
    wave = torch.Tensor(audio)
    for rate in rates:
        found[f"fastaudio_{rate}"] = Resample(rate)(AudioTensor(wave.clone(), audio.sr)).numpy()[0]
        found[f"torchaudio_{rate}"] = torchaudio.functional.resample(wave, audio.sr, rate).numpy()[0]
    return found


def place_masks(image: AudioSpectrogram) -> np.ndarray:
    """Return the first bin and the fill value, dB, of a time mask and then a frequency mask of 8 bins: (2, 2)."""
    masks = []
    for kind in (MaskTime, MaskFreq):
        with draws() as drawn:
            image = kind(num_masks=1, size=8)(image.clone())
        first = drawn[0][2]
        masks.append([first, float(image[0, 0, first] if kind is MaskTime else image[0, first, 0])])
    return np.array(masks)


def run_chain(paths: list[Path], rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Load clips of one sample rate in one batch, as the starting system did in training.

    Yields:
        the image of each clip (mels, frames), and the three numbers that were drawn for it: the start of the crop, of
        the time mask and of the frequency mask.
    """
    begins = []

    def begin(audio: AudioTensor) -> AudioTensor:
        begins.append(len(drawn))
        return audio
    block = DataBlock(blocks=AudioBlock(sample_rate=None), item_tfms=[      # None keeps the rate
        begin, RemoveSilence(threshold=20), ResizeSignal(1000 * SECONDS), to_spectrogram(rate, TOP_DBS[0]),
        MaskTime(num_masks=1, size=8), MaskFreq(num_masks=1, size=8)])
    rms = partial(librosa.feature.rms, pad_mode="reflect")
    with mock.patch.object(librosa.feature, "rms", rms), draws() as drawn:
        loaders = block.dataloaders(paths, bs=len(paths), num_workers=0)
        images = loaders.test_dl(paths).one_batch()[0].numpy()[:, 0]            # (clips, mels, frames)
    begins = begins[-len(paths):]
    for image, begin, end in zip(images, begins, [*begins[1:], len(drawn)]):
        values = [value for _, _, value in drawn[begin:end]]
        # Each mask draws twice, and uses the first number. A clip as long as the crop draws no start.
        *start, time, _, freq, _ = values
        yield image, np.array([*(start or [0]), time, freq])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)        # the same sums on every machine
    random.seed(0)
    resampled = json.loads((args.clips / "resample.json").read_text())
    arrays = {}
    by_rate = defaultdict(list)
    for name, rates in resampled.items():
        path = args.clips / name
        by_rate[torchaudio.info(path).sample_rate].append(path)
        arrays |= {f"{path.stem}_{key}": value for key, value in run_transforms(path, rates).items()}
    for rate, paths in by_rate.items():
        for path, (image, drawn) in zip(paths, run_chain(paths, rate)):
            arrays |= {f"{path.stem}_chain": image, f"{path.stem}_chain_draws": drawn}
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
    np.savez(args.out, versions=json.dumps(versions), **arrays)


if __name__ == "__main__":
    main()
