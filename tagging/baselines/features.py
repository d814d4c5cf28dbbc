"""Clip features: a row of numbers for each clip, as librosa computes them, on torch and in batches.

Frames have about 46 ms, a power of two of samples (2048 at 44.1 kHz, 1024 at 16 kHz), and the hop is a quarter of that.
"""
from itertools import pairwise

import numpy as np
import torch
from torchaudio.functional import create_dct, melscale_fbanks

MELS, MFCCS, BANDS, DELTA_WIDTH = 128, 20, 7, 9
ROLL_OFF, QUANTILE = 0.85, 0.02         # share of the magnitude, and of the bins of a band: librosa's defaults
FLOOR, TOP_DB = 1e-10, 80.0             # of a power, and of a clip in decibels: librosa's defaults
BLOCK = 256                             # frames that are transformed at once; more leave the cache of a core
STATISTICS = ("mean", "std", "skewness", "min", "median", "max")
ROWS = (*(f"mfcc {number}" for number in range(1, MFCCS + 1)),
        *(f"mfcc delta {number}" for number in range(1, MFCCS + 1)),
        "centroid", "bandwidth", "roll-off", "flatness", *(f"contrast {band}" for band in range(1, BANDS + 1)),
        "zero crossings", "rms")
FEATURES = (*(f"{row}, {statistic}" for row in ROWS for statistic in STATISTICS), "seconds")


