"""Augmentation: every random change between the wave store and the network, for training and for prediction.

To add an augmentation, write a function in `transforms`, a knob in `tagging/recipe.py` with its
entry in `tagging/schema.py`, and one line here.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tagging.modeling.logmel import as_float
from tagging.modeling.model import Model
from tagging.modeling.transforms import change_speed, lighting, mask_freq, mask_time, mix_waves, mixup
from tagging.recipe import Recipe


class TrainingAugmentation:
    """The augmentation of a training stage.

    Attributes:
        crop: samples of a crop as the network sees it.
        longest: samples that are cut from the store for a crop, enough for the highest speed.
    """

    def __init__(self, model: Model):
        metadata = model.metadata
        self.model, self.recipe = model, metadata.recipe
        self.schedule = self.recipe.schedule(metadata.stage)
        self.crop = self.recipe.crop_samples(metadata.sample_rate)
        self.max_speed = 1 + self.schedule.speed
        self.longest = math.ceil(self.max_speed * self.crop)

    def draw_speeds(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a playback speed for each crop: (count,) float64."""
        return self.max_speed ** rng.uniform(-1, 1, count) if self.max_speed > 1 else np.ones(count)

    def play(self, waves: torch.Tensor, speeds: torch.Tensor) -> torch.Tensor:
        """(batch, longest) -> (batch, crop), each crop at its own speed."""
        return change_speed(waves, speeds, self.crop) if self.max_speed > 1 else waves

    @torch.no_grad()
    def images(self, streams: Sequence[tuple[torch.Tensor, torch.Tensor]], image_size: int,
               generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn the waves of a batch into augmented images.

        Args:
            streams: waves (clips, crop) and targets (clips, classes) from each set of clips.
            image_size: side in pixels.
        Returns:
            images (batch, 1, image_size, image_size) and targets (batch, classes).
        """
        recipe, schedule = self.recipe, self.schedule
        if schedule.wave_mix:       # within each set, so that the curated clips keep their clean labels
            streams = [mix_waves(as_float(waves), targets, schedule.wave_mix, generator)
                       for waves, targets in streams]
        waves, targets = (torch.cat(each) for each in zip(*streams))    # (batch, crop), (batch, classes)
        if len(streams) > 1:        # mixup mixes neighbours, which must come from any set
            order = torch.randperm(len(waves), generator=generator, device=waves.device)
            waves, targets = waves[order], targets[order]
        images = mask(self.model.images(waves), recipe, generator)      # (batch, 1, mels, frames)
        if recipe.lighting:
            images = lighting(images, recipe.lighting, recipe.lighting_chance, generator)
        images = self.model.resize(images, image_size)                  # (batch, 1, image_size, image_size)
        if schedule.mixup:
            images, targets = mixup(images, targets, schedule.mixup, generator)
        return images, targets


def mask(images: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Apply a time mask and a frequency mask to (batch, 1, mels, frames)."""
    return mask_freq(mask_time(images, recipe.mask_width, generator), recipe.mask_width, generator)


@dataclass(frozen=True)
class View:
    """One way to look at a test clip."""
    speed: float = 1.0          # playback speed
    shifted: bool = False       # the windows are shifted by up to half their distance
    masked: bool = False        # time mask and frequency mask, as in training
    lit: bool = False           # brightness and contrast, as in training

    @classmethod
    def of_recipe(cls, recipe: Recipe, number: int) -> "View":
        """Return view `number`: 0 is the plain clip, the next ones play it at `recipe.view_speeds`, and all others are
        shifted, masked and lit."""
        speeds = (1.0, *recipe.view_speeds)
        if number < len(speeds):
            return cls(speed=speeds[number], masked=recipe.single_crop)
        return cls(shifted=True, masked=True, lit=recipe.lighting > 0)

    @torch.no_grad()
    def images(self, model: Model, waves: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
        """(windows, samples) -> images as the network takes them.

        Args:
            size: samples of a window at the speed at which the network sees it.
        """
        recipe = model.metadata.recipe
        if self.speed != 1:
            speeds = torch.full((len(waves),), self.speed, dtype=torch.float64, device=waves.device)
            waves = change_speed(waves, speeds, size)
        images = model.images(waves)                                    # (windows, 1, mels, frames)
        if self.masked:
            images = mask(images, recipe, generator)
        if self.lit:
            images = lighting(images, recipe.lighting, recipe.lighting_chance, generator)
        return model.resize(images)
