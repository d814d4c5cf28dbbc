"""A pipeline that handles each clip by itself on the CPU, like fastaudio. It serves only for comparison."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.utils.data import Dataset
from torchaudio.transforms import AmplitudeToDB, FrequencyMasking, MelSpectrogram, TimeMasking

from tagging.data.waveforms import random_starts
from tagging.modeling.logmel import build_log_mel
from tagging.modeling.transforms import resize
from tagging.recipe import Recipe
from tagging_lite.audio import make_trim, trim_silence
from tagging_lite.windows import cut_windows
from tools.benchmark.sounds import RATE


class ClipByClip(Dataset):
    """Sound files as images of one random crop each.

    Each file is decoded, trimmed, cut, converted to a log-mel image, masked and resized.

    Args:
        size: side of the image, pixels.
    """

    def __init__(self, paths: Sequence[Path], recipe: Recipe, size: int):
        self.paths, self.trim, self.size = paths, make_trim(recipe.trim_db), size
        self.samples = recipe.crop_samples(RATE)
        ours = build_log_mel(recipe, RATE)
        self.front_end = torch.nn.Sequential(
            MelSpectrogram(RATE, ours.n_fft, len(ours.window), ours.hop, recipe.f_min, recipe.f_max,
                           n_mels=recipe.mels), AmplitudeToDB(top_db=recipe.top_db))
        widest = recipe.mask_width[1] + 1       # torchaudio's masks are narrower than this
        self.masks = TimeMasking(widest), FrequencyMasking(widest)
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """(1, size, size)."""
        wave, rate = soundfile.read(self.paths[index], dtype="int16")
        wave = trim_silence(wave, rate, self.trim)
        start = random_starts(np.array([len(wave)]), self.samples, self.rng)                # (1,)
        crop = cut_windows(wave, start, self.samples)                                       # (1, samples)
        image = self.front_end(torch.from_numpy(crop).float() / 32768)                      # (1, mels, frames)
        for mask in self.masks:
            image = mask(image, mask_value=image.mean().item())
        return resize(image[None], self.size)[0]
