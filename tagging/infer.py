"""Clips -> logits and probabilities, through evenly placed windows or through augmented views."""
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from tagging.augment import change_speed
from tagging.files import seed_for
from tagging.model import Model
from tagging.waves import WaveStore
from tagging_lite.tagger import Hearing, Tagger
from tagging_lite.windows import place_windows

BATCH = {"cuda": 256, "cpu": 32}    # windows; small on a CPU, so that a signal is answered in time


def random_starts(lengths: np.ndarray, size: int | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random crop of each clip; a short clip gets a random share of the zeros in front, as in fastaudio.

    Args:
        lengths: (clips,) samples.
        size: samples of every crop, or (clips,) of each.
    Returns:
        (clips,) first sample, negative where zeros come first.
    """
    room = lengths - size
    return rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1)


@torch.inference_mode()
def clip_logits(model: Model, store: WaveStore, *, view: int = 0, limit: int = 0, progress: str = "") -> np.ndarray:
    """The logits of each clip, pooled over its windows.

    Args:
        view: 0 sees the whole clip without masks. The next ones play it at the recipe's `view_speeds`. Each other
            number is an augmented view of its own: the windows are shifted by up to half their distance, masked, and
            lit as in training.
        limit: as for `place_windows`.
        progress: title of a progress bar; "" for none.
    Returns:
        (clips, classes) float32.
    """
    about, recipe = model.about, model.about.recipe
    device = model.device
    size = recipe.crop_samples(about.sample_rate)
    speeds = (1.0, *recipe.view_speeds)
    altered = view >= len(speeds)
    speed = 1.0 if altered else speeds[view]
    played = round(speed * size)        # samples of a clip that a window shows
    seed = seed_for(recipe.seed, about.stage, about.fold, "view", view)
    rng, generator = np.random.default_rng(seed), torch.Generator(device).manual_seed(seed)

    if recipe.single_crop:
        clips, starts = np.arange(len(store)), random_starts(store.lengths, played, rng)
    else:
        clips, starts = place_windows(store.lengths, played, recipe.window_overlap, limit)
        if altered:
            room = store.lengths[clips] - size
            half = int(size * (1 - recipe.window_overlap)) // 2
            shifted = starts + rng.integers(-half, half + 1, len(starts))
            starts = np.clip(shifted, np.minimum(room, 0), np.maximum(room, 0))
    masks = generator if altered or recipe.single_crop else None
    lights = generator if altered else None

    model.eval()
    maximum = recipe.pooling == "maximum"
    pooled = torch.full((len(store), len(about.classes)), -torch.inf if maximum else 0.0, device=device)
    clip_of = torch.from_numpy(clips).to(device)                                            # (windows,)
    batch_size = BATCH.get(device.type, BATCH["cpu"])
    with tqdm(total=len(clips), desc=progress, unit="window", leave=False, disable=None if progress else True) as bar:
        for place, waves in store.batches(clips, starts, played, batch_size, device):
            if speed != 1:
                waves = change_speed(waves, torch.full((len(waves),), speed, dtype=torch.float64, device=device), size)
            logits = model.network(model.fit_size(model.images(waves, masks, lights)))      # (batch, classes)
            index = clip_of[place, None].expand_as(logits)
            pooled.scatter_reduce_(0, index, logits, "amax" if maximum else "sum")
            bar.update(len(waves))
    counts = 1 if maximum else np.bincount(clips, minlength=len(store))[:, None].astype(np.float32)
    return pooled.cpu().numpy() / counts


def probabilities(model: Model, store: WaveStore, *, tta: int = 0, progress: str = "") -> np.ndarray:
    """Mean probability of each class over the plain view and `tta` augmented ones.

    Returns:
        (clips, classes) float32.
    """
    views = [torch.from_numpy(clip_logits(model, store, view=view, progress=progress)).sigmoid()
             for view in range(1 + tta)]
    return torch.stack(views).mean(0).numpy()


def hearing(model: Model) -> Hearing:
    """What has to be known outside of torch to tag with a model."""
    about, recipe = model.about, model.about.recipe
    return Hearing(about.classes, about.sample_rate, recipe.crop_samples(about.sample_rate), recipe.window_overlap,
                   recipe.trim_db, recipe.pooling)


def make_tagger(models: Sequence[Model]) -> Tagger:
    """A tagger of any sound file with the models of a run's folds, whose probabilities are averaged."""
    @torch.inference_mode()
    def logits(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes)"""
        batch = torch.from_numpy(waves).to(models[0].device)
        return torch.stack([model(batch) for model in models], 1).cpu().numpy()

    return Tagger(hearing(models[0]), logits)
