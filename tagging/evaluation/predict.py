"""Clips -> logits and probabilities, through evenly placed windows of the plain clip or of augmented views."""
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from tagging.data.folds import ClipDataset
from tagging.data.waveforms import WaveStore, random_starts
from tagging.modeling.augment import View
from tagging.modeling.model import Model
from tagging.utils.devices import explain_memory
from tagging.utils.seeds import seed_for
from tagging_lite.tagger import ModelInfo, Tagger
from tagging_lite.windows import place_windows

BATCH = {"cuda": 256, "cpu": 32}    # windows; small on a CPU, so that a signal is answered in time


class WindowBatches:
    """The windows of all clips of a store, as batches of images on the device.

    Args:
        view: 0 is the whole clip without masks. The next numbers play it at the recipe's `view_speeds`. Every other
            number is an augmented view of its own, see `View`.
        limit: as for `place_windows`.
    Attributes:
        clip_of: (windows,) int64 on the device, the clip of each window.
    """

    def __init__(self, model: Model, store: WaveStore, view: int = 0, limit: int = 0):
        metadata, recipe = model.metadata, model.metadata.recipe
        self.model, self.store, self.view = model, store, View.of_recipe(recipe, view)
        self.size = recipe.crop_samples(metadata.sample_rate)
        self.played = round(self.view.speed * self.size)        # samples of a clip that fill a window
        self.batch_size = BATCH.get(model.device.type, BATCH["cpu"])
        self.seed = seed_for(recipe.seed, metadata.stage, metadata.fold, "view", view)
        rng = np.random.default_rng(self.seed)
        if recipe.single_crop:
            clips, starts = np.arange(len(store)), random_starts(store.lengths, self.played, rng)
        else:
            clips, starts = place_windows(store.lengths, self.played, recipe.window_overlap, limit)
            if self.view.shifted:
                room = store.lengths[clips] - self.size
                half = int(self.size * (1 - recipe.window_overlap)) // 2
                shifted = starts + rng.integers(-half, half + 1, len(starts))
                starts = np.clip(shifted, np.minimum(room, 0), np.maximum(room, 0))
        self.clips, self.starts = clips, starts
        self.clip_of = torch.from_numpy(clips).to(model.device)

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.clips) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the slice of the windows that are in a batch, and their images (batch, 1, size, size)."""
        device = self.model.device
        generator = torch.Generator(device).manual_seed(self.seed)
        for place, waves in self.store.batches(self.clips, self.starts, self.played, self.batch_size, device):
            yield place, self.view.images(self.model, waves, self.size, generator)


class WindowPooling:
    """Pools the logits of windows into logits of clips, batch by batch."""

    def __init__(self, windows: WindowBatches):
        self.windows = windows
        self.maximum = windows.model.metadata.recipe.pooling == "maximum"
        shape = len(windows.store), len(windows.model.metadata.classes)
        self.pooled = torch.full(shape, -torch.inf if self.maximum else 0.0, device=windows.model.device)

    def add(self, place: slice, logits: torch.Tensor) -> None:
        """Add the logits (batch, classes) of the windows in `place`."""
        clips = self.windows.clip_of[place, None].expand_as(logits)                         # (batch, classes)
        self.pooled.scatter_reduce_(0, clips, logits, "amax" if self.maximum else "sum")

    def logits(self) -> np.ndarray:
        """Return the logits of the clips: (clips, classes) float32."""
        pooled = self.pooled.cpu().numpy()
        if self.maximum:
            return pooled
        return pooled / np.bincount(self.windows.clips, minlength=len(pooled))[:, None].astype(np.float32)


@torch.inference_mode()
def predict_logits(model: Model, store: WaveStore, *, view: int = 0, progress: str = "") -> np.ndarray:
    """Predict the logits of each clip, pooled over its windows.

    Args:
        view: as for `WindowBatches`.
        progress: title of a progress bar, or "" for none.
    Returns:
        (clips, classes) float32.
    """
    model.eval()
    windows = WindowBatches(model, store, view)
    pooling = WindowPooling(windows)
    with tqdm(total=len(windows.clips), desc=progress, unit="window", leave=False,
              disable=None if progress else True) as bar:
        for place, images in windows:
            pooling.add(place, model.network(images))
            bar.update(len(images))
    return pooling.logits()


def predict_probabilities(model: Model, store: WaveStore, *, tta: int = 0, progress: str = "") -> np.ndarray:
    """Predict the mean probability of each class over the plain view and `tta` additional ones.

    Returns:
        (clips, classes) float32.
    """
    views = [torch.from_numpy(predict_logits(model, store, view=view, progress=progress)).sigmoid()
             for view in range(1 + tta)]
    return torch.stack(views).mean(0).numpy()


def predict_clips(model: Model, clips: ClipDataset, *, tta: int = 0, progress: str = "") -> pd.DataFrame:
    """Predict clips as a table: index fname, columns the classes.

    Raises:
        TaggingError: the device has too little memory.
    """
    with explain_memory("Choose --device cpu, or a GPU with more memory."):
        scores = predict_probabilities(model, clips.store, tta=tta, progress=progress)
    return pd.DataFrame(scores, clips.fnames, list(model.metadata.classes))


def model_info(model: Model) -> ModelInfo:
    """Return what has to be known to tag with a model outside torch."""
    metadata, recipe = model.metadata, model.metadata.recipe
    return ModelInfo(metadata.classes, metadata.sample_rate, recipe.crop_samples(metadata.sample_rate),
                     recipe.window_overlap, recipe.trim_db, recipe.pooling)


def make_tagger(models: Sequence[Model]) -> Tagger:
    """Return a tagger of any sound file, with the mean probability of the models of a run's folds."""
    @torch.inference_mode()
    def logits(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes)."""
        batch = torch.from_numpy(waves).to(models[0].device)
        return torch.stack([model(batch) for model in models], 1).cpu().numpy()

    @torch.inference_mode()
    def features(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes + features)."""
        batch, values = torch.from_numpy(waves).to(models[0].device), []
        for model in models:
            found = model.network.features(model.resize(model.images(batch)))               # (windows, features)
            values.append(torch.cat([model.network.head(found), found], 1))
        return torch.stack(values, 1).cpu().numpy()

    device = models[0].device.type
    return Tagger(model_info(models[0]), logits, features, batch=BATCH.get(device, BATCH["cpu"]),
                  device=device, checksum=models_checksum(models))


def models_checksum(models: Sequence[Model]) -> str:
    """Return a SHA-256 that identifies the models of a run, from their heads: no two trainings end with the same."""
    digest = hashlib.sha256()
    for model in models:
        for values in model.network.head.state_dict().values():
            digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()
