"""A batch after all augmentation: its images with their labels, its sounds, and faults of the clips in it."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure

from tagging.errors import shorten
from tagging.modeling.logmel import as_float
from tagging.modeling.model import Model
from tagging.reporting.style import WIDTH, escape_name
from tagging.utils.files import atomic
from tools.check.subject import Finding, Subject

SHOWN = 8               # images in the picture, and sounds in the file
CROPS = 512             # crops in which faults are searched
FULL_SCALE = 32767      # of int16
CLIPPED = 0.001         # a crop is clipped if this share of its samples is at full scale
MOST = 0.1              # share of the crops that may be silent or clipped
PAUSE = 0.5             # seconds of silence between two sounds


@dataclass(frozen=True)
class Batch:
    """One batch as the network gets it."""
    images: torch.Tensor        # (batch, 1, size, size)
    targets: torch.Tensor       # (batch, classes), between 0 and 1 after mixup
    waves: np.ndarray           # (batch, samples) float, after all augmentation of waves
    names: list[str]            # (batch,) of the clips, or none if the batch was put into a random order


def first_batch(subject: Subject, model: Model, size: int) -> Batch:
    """Return the first batch of the training, and the waves that its images were made of."""
    heard: list[torch.Tensor] = []
    hook = model.log_mel.register_forward_pre_hook(lambda _module, inputs: heard.append(inputs[0]))
    try:
        batches = subject.batches(model, size)
        images, targets = next(iter(batches))
    finally:
        hook.remove()
    return Batch(images, targets, as_float(heard[0]).cpu().numpy(), [] if subject.noisy else batches.names(0))


def check_batch(subject: Subject, model: Model, batch: Batch, sound: Path) -> list[Finding]:
    """Show the batch, and search its clips and images for faults.

    Args:
        sound: the wav file to write.
    """
    louder = write_sounds(sound, batch.waves[:SHOWN], subject.folded.store.sample_rate)
    schedule, count = subject.schedule, min(SHOWN, len(batch.images))
    text = (f"The first {count} of {len(batch.images)} images of a batch, after all augmentation, are in the picture. "
            f"Their sounds are in {sound.name}, in the same order, with {PAUSE} s between them.")
    if louder > 1:
        text += f" The sounds are {louder:.1f} times quieter in the file, so that the mixed ones are not clipped."
    if schedule.mixup:
        text += (" Mixup blends each image with its neighbour after that. The numbers are the shares of the labels, "
                 "and the sound is the clip with the larger share.")
    return [Finding(f"{subject.stage} batch", text, wrong=image_faults(batch),
                    blocks=[draw_batch(batch, subject.competition.classes)]),
            check_crops(subject, model), check_labels(subject)]


def image_faults(batch: Batch) -> str:
    """Return what is wrong with the images of the batch, or ""."""
    images = batch.images.flatten(1)                                                # (batch, pixels)
    infinite = int((~images.isfinite()).any(1).sum())
    flat = int((images.std(1) < 1e-3).sum())
    unlabelled = int((batch.targets.sum(1) == 0).sum())
    faults = []
    if infinite:
        faults.append(f"{infinite} images have values that are not finite. Look for damaged clips with tools.eda.")
    if flat:
        faults.append(f"{flat} images have the same value everywhere, as silence has. Listen to the clips, raise "
                      "--crop-seconds, or trim silence with --trim-db.")
    if unlabelled > len(images) / 2:
        faults.append(f"{unlabelled} of {len(images)} images have no label. Check the column labels of the csv.")
    return " ".join(faults)


def check_crops(subject: Subject, model: Model) -> Finding:
    """Search crops of the first epoch for silence and clipping."""
    batches = subject.batches(model, subject.schedule.sizes[0])
    silent, clipped, total = [], [], 0
    for source, crops in zip(batches.sources, batches.draw()):
        chosen = slice(0, CROPS // len(batches.sources))
        clips = crops.clips[chosen]
        waves = source.dataset.store.crops(clips, crops.starts[chosen], batches.augmentation.crop)  # (crops, samples)
        names = source.dataset.fnames[clips]
        silent += list(names[~waves.any(1)])
        clipped += list(names[(np.abs(waves.astype(np.int32)) >= FULL_SCALE).mean(1) > CLIPPED])
        total += len(clips)
    wrong = []
    if len(silent) > MOST * total:
        wrong.append(f"Many crops are silent, as of {shorten(sorted(set(silent)), 3)}. Listen to these clips, or raise "
                     "--crop-seconds.")
    if len(clipped) > MOST * total:
        wrong.append(f"Many crops are clipped, as of {shorten(sorted(set(clipped)), 3)}. Record at a lower level, or "
                     "convert from the originals, if there are any that are not clipped.")
    return Finding(f"{subject.stage} crops", f"Of {total} random crops, {len(silent)} are digital silence, and "
                   f"{len(clipped)} have more than {CLIPPED:.1%} of their samples at full scale. Up to {MOST:.0%} is "
                   "fine.", wrong=" ".join(wrong))


def check_labels(subject: Subject) -> Finding:
    """Check that the model of each fold has a training clip of each class."""
    missing = {}
    folds = range(1, subject.recipe.fold_count + 1)
    for fold in folds:
        counts = subject.folded.train(fold).targets.sum(0)
        if names := [name for name, count in zip(subject.competition.classes, counts) if not count]:
            missing[fold] = names
    counts = subject.folded.clips.targets.sum(0)
    rarest = int(counts.argmin())
    wrong = " ".join(f"The model of fold {fold} has no training clip of {shorten(names, 3)}."
                     for fold, names in missing.items())
    return Finding(f"{subject.stage} labels", f"{len(subject.folded.clips)} clips of {len(counts)} classes. The rarest "
                   f"class is {subject.competition.classes[rarest]}, with {counts[rarest]:g} clips.",
                   wrong=f"{wrong} Add clips of these classes, or add --stratified." if wrong else "")


def label_text(targets: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return the labels of an image, the largest share first, with their shares if they are mixed."""
    order = [place for place in np.argsort(-targets, kind="stable") if targets[place] > 0.005]
    lines = [escape_name(classes[place]) + ("" if targets[place] > 0.995 else f" {targets[place]:.2f}")
             for place in order[:4]]
    return "\n".join([*lines, *([f"and {len(order) - 4} more"] if len(order) > 4 else [])]) or "(no label)"


