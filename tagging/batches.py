"""The batches of a training: random crops, augmented on the device."""
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tagging import distributed
from tagging.augment import change_speed, mix_waves, mixup
from tagging.checkpoint import Progress
from tagging.files import seed_for
from tagging.infer import random_starts
from tagging.mel import as_float
from tagging.model import Model
from tagging.waves import WaveStore


@dataclass(frozen=True)
class Examples:
    """Clips to train on, or to look at: the same order in all three."""
    fnames: pd.Index
    store: WaveStore
    targets: np.ndarray     # (clips, classes) 0/1, or between if they are soft


@dataclass(frozen=True)
class Source:
    """Clips that have a share in every batch."""
    examples: Examples
    count: int                  # of them in a batch
    targets: torch.Tensor       # (clips, classes) float on the device


class TrainingBatches:
    """One random crop of each clip an epoch, as batches of images and targets on the device.

    Every batch draws from a generator of its own, so that an epoch can be entered at any step.

    Args:
        noisy: clips of which each batch holds `noisy_share` too, others in each epoch. An epoch is one of `examples`.
    """

    def __init__(self, model: Model, examples: Examples, noisy: Examples | None = None):
        recipe = model.about.recipe
        self.model, self.device, self.progress = model, model.device, Progress()
        size = min(recipe.batch_size, len(examples.store))
        count = min(round(recipe.noisy_share * size), size - 1) if noisy else 0
        self.sources = [self.source(examples, size - count)] + ([self.source(noisy, count)] if count else [])
        self.batch_size = size
        self.crop = recipe.crop_samples(model.about.sample_rate)
        self.schedule = recipe.schedule(model.about.stage)
        self.fastest = 1 + self.schedule.speed
        self.image_size = 0         # set for each cycle

    def source(self, examples: Examples, count: int) -> Source:
        return Source(examples, count, torch.from_numpy(examples.targets).to(self.device, torch.float32))

    def __len__(self) -> int:
        first = self.sources[0]
        return len(first.examples.store) // first.count     # a smaller last batch would upset the batch norm

    def draw(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each source the clips of this epoch in their order, and each crop's start and speed; (clips,) each."""
        drawn, rng = [], np.random.default_rng(self.seed())
        for source in self.sources:
            store, wanted = source.examples.store, len(self) * source.count
            rounds = -(-wanted // len(store))
            clips = np.concatenate([rng.permutation(len(store)) for _ in range(rounds)])[:wanted]
            rates = self.fastest ** rng.uniform(-1, 1, wanted) if self.fastest > 1 else np.ones(wanted)
            sizes = np.round(rates * self.crop).astype(int)     # samples that a crop plays
            drawn.append((clips, random_starts(store.lengths[clips], sizes, rng), rates))
        return drawn

    def names(self, step: int) -> list[str]:
        """The clips of one batch of this epoch."""
        return [name for source, (clips, _, _) in zip(self.sources, self.draw())
                for name in source.examples.fnames[clips[step * source.count:(step + 1) * source.count]]]

    def seed(self, *step: int) -> int:
        about = self.model.about
        return seed_for(about.recipe.seed, about.stage, about.fold, "epoch", self.progress.epoch, *step)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        schedule, first, generator = self.schedule, self.progress.step, torch.Generator(self.device)
        streams = [self.stream(source, *drawn, first) for source, drawn in zip(self.sources, self.draw())]
        for step, parts in enumerate(zip(*streams), first):
            seed = self.seed(step)
            generator.manual_seed(seed)
            torch.manual_seed(seed + distributed.rank())    # what the network itself draws, such as dropout
            with torch.no_grad():
                if schedule.wave_mix:       # within each source: the curated half keeps its clean labels
                    parts = [mix_waves(as_float(waves), targets, schedule.wave_mix, generator)
                             for waves, targets in parts]
                waves, targets = (torch.cat(each) for each in zip(*parts))      # (batch, samples), (batch, classes)
                if len(parts) > 1:          # what mixup mixes are neighbours, and any clip may be one
                    order = torch.randperm(len(waves), generator=generator, device=self.device)
                    waves, targets = waves[order], targets[order]
                images = self.model.images(waves, generator, generator)
                images = self.model.fit_size(images, self.image_size)
                if schedule.mixup:
                    images, targets = mixup(images, targets, schedule.mixup, generator)
            yield images, targets

    def stream(self, source: Source, clips: np.ndarray, starts: np.ndarray, rates: np.ndarray,
               step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The waves and targets of a source for each batch from `step` on."""
        order, rates = torch.from_numpy(clips).to(self.device), torch.from_numpy(rates).to(self.device)
        longest = math.ceil(self.fastest * self.crop)
        for place, waves in source.examples.store.batches(clips, starts, longest, source.count, self.device,
                                                          step * source.count):
            if self.fastest > 1:
                waves = change_speed(waves, rates[place], self.crop)
            yield waves, source.targets[order[place]]
