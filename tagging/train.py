"""Train one model with fastai. The only file that knows fastai's training loop."""
import time
from collections.abc import Sized
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import CancelEpochException, CancelValidException
from fastai.callback.schedule import Learner  # the Learner that has fit_flat_cos
from fastai.data.core import DataLoaders
from fastai.learner import Callback, TrainEvalCallback
from fastai.optimizer import OptimWrapper
from torch import nn
from tqdm import tqdm

from tagging import distributed
from tagging.batches import Examples, TrainingBatches
from tagging.checkpoint import CheckpointWriter, load_checkpoint
from tagging.errors import TaggingError, shorten
from tagging.files import atomic, seed_for
from tagging.infer import clip_logits, random_starts
from tagging.metric import lwlrap
from tagging.model import Model
from tagging.ranger import Ranger, decay_groups
from tagging.signals import Stopped, shielded
from tagging.waves import WaveStore

LOOK_STEPS = 20     # on a GPU the loss is looked at once in so many steps: each look waits for the device


class ResumableLearner(Learner):
    """A Learner that begins at any epoch, never stops within a step, and makes a step of several parts."""
    first_epoch = 0
    parts = 1           # of a batch, one after the other

    def _do_fit(self):
        for epoch in range(self.first_epoch, self.n_epoch):
            self.epoch = epoch
            self._with_events(self._do_epoch, "epoch", CancelEpochException)

    def one_batch(self, i, b):
        with shielded():
            super().one_batch(i, b)
        distributed.stop_together()

    def _do_one_batch(self):
        (images,), (targets,) = self.xb, self.yb
        total = 0
        for some_images, some_targets in zip(images.tensor_split(self.parts), targets.tensor_split(self.parts)):
            some_images, some_targets = distributed.share(some_images), distributed.share(some_targets)
            loss = self.loss_func(self.model(some_images), some_targets) * (len(some_images) / len(images))
            loss.backward()
            total = total + loss.detach()
        self.loss = distributed.add_up(self.model, total)
        self.opt.step()
        self.opt.zero_grad()


class Journal(Callback):
    """Progress bar, the line of each epoch, the log and the checkpoint. In place of fastai's Recorder and
    ProgressCallback, which wait for the device in every step.

    Args:
        title: what the lines begin with.
        epochs: of all cycles together.
    """

    def __init__(self, title: str, batches: TrainingBatches, valid: Examples, epochs: int, log: Path,
                 writer: CheckpointWriter):
        self.title, self.batches, self.valid, self.epochs = title, batches, valid, epochs
        self.log, self.writer = log, writer
        self.tagger, self.progress = batches.model, batches.progress

    def __call__(self, event_name: str):
        """Without fastai's wrapper, which rewrites the text of every exception that comes out of a callback."""
        handle = getattr(type(self), event_name, None)
        if handle:
            handle(self)

    def before_train(self):
        progress = self.progress
        if progress.step:
            self.learn.pct_train = progress.pct_train       # fastai has set it to the start of the epoch
        self.bar = tqdm(total=len(self.batches), initial=progress.step, unit="step", leave=False, disable=None,
                        desc=f"{self.title} epoch {progress.epoch + 1}/{self.epochs}")
        self.ticked = time.perf_counter()

    def tick(self):
        """Count the time since the last tick to the epoch under way."""
        now = time.perf_counter()
        self.progress.seconds += now - self.ticked
        self.ticked = now

    def after_batch(self):
        self.tick()
        self.progress.end_step(self.loss, self.pct_train, self.opt.hypers[-1]["lr"])
        if self.batches.device.type == "cpu" or self.progress.step % LOOK_STEPS == 0:
            loss = self.loss.item()
            if not np.isfinite(loss):
                self.check_losses()
            self.bar.set_postfix(loss=f"{loss:.4f}", lr=f"{self.progress.lr:.2g}", refresh=False)
        self.bar.update()

    def check_losses(self):
        """
        Raises:
            TaggingError: a loss is not finite; the message names epoch, batch and clips.
        """
        finite = torch.stack(self.progress.losses).isfinite()
        if not finite.all():
            step = int(finite.int().argmin())
            names = self.batches.names(step)
            raise TaggingError(
                f"{self.title}: the loss is not finite in epoch {self.progress.epoch + 1}, batch {step + 1} of "
                f"{len(self.batches)}, with the clips {shorten(names, len(names))}. The "
                "checkpoint of the last good epoch is kept. Look at these clips, or try another run with lower "
                f"--{self.tagger.about.stage}.lrs.")

    def before_validate(self):
        self.bar.close()
        self.check_losses()
        progress, recipe = self.progress, self.tagger.about.recipe
        targets = self.valid.targets
        logits = distributed.predict_together(clip_logits, self.tagger, self.valid.store, limit=recipe.epoch_windows)
        if not np.isfinite(logits).all():
            raise TaggingError(f"{self.title}: the predictions are not finite after epoch {progress.epoch + 1}. The "
                               "checkpoint of the epoch before is kept. Try another run with lower learning rates.")
        self.tick()
        valid_loss = nn.functional.binary_cross_entropy_with_logits(
            torch.from_numpy(logits), torch.from_numpy(targets).float())
        row = {"epoch": progress.epoch + 1, "train_loss": torch.stack(progress.losses).mean().item(),
               "valid_loss": valid_loss.item(), "lwlrap": lwlrap(truth=targets, scores=logits),
               "lr": progress.lr, "seconds": progress.seconds}
        with shielded():        # the epoch is in the log and in the checkpoint, or in neither
            progress.end_epoch(row)
            if distributed.is_main():
                with atomic(self.log) as temporary:
                    pd.DataFrame(progress.rows).to_csv(temporary, index=False, float_format="%.6g",
                                                       lineterminator="\n")
                self.writer.write(self.tagger, self.opt.opt, progress)
        print(f"{self.title} epoch {row['epoch']}/{self.epochs}  train loss {row['train_loss']:.4f}  "
              f"valid loss {row['valid_loss']:.4f}  lwlrap {row['lwlrap']:.4f}  {row['seconds']:.1f} s", flush=True)
        raise CancelValidException      # fastai's own pass over one crop a clip is not wanted