def draw_batch(batch: Batch, classes: tuple[str, ...]) -> Figure:
    """Draw the first images of a batch with their labels, and with the names of their clips if they are known."""
    figure = Figure((WIDTH, 6.4), layout="constrained")
    images, targets = batch.images[:SHOWN, 0].cpu().numpy(), batch.targets[:SHOWN].cpu().numpy()
    low, high = np.percentile(images[np.isfinite(images)], (1, 99)) if np.isfinite(images).any() else (0, 1)
    for number, axes in enumerate(figure.subplots(2, SHOWN // 2).flat):
        axes.set_axis_off()
        if number < len(images):
            axes.imshow(images[number], origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high)
            axes.set_title(f"{number + 1}. {label_text(targets[number], classes)}", fontsize=8)
            if batch.names:
                axes.text(0.5, -0.02, escape_name(batch.names[number]), fontsize=6, ha="center", va="top",
                          transform=axes.transAxes)
    return figure


def write_sounds(path: Path, waves: np.ndarray, sample_rate: int) -> float:
    """Write waves (sounds, samples) one after the other.

    Returns:
        the factor by which they are quieter than in the batch, 1 if none is above full scale.
    """
    louder = max(1.0, float(np.abs(waves).max()))
    pause = np.zeros((len(waves), round(PAUSE * sample_rate)), waves.dtype)
    with atomic(path) as temporary:
        soundfile.write(temporary, np.hstack([waves / louder, pause]).ravel(), sample_rate, "PCM_16", format="WAV")
    return louder
