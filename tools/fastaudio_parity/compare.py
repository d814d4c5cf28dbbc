"""Our transforms and fastaudio's on the same sounds, with the same random numbers."""
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

from tagging.data.competition import Clips
from tagging.data.waveforms import WaveStore, open_store, random_starts
from tagging.modeling.augment import TrainingAugmentation
from tagging.modeling.logmel import build_log_mel
from tagging.modeling.model import Model, ModelMetadata
from tagging.modeling.transforms import mask_freq, mask_time, resize
from tagging.recipe import CAPSTONE_EXECUTED
from tagging_lite.audio import RemoveSilence
from tools.fastaudio_parity.sounds import Sound

Reference = dict[str, np.ndarray]       # what fastaudio makes of a sound: the arrays of reference.py

RECIPE = replace(CAPSTONE_EXECUTED, network="xresnet18")        # the network is not used
LARGEST_DRAW = 1 - 2.0**-24         # largest float32 that torch.rand draws
FULL_SCALE = 32768
PLACES = ("first", "middle", "last")
MASK_WIDTHS = (1, 8, 64)


@dataclass
class Row:
    """A line of the table: how far our transform is from fastaudio's."""
    transform: str
    unit: str
    tolerance: float | None             # None: a difference is expected
    differences: dict[str, float] = field(default_factory=dict)     # by sound

    @property
    def exceeded(self) -> bool:
        """Whether a difference is larger than the tolerance, or nothing was measured."""
        values = self.differences.values()
        return self.tolerance is not None and not (values and all(value <= self.tolerance for value in values))


