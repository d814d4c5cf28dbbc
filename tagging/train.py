"""Train one model with fastai. The only file that knows fastai's training loop."""
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import CancelValidException
from fastai.callback.schedule import Learner  # the Learner that has fit_flat_cos
from fastai.data.core import DataLoaders
from fastai.learner import Callback, TrainEvalCallback
from fastai.optimizer import ranger
from torch import nn
from tqdm import tqdm

from tagging.augment import mixup
from tagging.files import atomic, seed_for
from tagging.infer import clip_logits, random_starts
from tagging.metric import lwlrap
from tagging.model import Model
from tagging.waves import WaveStore

POSTFIX_STEPS = 20      # the loss is fetched from the device for the progress bar once in so many steps


class TrainingBatches:
    """One random crop of each clip an epoch, as batches of images and targets on the device.

    Args:
        targets: (clips, classes) 0/1.
    """

    def __init__(self, model: Model, store: WaveStore, targets: np.ndarray):
        recipe = model.about.recipe
        self.model, self.store, self.batch_size = model, store, min(recipe.batch_size, len(store))
        self.device = next(model.parameters()).device
        self.targets = torch.from_numpy(targets).to(self.device, torch.float32)
        self.crop = recipe.crop_samples(model.about.rate)
        self.alpha = getattr(recipe, model.about.stage).mixup
        self.dataset = self         # fastai asks for one, and for no more than its length
        self.image_size = 0         # set for each cycle
        self.epoch = 0              # over all cycles

    def __len__(self) -> int:
        return len(self.store) // self.batch_size       # a smaller last batch would upset the batch norm

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        about = self.model.about
        seed = seed_for(about.recipe.seed, about.stage, about.fold, "epoch", self.epoch)
        torch.manual_seed(seed)     # what the network itself draws, such as dropout
        rng, generator = np.random.default_rng(seed), torch.Generator(self.device).manual_seed(seed)
        clips = rng.permutation(len(self.store))[:len(self) * self.batch_size]
        starts = random_starts(self.store.lengths[clips], self.crop, rng)
        order = torch.from_numpy(clips).to(self.device)
        for place, waves in self.store.batches(clips, starts, self.crop, self.batch_size, self.device):
            with torch.no_grad():
                images, targets = self.model.images(waves, generator, generator), self.targets[order[place]]
                images = self.model.fit_size(images, self.image_size)
                if self.alpha:
                    images, targets = mixup(images, targets, self.alpha, generator)
            yield images, targets
        self.epoch += 1


class Journal(Callback):
    """Progress, the line of each epoch, and the log. In place of fastai's Recorder and ProgressCallback, which wait
    for the device in every step.

    Args:
        title: what the lines begin with.
        epochs: of all cycles together.
    """

    def __init__(self, title: str, model: Model, valid: WaveStore, targets: np.ndarray, epochs: int, log: Path):
        self.title, self.tagger, self.valid, self.targets = title, model, valid, targets
        self.epochs, self.log, self.rows = epochs, log, []

    def before_train(self):
        self.started = time.perf_counter()
        self.losses = []
        self.bar = tqdm(total=len(self.dls.train), desc=f"{self.title} epoch {len(self.rows) + 1}/{self.epochs}",
                        unit="step", leave=False, disable=None)

    def after_batch(self):
        self.losses.append(self.loss.detach())
        if not self.bar.disable and self.iter % POSTFIX_STEPS == 0:
            self.bar.set_postfix(loss=f"{self.loss.item():.4f}", rate=f"{self.opt.hypers[-1]['lr']:.2g}")
        self.bar.update()

    def before_validate(self):
        self.bar.close()
        logits = clip_logits(self.tagger, self.valid, limit=self.tagger.about.recipe.epoch_windows)
        valid_loss = nn.functional.binary_cross_entropy_with_logits(
            torch.from_numpy(logits), torch.from_numpy(self.targets).float())
        row = {"epoch": len(self.rows) + 1, "train_loss": torch.stack(self.losses).mean().item(),
               "valid_loss": valid_loss.item(), "lwlrap": lwlrap(truth=self.targets, scores=logits),
               "rate": self.opt.hypers[-1]["lr"], "seconds": time.perf_counter() - self.started}
        self.rows.append(row)
        print(f"{self.title} epoch {row['epoch']}/{self.epochs}  train loss {row['train_loss']:.4f}  "
              f"valid loss {row['valid_loss']:.4f}  lwlrap {row['lwlrap']:.4f}  {row['seconds']:.1f} s", flush=True)
        with atomic(self.log) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        raise CancelValidException      # fastai's own pass over one crop a clip is not wanted


def measure_normalisation(model: Model, store: WaveStore, crops: int = 2048) -> tuple[float, float]:
    """Mean and standard deviation, in dB, of the log-mel of random crops of the training clips."""
    about = model.about
    rng = np.random.default_rng(seed_for(about.recipe.seed, about.stage, about.fold, "normalisation"))
    clips = rng.permutation(len(store))[:crops]
    size = about.recipe.crop_samples(about.rate)
    starts = random_starts(store.lengths[clips], size, rng)
    device = next(model.parameters()).device
    moments = []
    for _, waves in store.batches(clips, starts, size, about.recipe.batch_size, device):
        images = model.log_mel(waves).double()                              # (batch, 1, mels, frames)
        moments.append(torch.stack([images.mean((1, 2, 3)), images.square().mean((1, 2, 3))]))      # (2, batch)
    mean, square = torch.cat(moments, 1).mean(1).tolist()
    return mean, max(square - mean ** 2, 1e-6) ** 0.5


def train_model(model: Model, train: WaveStore, train_targets: np.ndarray, valid: WaveStore,
                valid_targets: np.ndarray, title: str, log: Path) -> None:
    """Train `model` in place on the crops of `train`, with the schedule of its stage.

    Args:
        train_targets, valid_targets: (clips, classes) 0/1.
        log: csv with one row an epoch.
    """
    recipe = model.about.recipe
    schedule = getattr(recipe, model.about.stage)
    batches = TrainingBatches(model, train, train_targets)
    journal = Journal(title, model, valid, valid_targets, sum(schedule.epochs), log)
    learner = Learner(DataLoaders(batches, batches), model.network, loss_func=nn.BCEWithLogitsLoss(),
                      opt_func=ranger, default_cbs=False, cbs=[TrainEvalCallback, journal])
    with learner.no_logging():
        for epochs, rate, batches.image_size in zip(schedule.epochs, schedule.rates, schedule.sizes):
            learner.fit_flat_cos(epochs, rate, wd=recipe.weight_decay)
