"""Does it learn? The loss at the start, one batch that is overfitted, and fastai's learning rate finder."""
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import CancelFitException
from fastai.learner import Callback, Recorder
from matplotlib.figure import Figure
from torch import nn

from tagging.errors import shorten
from tagging.metric import lwlrap
from tagging.modeling.model import Model
from tagging.reporting.style import BLUE, GREY, ORANGE, VERMILION, new_figure, style_axes
from tagging.training.batches import TrainingBatches
from tagging.training.loop import MicroBatches, build_learner, fit_flat_cos
from tagging.training.optimizer import Ranger, decay_groups
from tagging.utils.interrupts import stop_if_asked
from tools.check.cost import Speed, Steps
from tools.check.subject import Finding, Subject

START = 8                       # clips of a batch whose loss is computed before the first step
LOSS_RANGE = (0.45, 1.1)        # of the first batch; with logits near 0 the loss is ln 2 = 0.693
STEPS = 100                     # of the finder, and to overfit a batch, if the time suffices
FEWEST = 24                     # steps of the finder: with fewer, the curve is too coarse
LRS = (1e-6, 1.0)               # the range of the finder
ABOVE = 3.0                     # the loss is lowest just before it diverges, so stay this many times below
BELOW = 30.0                    # a learning rate this many times below the suggestion is too low
LEAST_LR = 3e-3                 # for overfitting: a rate for fine-tuning is too slow from random weights


class Stopwatch(Callback):
    """Stops a training when its time is over."""

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.taken, self.stopped = seconds, 0, 0.0, False

    def before_fit(self):
        self.started = time.perf_counter()

    def after_batch(self):
        stop_if_asked()
        if self.training:
            self.steps, self.taken = self.steps + 1, time.perf_counter() - self.started
            self.stopped = self.taken > self.seconds
            if self.stopped:
                raise CancelFitException()


class Overfitting(Callback):
    """Records loss and lwlrap of each step on one batch, and stops at lwlrap 1.0."""

    def __init__(self, truth: torch.Tensor):
        self.truth = truth.cpu().numpy()
        self.losses: list[float] = []
        self.scores: list[float] = []

    def after_batch(self):
        if self.training:
            self.logits = self.pred.detach().float().cpu().numpy()
            self.losses.append(float(self.loss))
            finite = np.isfinite(self.logits).all()
            self.scores.append(lwlrap(truth=self.truth, scores=self.logits) if finite else math.nan)
            if not finite or self.scores[-1] >= 1:
                raise CancelFitException()


class NextCrops(Callback):
    """Gives each epoch new crops, as `TrainingLogger` does in a training."""

    def __init__(self, batches: TrainingBatches):
        self.batches = batches

    def after_train(self):
        self.batches.progress.end_epoch({})


def check_start(model: Model, images: torch.Tensor, targets: torch.Tensor) -> Finding:
    """Compare the loss of the first batch with ln 2, the loss of logits that are 0.

    Args:
        model: with random weights.
        images, targets: a batch.
    """
    network = model.network.train()
    with torch.no_grad():
        loss = float(nn.BCEWithLogitsLoss()(network(images[:START]), targets[:START]))
    low, high = LOSS_RANGE
    wrong = "" if low <= loss <= high else (
        "With random weights, it should be near ln 2. Check --network, and the levels of the images in the picture of "
        "the batch.")
    return Finding("loss at the start", f"The loss before the first step is {loss:.3f}. Untrained logits "
                   f"near 0 give ln 2 = {math.log(2):.3f}. {low} to {high} is fine.", wrong=wrong)


def check_overfitting(subject: Subject, normalised: tuple[float, float], speed: Speed,
                      seconds: float) -> tuple[Finding, Speed]:
    """Train on one batch without mixup until its lwlrap is 1.0.

    Args:
        normalised: mean and standard deviation of the log-mel.
        speed: of the network.
        seconds: the time limit.
    Returns:
        the finding, and the speed with what was measured here.
    """
    clips, size = speed.affordable(subject, STEPS, seconds)
    clock = Stopwatch(seconds)
    finding = overfit(subject, normalised, clips, size, clock)
    return finding, Speed((*speed.measured, Steps(clips, size, clock.taken / clock.steps)) if clock.steps > 1
                          else speed.measured)


def overfit(subject: Subject, normalised: tuple[float, float], clips: int, size: int, clock: Stopwatch) -> Finding:
    """Train on one batch of some clips at one image size until its lwlrap is 1.0 or the time is over."""
    model = subject.model(normalised)
    batches = subject.batches(model, size, batch_size=clips, **{subject.stage: replace(subject.schedule, mixup=0.0)})
    names = [] if subject.noisy else batches.names(0)
    images, targets = next(iter(batches))
    truth = (targets > 0.5).float()
    if not truth.any():
        return Finding("overfitting", "The batch has no label.", wrong="Check the column labels of the csv.")
    lr = max(subject.schedule.lrs[0], LEAST_LR)
    watch = Overfitting(truth)
    learner = build_learner(model, [(images, truth)] * (3 * STEPS), [], Ranger(decay_groups(model.network), lr),
                            MicroBatches(1), watch, clock)
    fit_flat_cos(learner, 1, lr, 0.0)
    best, steps = max([0.0, *(score for score in watch.scores if math.isfinite(score))]), len(watch.scores)
    text = (f"{clips} clips of a batch, as images of {size} px, were trained again and again with the learning rate "
            f"{lr:g}. {cut_text(subject, clips, size)}")
    blocks = [draw_overfitting(watch.losses, watch.scores)]
    if best >= 1:
        return Finding("overfitting", f"{text}After {steps} steps their lwlrap is 1.0.", blocks=blocks)
    if not math.isfinite(watch.scores[-1]):
        return Finding("overfitting", f"{text}After {steps} steps the logits are not finite.", blocks=blocks,
                       wrong=f"The training diverges. Choose lower --{subject.stage}.lrs.")
    text += f"After {steps} steps their lwlrap is {watch.scores[-1]:.3f}, and the best was {best:.3f}."
    if steps < STEPS:
        return Finding("overfitting", text, skipped=f"{steps} steps in {clock.taken:.0f} s are too few. Raise "
                       "--seconds, or use a GPU.", blocks=blocks)
    wrong_rows = [number for number in range(clips) if truth[number].any() and lwlrap(
        truth=watch.truth[number:number + 1], scores=watch.logits[number:number + 1]) < 1]
    clips_text = f" Look at {shorten([names[row] for row in wrong_rows], 5)}." if names and wrong_rows else ""
    return Finding("overfitting", text, blocks=blocks, wrong="A network that cannot overfit one batch has a "
                   f"fault.{clips_text} Check for clips with the same sound and other labels (tools.eda), for silent "
                   "images, and try another --network or learning rate.")