def new_rows() -> dict[str, Row]:
    """Return the rows, by the keys under which `compare` adds differences."""
    return {
        "decoded": Row("AudioTensor.create", "full scale", 0),
        "trim": Row("RemoveSilence, ends padded by reflection", "samples", 0),
        "trim_const": Row("RemoveSilence, ends padded with zeros", "samples", None),
        "starts": Row("ResizeSignal, first and last start", "samples", 0),
        "crop": Row("ResizeSignal, crops and zeros", "full scale", 0),
        "logmel_60": Row("AudioToSpec, top_db 60", "dB", 5e-3),
        "logmel_30": Row("AudioToSpec, top_db 30", "dB", 5e-3),
        "time": Row("MaskTime, 1, 8 and 64 frames", "dB", 1e-4),
        "freq": Row("MaskFreq, 1, 8 and 64 bands", "dB", 1e-4),
        "chain": Row("all of them, a batch in training", "dB", 5e-3),
    }


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of two arrays. It is infinite if their shapes differ, or if it is not a number."""
    if ours.shape != theirs.shape:
        return np.inf
    difference = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(initial=0))
    return np.inf if np.isnan(difference) else difference


def compare(sounds: Sequence[Sound], references: Sequence[Reference], scratch: Path) -> list[Row]:
    """Compare everything except resampling.

    Args:
        references: what reference.py computed, for each sound.
        scratch: folder with the sounds as 000.wav, 001.wav and so on. A wave store of each rate is written there.
    """
    rows = new_rows()
    for rate in sorted({sound.rate for sound in sounds}):
        numbers = [number for number, sound in enumerate(sounds) if sound.rate == rate]
        paths = [scratch / f"{number:03d}.wav" for number in numbers]
        clips = Clips("curated", scratch / "clips.csv", pd.Index([path.name for path in paths]), paths,
                      np.eye(len(paths), dtype=np.float32))
        store = open_store(clips, RemoveSilence(), scratch / "cache")[1]
        chosen = [references[number] for number in numbers]
        for place, (number, theirs) in enumerate(zip(numbers, chosen)):
            found = {**compare_waves(sounds[number], store, place, theirs), **compare_images(store, place, theirs)}
            for key, difference in found.items():
                rows[key].differences[sounds[number].name] = difference
        expected = torch.from_numpy(np.stack([theirs["chain"] for theirs in chosen]))[:, None]
        for number, ours, image in zip(numbers, train_batch(store, chosen), resize(expected, RECIPE.frames)):
            rows["chain"].differences[sounds[number].name] = distance(ours.numpy(), image.numpy())
    return list(rows.values())


def compare_waves(sound: Sound, store: WaveStore, place: int, theirs: Reference) -> dict[str, float]:
    """Compare decoding, trimming and cropping of a sound, which is at `place` in the store."""
    bounds = np.array(RemoveSilence().bounds(sound.wave, sound.rate))
    size, generator = RECIPE.crop_samples(sound.rate), mock.Mock()
    random_starts(store.lengths[[place]], size, generator)
    low, high = (int(limit[0]) for limit in generator.integers.call_args.args)      # it draws below `high`
    starts = [signed(store, place, size, theirs[f"crop_{name}_draw"][2]) for name in PLACES]
    crops = store.crops(np.full(len(starts), place), np.array(starts), size) / FULL_SCALE       # (places, samples)
    return {"decoded": distance(sound.wave / FULL_SCALE, theirs["decoded"]),
            "trim": distance(bounds, theirs["trim"]), "trim_const": distance(bounds, theirs["trim_const"]),
            "starts": distance(np.array([low, high - 1]), np.array([min(starts), max(starts)])),
            "crop": distance(crops, np.stack([theirs[f"crop_{name}"] for name in PLACES]))}


def signed(store: WaveStore, place: int, size: int, drawn: int) -> int:
    """Return the start of a crop. fastaudio draws the number of zeros in front of a short clip: our negative start."""
    return int(-drawn if store.lengths[place] < size else drawn)


def compare_images(store: WaveStore, place: int, theirs: Reference) -> dict[str, float]:
    """Compare log-mel and masks of the first crop of a sound, which is at `place` in the store."""
    crop = torch.from_numpy(store.crops(np.array([place]), np.array([0]), RECIPE.crop_samples(store.sample_rate)))
    found = {}
    for top_db in (60, 30):
        image = build_log_mel(replace(RECIPE, top_db=float(top_db)), store.sample_rate)(crop)
        found[f"logmel_{top_db}"] = distance(image[0, 0].numpy(), theirs[f"logmel_{top_db}"])
    image = torch.from_numpy(theirs["logmel_60"])[None, None]
    for key, mask, bins in (("time", mask_time, image.shape[3]), ("freq", mask_freq, image.shape[2])):
        found[key] = 0.0
        for width in MASK_WIDTHS:
            for name in PLACES:
                drawn = theirs[f"{key}_{width}_{name}_draw"][2]
                share = {"first": 0.0, "middle": share_of(drawn, bins - width), "last": LARGEST_DRAW}[name]
                with mock.patch.object(torch, "rand", return_value=torch.full((2, 1, 1), share)):
                    masked = mask(image, (width, width), torch.Generator())
                found[key] = max(found[key], distance(masked[0, 0].numpy(), theirs[f"{key}_{width}_{name}"]))
    return found


def share_of(drawn: int, last: int) -> float:
    """Return what `torch.rand` must draw so that a mask begins at bin `drawn` of 0 to `last`."""
    return (drawn + 0.5) / (last + 1)


def train_batch(store: WaveStore, references: Sequence[Reference]) -> torch.Tensor:
    """Make the images of a training batch of all sounds of a store, with fastaudio's draws.

    Returns:
        (batch, 1, frames, frames). At some sample rates, such as 8 kHz, a crop has fewer frames than asked for, and the
        images are resized.
    """
    rate, count = store.sample_rate, len(store)
    augmentation = TrainingAugmentation(Model(ModelMetadata("noisy", 1, tuple(map(str, range(count))), rate, RECIPE)))
    draws = np.stack([theirs["chain_draws"] for theirs in references])                      # (batch, 3)
    starts = np.array([signed(store, place, augmentation.crop, drawn) for place, drawn in enumerate(draws[:, 0])])
    waves = torch.from_numpy(store.crops(np.arange(count), starts, augmentation.crop))
    width = RECIPE.mask_width[1]
    shares = [torch.tensor([share_of(drawn, bins - width) for drawn in column]).expand(2, count).unsqueeze(2)
              for column, bins in zip(draws[:, 1:].T, references[0]["chain"].shape[::-1])]
    with mock.patch.object(torch, "rand", side_effect=shares):
        images, _ = augmentation.images([(waves, torch.eye(count))], RECIPE.frames, torch.Generator())
    return images
