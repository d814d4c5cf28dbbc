"""Transforms of a batch on the device. Each takes the generator that it draws from. `augment` applies them."""
import math

import torch
import torch.nn.functional as F

from tagging.modeling.logmel import as_float

MIX_DB = 12.0       # an added clip is up to this much quieter than the clip it is added to


def mask_time(images: torch.Tensor, width: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Fill one run of frames of each image with the image's mean; SpecAugment (Park et al., 2019).

    The whole height is filled with the mean of the image as it was given, as in fastaudio's MaskTime.

    Args:
        images: (batch, 1, mels, frames).
        width: smallest and largest number of frames, both included, drawn for each image.
    """
    batch, _, _, frames = images.shape
    low, high = min(width[0], frames), min(width[1], frames)
    draw = torch.rand(2, batch, 1, generator=generator, device=images.device)               # (2, batch, 1)
    size = low + (draw[0] * (high - low + 1)).long()                                        # (batch, 1)
    start = (draw[1] * (frames - size + 1)).long()                                          # (batch, 1)
    frame = torch.arange(frames, device=images.device)                                      # (frames,)
    masked = (frame >= start) & (frame < start + size)                                      # (batch, frames)
    return torch.where(masked[:, None, None], images.mean((1, 2, 3), keepdim=True), images)


def mask_freq(images: torch.Tensor, width: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Fill one run of mel bins of each image with the image's mean; otherwise as `mask_time`."""
    return mask_time(images.transpose(2, 3), width, generator).transpose(2, 3)


def lighting(images: torch.Tensor, strength: float, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Random brightness and contrast, each with its own probability for each image.

    fastai shifts and scales the logit of the pixel values. A normalised log-mel has no bounds, so it has no logit. It
    is on that scale already, so fastai's shift and scale act on it directly: contrast multiplies by a factor from
    1 - strength to 1 / (1 - strength), brightness adds up to logit(0.5 + strength / 2).

    Args:
        images: (batch, 1, mels, frames), mean 0 and standard deviation 1.
    """
    chance, amount = torch.rand(2, 2, len(images), 1, 1, 1, generator=generator, device=images.device)
    chosen = chance < probability                                                           # (2, batch, 1, 1, 1)
    shift = torch.logit(0.5 + strength * (amount[0] - 0.5))
    scale = torch.exp((2 * amount[1] - 1) * -math.log1p(-strength))
    return images * torch.where(chosen[1], scale, 1.0) + torch.where(chosen[0], shift, 0.0)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """(batch, 1, mels, frames) -> (batch, 1, size, size), bilinear."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def change_speed(waves: torch.Tensor, rates: torch.Tensor, size: int) -> torch.Tensor:
    """Play each wave faster or slower like a tape: length and pitch change together. Interpolation is linear.

    Ko et al., "Audio augmentation for speech recognition", 2015.

    Args:
        waves: (batch, samples). The first rates * size of them are played.
        rates: (batch,) float64; 2 is twice as fast and an octave higher.
        size: samples of the result.
    Returns:
        (batch, size) float32 in [-1, 1).
    """
    waves, last = as_float(waves), waves.shape[1] - 1
    place = rates[:, None] * torch.arange(size, device=waves.device)    # (batch, size) float64: float32 is too coarse
    before = place.long().clamp(max=last)
    return torch.lerp(waves.gather(1, before), waves.gather(1, (before + 1).clamp(max=last)),
                      (place - before).float())


def mix_waves(waves: torch.Tensor, targets: torch.Tensor, chance: float,
              generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Add another clip of the batch to some of the clips, which then get the labels of both.

    The added clip is as loud as the other one, or up to MIX_DB quieter. Unlike mixup, a mix keeps both labels in full,
    as a recording of two sounds does. Tokozume et al., "Learning from between-class examples for deep sound
    recognition", 2018; with the union of the labels: Ebbers and Haeb-Umbach, "Convolutional recurrent neural network
    and data augmentation for audio tagging with noisy labels and minimal supervision", 2019.

    Args:
        waves: (batch, samples) float in [-1, 1).
        targets: (batch, classes) float.
        chance: probability for each clip that another one is added to it.
    """
    chosen, quieter = torch.rand(2, len(waves), 1, generator=generator, device=waves.device)        # (batch, 1) each
    chosen, half = chosen < chance, len(waves) // 2         # another partner than mixup's, if the batch has four clips
    others, other_targets = waves.roll(half, 0), targets.roll(half, 0)
    level, other_level = (each.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4) for each in (waves, others))
    gain = level / other_level * 10 ** (-quieter * MIX_DB / 20)                             # (batch, 1)
    return (torch.where(chosen, waves + gain * others, waves),
            torch.where(chosen, targets.maximum(other_targets), targets))


def mixup(images: torch.Tensor, targets: torch.Tensor, alpha: float,
          generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image and its targets with those of another clip (Zhang et al., 2018).

    The batch is in random order already, so each clip's partner is its neighbour and never the clip itself. The share
    of the clip itself is drawn from Beta(alpha, alpha), and the larger share is its own, as in fastai.

    Args:
        images: (batch, 1, height, width).
        targets: (batch, classes) float.
    """
    # Two gamma draws make a beta draw. torch's gamma takes a generator only by this name.
    gamma = torch._standard_gamma(torch.full((2, len(images)), alpha, device=images.device), generator=generator)
    share = gamma[0] / gamma.sum(0)
    share = share.maximum(1 - share)                                                        # (batch,)
    image_share, target_share = share[:, None, None, None], share[:, None]
    return (images * image_share + images.roll(1, 0) * (1 - image_share),
            targets * target_share + targets.roll(1, 0) * (1 - target_share))
