"""Train one model with fastai. This is the only module that uses fastai's training loop.

The loss is binary cross-entropy with logits: `nn.BCEWithLogitsLoss` in `build_learner`.
"""
import logging
import time
from collections.abc import Callable, Sized
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.schedule import Learner, ParamScheduler, combined_cos
from fastai.data.core import DataLoaders
from fastai.learner import Callback, TrainEvalCallback
from fastai.optimizer import OptimWrapper
from torch import nn
from tqdm import tqdm

from tagging.data.folds import ClipDataset
from tagging.errors import TaggingError, shorten
from tagging.evaluation.predict import WindowPooling
from tagging.metric import lwlrap
from tagging.modeling.model import Model
from tagging.training import distributed
from tagging.training.batches import TrainingBatches, ValidationBatches, check_batch_size, measure_normalisation
from tagging.training.checkpoint import CheckpointWriter, load_checkpoint
from tagging.training.optimizer import Ranger, decay_groups
from tagging.utils import interrupts
from tagging.utils.files import atomic

log = logging.getLogger(__name__)

LOSS_STEPS = 20     # on a GPU the loss is read once in this many steps, because reading it waits for the device
OnEpoch = Callable[[dict], None]        # called with the row of the log after each epoch


class MicroBatches(Callback):
    """Split each batch into parts that are trained one after the other, and each part among the processes of torchrun.

    fastai computes the last part and makes the step; this callback computes the others before it.

    Args:
        count: parts of a batch.
    """

    def __init__(self, count: int):
        self.count = count

    def before_batch(self):
        if not self.training:
            return
        (images,), (targets,) = self.xb, self.yb
        parts = [(distributed.local_shard(some_images), distributed.local_shard(some_targets)) for
                 some_images, some_targets in zip(images.tensor_split(self.count), targets.tensor_split(self.count))]
        self.batch_size, self.total = len(images), torch.zeros((), device=images.device)
        for some_images, some_targets in parts[:-1]:
            loss = self.share(self.loss_func(self.model(some_images), some_targets), some_images)
            loss.backward()
            self.total = self.total + loss.detach()
        some_images, some_targets = parts[-1]
        self.learn.xb, self.learn.yb = (some_images,), (some_targets,)

    def share(self, loss: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Scale the mean loss of a part to its share of the mean of the batch."""
        return loss * (len(images) / self.batch_size)

    def after_loss(self):
        if self.training:
            self.learn.loss_grad = self.share(self.loss_grad, self.xb[0])

    def after_backward(self):
        self.learn.loss = distributed.all_reduce_gradients(self.model, self.total + self.loss_grad.detach())


class TrainingLogger(Callback):
    """Progress bar, score and log of each epoch, checkpoint, and stop.

    It replaces fastai's Recorder and ProgressCallback, which wait for the device in every step.

    Args:
        title: start of each line of output.
        epochs: of all cycles together.
        on_epoch: called with the row of the log after each epoch.
    """

    def __init__(self, title: str, batches: TrainingBatches, valid: ClipDataset, epochs: int, log_path: Path,
                 writer: CheckpointWriter, on_epoch: OnEpoch):
        self.title, self.batches, self.valid, self.epochs = title, batches, valid, epochs
        self.log_path, self.writer, self.on_epoch = log_path, writer, on_epoch
        self.audio_model, self.state = batches.model, batches.progress

    def before_train(self):
        state = self.state
        if state.step:
            self.learn.pct_train = state.pct_train       # TrainEvalCallback has set it to the start of the epoch
        self.bar = tqdm(total=len(self.batches), initial=state.step, unit="step", leave=False, disable=None,
                        desc=f"{self.title} epoch {state.epoch + 1}/{self.epochs}")
        self.last_tick = time.perf_counter()

    def tick(self):
        """Add the time since the last tick to the current epoch."""
        now = time.perf_counter()
        self.state.seconds += now - self.last_tick
        self.last_tick = now

    def after_batch(self):
        if self.training:
            self.after_training_batch()
        else:
            self.pooling.add(self.dl.place(self.iter), self.pred)
        if self.training or distributed.world_size() == 1:      # ranks can have different numbers of windows
            distributed.sync_stop()

    def after_training_batch(self):
        self.tick()
        self.state.end_step(self.loss, self.pct_train, self.opt.hypers[-1]["lr"])
        if self.batches.device.type == "cpu" or self.state.step % LOSS_STEPS == 0:
            loss = self.loss.item()
            if not np.isfinite(loss):
                self.check_losses()
            self.bar.set_postfix(loss=f"{loss:.4f}", lr=f"{self.state.lr:.2g}", refresh=False)
        self.bar.update()

    def check_losses(self):
        """
        Raises:
            TaggingError: a loss is not finite. The message names epoch, batch and clips.
        """
        finite = torch.stack(self.state.losses).isfinite()
        if not finite.all():
            step = int(finite.int().argmin())
            names = self.batches.names(step)
            raise TaggingError(
                f"{self.title}: the loss is not finite in epoch {self.state.epoch + 1}, batch {step + 1} of "
                f"{len(self.batches)}, with the clips {shorten(names, len(names))}. The checkpoint of the last good "
                f"epoch is kept. Check these clips, or train another run with lower "
                f"--{self.audio_model.metadata.stage}.lrs.")

    def before_validate(self):
        self.bar.close()
        self.check_losses()
        self.pooling = WindowPooling(self.dl.windows)

    def after_validate(self):
        state, targets = self.state, self.valid.targets
        logits = distributed.gather_clips(self.pooling.logits(), self.audio_model.metadata.recipe.single_crop)
        if not np.isfinite(logits).all():
            raise TaggingError(f"{self.title}: the predictions are not finite after epoch {state.epoch + 1}. The "
                               "checkpoint of the previous epoch is kept. Train another run with lower learning rates.")
        self.tick()
        valid_loss = self.loss_func(torch.from_numpy(logits), torch.from_numpy(targets).float())
        row = {"epoch": state.epoch + 1, "train_loss": torch.stack(state.losses).mean().item(),
               "valid_loss": valid_loss.item(), "lwlrap": lwlrap(truth=targets, scores=logits),
               "lr": state.lr, "seconds": state.seconds}
        state.end_epoch(row)
        if distributed.is_main():
            with atomic(self.log_path) as temporary:
                pd.DataFrame(state.rows).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
            self.writer.write(self.audio_model, self.opt.opt, state)
        self.on_epoch(row)


def build_learner(model: Model, train: Sized, valid: Sized, optimizer: Ranger, *callbacks: Callback) -> Learner:
    """Build a fastai Learner around a network.

    Args:
        train: iterable of batches (images, targets) on the device.
        valid: iterable of batches (images,) on the device.
    """
    # wd_bn_bias: fastai would write into the optimizer's state; decay_groups has excluded biases and norms already.
    learner = Learner(DataLoaders(train, valid), model.network, loss_func=nn.BCEWithLogitsLoss(),
                      opt_func=OptimWrapper(opt=optimizer), wd_bn_bias=True, default_cbs=False,
                      cbs=[TrainEvalCallback(), *callbacks])
    learner.create_opt()
    return learner


def fit_flat_cos(learner: Learner, epochs: int, lr: float, weight_decay: float, start_epoch: int = 0) -> None:
    """fastai's `fit_flat_cos` with a start epoch, which fastai's own ignores.

    Raises:
        TaggingError: as the callbacks raise it.
    """
    lrs = np.array([lr] * len(learner.opt.hypers))
    schedule = ParamScheduler({"lr": combined_cos(0.75, lrs, lrs, lrs / 1e5)})
    try:
        learner.fit(epochs, lr=lr, wd=weight_decay, cbs=schedule, start_epoch=start_epoch)
    except (TaggingError, torch.OutOfMemoryError) as error:
        # fastai puts the name of the callback in front of the message of any exception that leaves a callback.
        raise type(error)(str(error).split("`:\n\t", 1)[-1]) from error


def train_model(model: Model, train: ClipDataset, valid: ClipDataset, *, title: str, log_path: Path, checkpoint: Path,
                micro_batches: int = 1, noisy: ClipDataset | None = None, on_epoch: OnEpoch) -> float:
    """Train `model` in place with the schedule of its stage, from its checkpoint if there is one.

    Args:
        log_path: csv with one row for each epoch.
        checkpoint: written after each epoch and when the process is asked to stop. The caller removes it.
        micro_batches: parts of each batch, trained one after the other. Batch norm then sees a part, not the batch.
        noisy: as for `TrainingBatches`.
        on_epoch: called with the row of the log after each epoch.
    Returns:
        seconds of all epochs, including those before a stop.
    Raises:
        TaggingError: the loss is not finite, or the checkpoint is damaged.
        Stopped: the process was asked to stop. The checkpoint is written.
    """
    recipe = model.metadata.recipe
    schedule = recipe.schedule(model.metadata.stage)
    batches, optimizer = TrainingBatches(model, train, noisy), Ranger(decay_groups(model.network), schedule.lrs[0])
    check_batch_size(batches.batch_size, micro_batches, title)
    distributed.sync_batch_norm(model.network)
    writer = CheckpointWriter(checkpoint)
    resume = distributed.broadcast(checkpoint.exists())
    if recipe.normalise and not resume:
        mean, std = measure_normalisation(model, train.store)
        model.update(mean=mean, std=std)
    learner = build_learner(model, batches, ValidationBatches(model, valid), optimizer, MicroBatches(micro_batches))
    if resume:
        batches.progress = load_checkpoint(checkpoint, model, optimizer)
        log.info("%s resumes in epoch %d, after %d steps", title, batches.progress.epoch + 1, batches.progress.step,
                 extra={"event": {"fold": model.metadata.fold}})
    progress = batches.progress
    learner.add_cb(TrainingLogger(title, batches, valid, sum(schedule.epochs), log_path, writer, on_epoch))
    before = 0          # epochs of the previous cycles
    try:
        with interrupts.defer_signals(stop_at_end=False):       # TrainingLogger stops between two batches
            for epochs, lr, size in zip(schedule.epochs, schedule.lrs, schedule.sizes):
                batches.image_size = size
                done = progress.epoch - before
                if done < epochs:
                    fit_flat_cos(learner, epochs, lr, recipe.weight_decay, start_epoch=done)
                before += epochs
            writer.wait()
    except interrupts.Stopped:
        # If a loss is not finite, the checkpoint of the last epoch is the better one.
        if distributed.is_main() and all(loss.isfinite() for loss in progress.losses):
            writer.write(model, optimizer, progress)
            writer.wait()
        distributed.barrier()       # torchrun ends all processes soon after one has ended
        raise
    if distributed.world_size() == 1:
        interrupts.stop_if_asked()
    return sum(row["seconds"] for row in progress.rows)