def measure_normalisation(model: Model, store: WaveStore, crops: int = 2048) -> tuple[float, float]:
    """Mean and standard deviation, in dB, of the log-mel of random crops of the training clips."""
    about = model.about
    rng = np.random.default_rng(seed_for(about.recipe.seed, about.stage, about.fold, "normalisation"))
    clips = rng.permutation(len(store))[:crops]
    size = about.recipe.crop_samples(about.sample_rate)
    starts = random_starts(store.lengths[clips], size, rng)
    moments = []
    for _, waves in store.batches(clips, starts, size, about.recipe.batch_size, model.device):
        images = model.log_mel(waves).double()                              # (batch, 1, mels, frames)
        moments.append(torch.stack([images.mean((1, 2, 3)), images.square().mean((1, 2, 3))]))      # (2, batch)
    mean, square = torch.cat(moments, 1).mean(1).tolist()
    return mean, max(square - mean ** 2, 1e-6) ** 0.5


def build_learner(model: Model, batches: Sized, optimiser: Ranger) -> ResumableLearner:
    # Two training loaders because fastai wants a second one; it never draws from it.
    learner = ResumableLearner(DataLoaders(batches, batches), model.network, loss_func=nn.BCEWithLogitsLoss(),
                               default_cbs=False)
    learner.opt = OptimWrapper(opt=optimiser)
    return learner


def train_model(model: Model, train: Examples, valid: Examples, title: str, log: Path, checkpoint: Path,
                parts: int = 1, noisy: Examples | None = None) -> float:
    """Train `model` in place with the schedule of its stage, from its checkpoint if there is one.

    Args:
        log: csv with one row an epoch.
        parts: of each batch, one after the other; batch norm then sees the parts, not the batch.
        checkpoint: written after each epoch, and where the process is asked to stop; removed by the caller.
        noisy: as for `TrainingBatches`.
    Returns:
        seconds of all epochs, those before a stop too.
    Raises:
        TaggingError: the loss is not finite, or the checkpoint is damaged.
        Stopped: the process was asked to stop; the checkpoint is written.
    """
    recipe = model.about.recipe
    schedule = recipe.schedule(model.about.stage)
    batches, optimiser = TrainingBatches(model, train, noisy), Ranger(decay_groups(model.network), schedule.lrs[0])
    learner = build_learner(model, batches, optimiser)
    learner.parts = parts
    if batches.batch_size < 2 * parts:
        raise TaggingError(f"{title}: a batch of {batches.batch_size} clips in {parts} parts leaves parts of one clip, "
                           "and batch norm needs two. Train on more clips, or lower --accumulate.")
    if batches.batch_size < distributed.size() * parts:
        raise TaggingError(f"{title}: a batch of {batches.batch_size} clips in {parts} parts leaves some of the "
                           f"{distributed.size()} processes without a clip. Start fewer with torchrun.")
    distributed.share_batch_norm(model.network)
    writer = CheckpointWriter(checkpoint)
    if distributed.told(checkpoint.exists()):
        batches.progress = load_checkpoint(checkpoint, model, optimiser)
        print(f"{title} goes on in epoch {batches.progress.epoch + 1}, after {batches.progress.step} steps", flush=True)
    elif recipe.normalise:
        mean, std = measure_normalisation(model, train.store)
        model.amend(mean=mean, std=std)
    progress = batches.progress
    learner.add_cbs([TrainEvalCallback, Journal(title, batches, valid, sum(schedule.epochs), log, writer)])
    before = 0          # epochs of the cycles before
    try:
        for epochs, lr, batches.image_size in zip(schedule.epochs, schedule.lrs, schedule.sizes):
            learner.first_epoch = progress.epoch - before
            if learner.first_epoch < epochs:
                learner.fit_flat_cos(epochs, lr, wd=recipe.weight_decay)
            before += epochs
        writer.wait()
    except Stopped:
        # After a loss that is not finite the last epoch's checkpoint is the better one.
        if distributed.is_main() and all(loss.isfinite() for loss in progress.losses):
            writer.write(model, optimiser, progress)
            writer.wait()
        distributed.barrier()       # torchrun ends all processes soon after one has ended
        raise
    return sum(row["seconds"] for row in progress.rows)