def cut_text(subject: Subject, clips: int, size: int) -> str:
    """Say what was made smaller to save time."""
    full = subject.batch_size, subject.schedule.sizes[0]
    return "" if (clips, size) == full else (f"That is less than the {full[0]} clips at {full[1]} px of the recipe, to "
                                             "keep the time limit. ")


def check_learning_rate(subject: Subject, normalised: tuple[float, float], speed: Speed, seconds: float) -> Finding:
    """Run fastai's learning rate finder, and compare the learning rates of the stage with it.

    Args:
        normalised, speed, seconds: as for `check_overfitting`.
    """
    clips, size = speed.affordable(subject, STEPS, seconds)
    steps, clock = min(STEPS, int(seconds / speed.step(clips, size))), Stopwatch(1.1 * seconds)
    if steps < FEWEST:
        return Finding("learning rate", "The learning rate finder did not run.", skipped=f"{FEWEST} steps need about "
                       f"{FEWEST * speed.step(clips, size):.0f} s. Raise --seconds, or use a GPU.")
    model = subject.model(normalised)
    batches = subject.batches(model, size, batch_size=clips)
    learner = build_learner(model, batches, [], Ranger(decay_groups(model.network), LRS[0]), MicroBatches(1),
                            NextCrops(batches), Recorder(), clock)
    with tempfile.TemporaryDirectory() as folder:       # the finder writes the weights, to restore them
        learner.path, learner.model_dir = Path(folder), "."
        try:
            suggestion = learner.lr_find(*LRS, num_it=steps, show_plot=False).valley
        except (IndexError, ValueError):                # no step is left of the curve without its ends
            suggestion = None
    lrs, losses = np.array(learner.recorder.lrs), np.array([float(loss) for loss in learner.recorder.losses])
    text = (f"The finder of fastai raised the learning rate in {len(lrs)} steps from {LRS[0]:g} to {max(lrs):.2g}, "
            f"with {clips} clips at {size} px. {cut_text(subject, clips, size)}")
    if clock.stopped:
        return Finding("learning rate", text, skipped="the time was over before the highest rates. Raise --seconds, or "
                       "use a GPU.")
    if suggestion is None or not np.isfinite(losses).any():
        return Finding("learning rate", text, skipped="the loss did not fall, so there is no suggestion. Compare the "
                       "other checks.")
    lowest = float(lrs[np.nanargmin(losses)])
    low, high = suggestion / BELOW, max(lowest / ABOVE, suggestion)
    outside = [lr for lr in subject.schedule.lrs[:1] if not low <= lr <= high]
    text += f"It suggests {suggestion:.2g}. {low:.1g} to {high:.1g} is fine: the loss is lowest at {lowest:.1g}."
    wrong = f"The recipe has {outside[0]:g}. Try --{subject.stage}.lrs {suggestion:.1g}." if outside else ""
    return Finding("learning rate", text, wrong=wrong,
                   blocks=[draw_learning_rates(lrs, losses, suggestion, subject.schedule.lrs)])


def draw_overfitting(losses: list[float], scores: list[float]) -> Figure:
    """Plot loss and lwlrap of each step on one batch."""
    figure = new_figure(2.8, "Overfitting one batch")
    steps = range(1, len(losses) + 1)
    for axes, values, label, colour in zip(figure.subplots(1, 2), (losses, scores), ("Loss", "lwlrap"), (BLUE, ORANGE)):
        style_axes(axes, "Step", label).plot(steps, values, color=colour, marker=".")
    return figure


def draw_learning_rates(lrs: np.ndarray, losses: np.ndarray, suggestion: float, used: tuple[float, ...]) -> Figure:
    """Plot the smoothed loss over the learning rate, with the suggestion and the learning rates of the recipe."""
    figure = new_figure(3.4, "Learning rate finder")
    axes = style_axes(figure.subplots(), "Learning rate (logarithmic scale)", "Smoothed loss")
    axes.plot(lrs, losses, color=BLUE)
    axes.set_xscale("log")
    axes.plot(suggestion, np.interp(np.log(suggestion), np.log(lrs), losses), "o", color=VERMILION,
              label=f"suggestion {suggestion:.2g}")
    for number, lr in enumerate(dict.fromkeys(used)):
        axes.axvline(lr, color=GREY, linestyle="--" if number == 0 else ":", label=f"recipe {lr:g}")
    axes.legend(fontsize=8, frameon=False)
    return figure
