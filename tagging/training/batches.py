"""The batches of a training: random crops, augmented on the device. Also the batches of the score after an epoch."""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tagging.data.folds import ClipDataset
from tagging.data.waveforms import WaveStore, random_starts
from tagging.errors import TaggingError
from tagging.evaluation.predict import WindowBatches
from tagging.modeling.augment import TrainingAugmentation
from tagging.modeling.model import Model
from tagging.training import distributed
from tagging.training.checkpoint import Progress
from tagging.utils.seeds import seed_for


@dataclass(frozen=True)
class BatchSource:
    """A set of clips with a share in every batch."""
    dataset: ClipDataset
    count: int                  # of its clips in a batch
    targets: torch.Tensor       # (clips, classes) float on the device


@dataclass(frozen=True)
class Crops:
    """The random crops of an epoch from one source, in their order."""
    clips: np.ndarray       # (crops,) positions in the store
    starts: np.ndarray      # (crops,) first sample
    speeds: np.ndarray      # (crops,) playback speed


class TrainingBatches:
    """One random crop of each clip in each epoch, as batches of images and targets on the device.

    Each batch draws from a generator of its own, so an epoch can be resumed at any step.

    Args:
        noisy: clips that fill `noisy_share` of each batch, different ones in each epoch. The length of an epoch is that
            of `dataset`.
    Attributes:
        image_size: side of the images in pixels. It is set for each cycle.
    """

    def __init__(self, model: Model, dataset: ClipDataset, noisy: ClipDataset | None = None):
        recipe = model.metadata.recipe
        self.model, self.device, self.progress = model, model.device, Progress()
        self.augmentation = TrainingAugmentation(model)
        self.batch_size = min(recipe.batch_size, len(dataset))
        count = min(round(recipe.noisy_share * self.batch_size), self.batch_size - 1) if noisy else 0
        self.sources = [self.source(dataset, self.batch_size - count)]
        if noisy and count:
            self.sources.append(self.source(noisy, count))
        self.image_size = 0

    def source(self, dataset: ClipDataset, count: int) -> BatchSource:
        return BatchSource(dataset, count, torch.from_numpy(dataset.targets).to(self.device, torch.float32))

    def __len__(self) -> int:
        first = self.sources[0]
        return len(first.dataset) // first.count     # a smaller last batch would disturb batch norm

    def draw(self) -> list[Crops]:
        """Draw the crops of this epoch from each source."""
        drawn, rng = [], np.random.default_rng(self.seed())
        for source in self.sources:
            store, wanted = source.dataset.store, len(self) * source.count
            rounds = -(-wanted // len(store))
            clips = np.concatenate([rng.permutation(len(store)) for _ in range(rounds)])[:wanted]
            speeds = self.augmentation.draw_speeds(wanted, rng)
            sizes = np.round(speeds * self.augmentation.crop).astype(int)       # samples that a crop plays
            drawn.append(Crops(clips, random_starts(store.lengths[clips], sizes, rng), speeds))
        return drawn

    def names(self, step: int) -> list[str]:
        """Return the names of the clips of one batch of this epoch."""
        return [name for source, crops in zip(self.sources, self.draw())
                for name in source.dataset.fnames[crops.clips[step * source.count:(step + 1) * source.count]]]

    def seed(self, *step: int) -> int:
        metadata = self.model.metadata
        return seed_for(metadata.recipe.seed, metadata.stage, metadata.fold, "epoch", self.progress.epoch, *step)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        first, generator = self.progress.step, torch.Generator(self.device)
        streams = [self.stream(source, crops, first) for source, crops in zip(self.sources, self.draw())]
        for step, parts in enumerate(zip(*streams), first):
            seed = self.seed(step)
            generator.manual_seed(seed)
            torch.manual_seed(seed + distributed.rank())    # what the network itself draws, such as dropout
            yield self.augmentation.images(parts, self.image_size, generator)

    def stream(self, source: BatchSource, crops: Crops, step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield waves (count, crop) and targets (count, classes) of a source for each batch from `step` on."""
        order = torch.from_numpy(crops.clips).to(self.device)
        speeds = torch.from_numpy(crops.speeds).to(self.device)
        for place, waves in source.dataset.store.batches(crops.clips, crops.starts, self.augmentation.longest,
                                                         source.count, self.device, step * source.count):
            yield self.augmentation.play(waves, speeds[place]), source.targets[order[place]]


class ValidationBatches:
    """The windows of the validation clips as batches of images, for the score after each epoch.

    There are no targets, so fastai computes no loss of single windows: `TrainingLogger` scores whole clips. Under
    torchrun each process has a share of the clips.
    """

    def __init__(self, model: Model, dataset: ClipDataset):
        recipe = model.metadata.recipe
        self.device = model.device
        clips = distributed.shard_clips(dataset, whole=recipe.single_crop)
        self.windows = WindowBatches(model, clips.store, limit=recipe.epoch_windows)

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
        for _, images in self.windows:
            yield (images,)

    def place(self, batch: int) -> slice:
        """Return the slice of the windows that are in a batch."""
        return slice(batch * self.windows.batch_size, (batch + 1) * self.windows.batch_size)


def measure_normalisation(model: Model, store: WaveStore, crops: int = 2048) -> tuple[float, float]:
    """Measure mean and standard deviation in dB of the log-mel of random crops of the training clips."""
    metadata = model.metadata
    rng = np.random.default_rng(seed_for(metadata.recipe.seed, metadata.stage, metadata.fold, "normalisation"))
    clips = rng.permutation(len(store))[:crops]
    size = metadata.recipe.crop_samples(metadata.sample_rate)
    starts = random_starts(store.lengths[clips], size, rng)
    moments = []
    for _, waves in store.batches(clips, starts, size, metadata.recipe.batch_size, model.device):
        images = model.log_mel(waves).double()                              # (batch, 1, mels, frames)
        moments.append(torch.stack([images.mean((1, 2, 3)), images.square().mean((1, 2, 3))]))      # (2, batch)
    mean, square = torch.cat(moments, 1).mean(1).tolist()
    return mean, max(square - mean ** 2, 1e-6) ** 0.5


def check_batch_size(batch_size: int, micro_batches: int, title: str) -> None:
    """
    Raises:
        TaggingError: batch norm would see a single clip, or a process would get none.
    """
    if batch_size < 2 * micro_batches:
        raise TaggingError(f"{title}: a batch of {batch_size} clips in {micro_batches} parts gives parts of one clip, "
                           "and batch norm needs two. Train on more clips, or lower --micro-batches.")
    if batch_size < distributed.world_size() * micro_batches:
        raise TaggingError(f"{title}: a batch of {batch_size} clips in {micro_batches} parts leaves some of the "
                           f"{distributed.world_size()} processes without a clip. Start fewer with torchrun.")