class ClipFeatures:
    """Computes the features of clips of one sample rate.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int):
        self.sample_rate = sample_rate
        self.n_fft = max(256, 2 ** round(np.log2(2048 * sample_rate / 44_100)))
        self.hop = self.n_fft // 4
        self.window = torch.hann_window(self.n_fft)
        self.bank = melscale_fbanks(self.n_fft // 2 + 1, 0.0, sample_rate / 2, MELS, sample_rate, norm="slaney",
                                    mel_scale="slaney")                                     # (frequencies, mels)
        self.dct = create_dct(MFCCS, MELS, norm="ortho")                                    # (mels, mfccs)
        self.frequencies = torch.linspace(0, sample_rate / 2, self.n_fft // 2 + 1)          # Hz
        self.bands = contrast_bands(self.frequencies.numpy(), sample_rate)

    def __call__(self, waves: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Compute the features of a batch.

        Args:
            waves: (clips, samples) int16, with zeros after the end of a clip.
            lengths: (clips,) samples of each clip, 1 or more.
        Returns:
            (clips, features) float32 in the order of `FEATURES`.
        """
        rows, counts = self.frame_rows(torch.from_numpy(waves), torch.from_numpy(lengths))
        seconds = torch.from_numpy(lengths / self.sample_rate)[:, None]                     # (clips, 1)
        return torch.cat([summarise(rows, counts).flatten(1), seconds], 1).numpy().astype(np.float32)

    @torch.inference_mode()
    def frame_rows(self, waves: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the rows of all frames.

        Args:
            waves, lengths: as above.
        Returns:
            (clips, rows, frames) float64 in the order of `ROWS`, and the number of frames of each clip (clips,).
        """
        counts = 1 + lengths // self.hop
        padded = torch.nn.functional.pad(waves.float() / 32768, (self.n_fft // 2, self.n_fft // 2))
        frames = padded.unfold(1, self.n_fft, self.hop)[:, :int(counts.max())]              # (clips, frames, n_fft)
        step = max(1, BLOCK // len(waves))
        parts = [self.spectral_rows(frames[:, begin:begin + step]) for begin in range(0, frames.shape[1], step)]
        mels, valleys, peaks, others = (torch.cat(part, 1) for part in zip(*parts))         # (clips, frames, ...)
        valid = torch.arange(frames.shape[1]) < counts[:, None]                             # (clips, frames)
        mfcc = decibels(mels, valid) @ self.dct                                             # (clips, frames, mfccs)
        contrast = decibels(peaks, valid) - decibels(valleys, valid)                        # (clips, frames, bands)
        crossings = self.zero_crossings(waves, lengths, frames.shape[1])
        rows = torch.cat([mfcc, deltas(mfcc, counts), others[..., :4], contrast, crossings, others[..., 4:]], 2)
        return rows.transpose(1, 2).double(), counts

    def spectral_rows(self, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(clips, frames, n_fft) -> mel powers (clips, frames, mels), magnitudes of the valleys and peaks of each band
        (clips, frames, bands), and centroid, bandwidth, roll-off, flatness, rms (clips, frames, 5)."""
        spectrum = torch.fft.rfft(frames * self.window)
        power = spectrum.real.square() + spectrum.imag.square()                             # (clips, frames, freqs)
        magnitude = power.sqrt()
        total = magnitude.sum(-1, keepdim=True)
        scale = torch.where(total > 0, total, 1.0)                                          # silent frames stay zero
        centroid = (magnitude @ self.frequencies)[..., None] / scale
        spread = (self.frequencies - centroid).square().mul_(magnitude).sum(-1, keepdim=True) / scale
        summed = magnitude.cumsum(-1)
        bins = torch.searchsorted(summed, ROLL_OFF * summed[..., -1:])
        floored = power.clamp(min=FLOOR)
        flatness = floored.log().mean(-1, keepdim=True).exp() / floored.mean(-1, keepdim=True)
        rms = frames.square().mean(-1, keepdim=True).sqrt()
        others = torch.cat([centroid, spread.sqrt(), self.frequencies[bins], flatness, rms], -1)
        return power @ self.bank, *self.valleys_and_peaks(magnitude), others

    def valleys_and_peaks(self, magnitude: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(clips, frames, freqs) -> the mean of the lowest, and of the highest, bins of each band, each of them
        (clips, frames, bands)."""
        valleys, peaks = [], []
        for place, count in self.bands:
            ordered = np.sort(magnitude[..., place].numpy(), axis=-1)       # three times as fast as torch's topk
            valleys.append(ordered[..., :count].mean(-1))
            peaks.append(ordered[..., -count:].mean(-1))
        return torch.from_numpy(np.stack(valleys, -1)), torch.from_numpy(np.stack(peaks, -1))

    def zero_crossings(self, waves: torch.Tensor, lengths: torch.Tensor, frames: int) -> torch.Tensor:
        """(clips, samples) -> the share of the samples of each frame at which the sign changes: (clips, frames, 1).

        Frames at the edges repeat the first and the last sample, so there are no crossings outside a clip.
        """
        negative = waves < 0
        changes = torch.nn.functional.pad(negative[:, 1:] != negative[:, :-1], (1, 0))
        until = changes.cumsum(1)                                                           # (clips, samples)
        first = torch.arange(frames) * self.hop - self.n_fft // 2
        last = (lengths - 1)[:, None]
        begin, end = (torch.minimum(place.clamp(min=0), last) for place in (first, first + self.n_fft - 1))
        return ((until.gather(1, end) - until.gather(1, begin)).float() / self.n_fft)[..., None]


def contrast_bands(frequencies: np.ndarray, sample_rate: int) -> list[tuple[slice, int]]:
    """Return the bins of each band, and how many of them are its valley and its peak.

    The bands are octaves from 200 Hz, or from a lower frequency if the sample rate has no room for them. Neighbouring
    bands share no bin, except that librosa gives each band the bin below it.
    """
    lowest = min(200.0, sample_rate / 80)
    edges = np.array([0, *(lowest * 2.0 ** np.arange(BANDS))])
    bands = []
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = np.flatnonzero((frequencies >= low) & (frequencies <= high))
        begin = inside[0] - (number > 0)
        end = len(frequencies) if number == BANDS - 1 else inside[-1] + 1
        count = max(1, round(QUANTILE * (end - begin)))
        bands.append((slice(begin, end if number == BANDS - 1 else end - 1), count))
    return bands


def decibels(power: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(clips, frames, n) -> decibels, at most `TOP_DB` below the loudest value of the valid frames of each clip."""
    levels = 10 * power.clamp(min=FLOOR).log10()
    loudest = levels.masked_fill(~valid[..., None], -torch.inf).amax((1, 2), keepdim=True)
    return levels.maximum(loudest - TOP_DB)


def deltas(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(clips, frames, n) -> the slope over `DELTA_WIDTH` frames. The first and the last frame of a clip are repeated
    outside it, so clips can be shorter than that: librosa's mode "nearest"."""
    half = DELTA_WIDTH // 2
    last = (counts - 1)[:, None]
    frames = torch.arange(values.shape[1])
    result = torch.zeros_like(values)
    for shift in range(1, half + 1):
        later, earlier = (torch.minimum((frames + sign * shift).clamp(min=0), last)[..., None].expand_as(values)
                          for sign in (1, -1))
        result += shift * (values.gather(1, later) - values.gather(1, earlier))
    return result / (2 * sum(shift**2 for shift in range(1, half + 1)))


def summarise(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(clips, rows, frames) float64 and the frames of each clip (clips,) -> (clips, rows, statistics)."""
    outside = torch.arange(rows.shape[2]) >= counts[:, None, None]                          # (clips, 1, frames)
    count = counts[:, None]                                                                 # (clips, 1)
    mean = rows.masked_fill(outside, 0).sum(2) / count
    deviation = (rows - mean[..., None]).masked_fill(outside, 0)
    std = (deviation.square().sum(2) / count).sqrt()
    varies = std > 1e-6 * mean.abs().clamp(min=1e-6)            # else rounding errors would decide the skewness
    skewness = torch.where(varies, deviation.pow(3).sum(2) / count / torch.where(varies, std, 1).pow(3), 0)
    ordered = rows.masked_fill(outside, torch.inf).sort(2).values
    middle = [ordered.gather(2, place[:, None, None].expand(-1, rows.shape[1], 1))[..., 0]
              for place in ((counts - 1) // 2, counts // 2, counts - 1)]
    return torch.stack([mean, std, skewness, ordered[..., 0], (middle[0] + middle[1]) / 2, middle[2]], 2)
