"""Check, mix, resample and trim the samples of sound files."""
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tagging_lite.decoding.sndfile import BLOCK
from tagging_lite.decoding.sound import CLIPPED, decode, open_sound
from tagging_lite.errors import SoundError

LONGEST = 16_000_000    # samples of a clip, 6 minutes at 44.1 kHz; a few kilobytes of flac can contain hours of silence
SILENCE = 1e-10 * 32768 ** 2    # smallest mean energy of a frame: librosa's floor, for samples of 16 bits


@dataclass(frozen=True)
class RemoveSilence:
    """Trim the silence at both ends of a clip, as fastaudio's RemoveSilence of type Trim does.

    A frame of 2048 samples is silent if its mean energy is `threshold` dB or more below that of the loudest frame. In
    fastaudio the padding is also the hop between frames, so one number sets both here too. Frames at the edges are
    padded by reflection. librosa did so before 0.9, and the published starting system used such a version.
    """
    threshold: float = 20.0        # dB below the loudest frame
    pad_ms: float = 20.0           # padding that is kept at both ends, and the hop between frames
    frame_length: int = 2048       # samples

    def bounds(self, wave: np.ndarray, sample_rate: int) -> tuple[int, int]:
        """Return the first sample to keep, and the one after the last.

        Args:
            wave: (samples,) int16.
            sample_rate: Hz.
        """
        hop = int(self.pad_ms / 1000 * sample_rate)
        if len(wave) < 2 or hop < 1:
            return 0, len(wave)
        padded = np.pad(wave, self.frame_length // 2, mode="reflect")
        frames = sliding_window_view(padded, self.frame_length)[::hop]                     # (frames, frame_length)
        # Sums of squares of whole numbers are exact in float64. An exported model finds the same frames, see ClipGraph.
        energy = np.maximum(np.einsum("ij,ij->i", frames, frames, dtype=np.float64), SILENCE * self.frame_length)
        loud = np.flatnonzero(energy * 10 ** (self.threshold / 10) > energy.max())
        return max(0, int(loud[0] - 1) * hop), min(len(wave), int(loud[-1] + 2) * hop)


def make_trim(trim_db: float) -> RemoveSilence | None:
    """Return the trimming for a threshold in dB below the loudest frame. 0 keeps the silence: None."""
    return RemoveSilence(threshold=trim_db) if trim_db else None


class LoadedClip(NamedTuple):
    """A decoded clip of a competition."""
    wave: np.ndarray        # (samples,) int16, empty if the clip cannot be used
    rate: int               # Hz, 0 if the clip cannot be used
    fault: str              # the reason why the clip cannot be used, or ""
    notes: tuple[str, ...]  # remarks, such as that samples were scaled


def load_clip(path: Path, trim: RemoveSilence | None) -> LoadedClip:
    """Decode and trim one clip of a competition. It must be mono.

    Args:
        trim: None keeps the silence.
    """
    try:
        with open_sound(path) as sound:
            if sound.channels != 1:
                raise SoundError(f"{sound.channels} channels, but a clip must be mono")
            blocks, count, decoded = [], sound.frames or 0, 0
            for block in decode(sound) if count <= LONGEST else ():
                blocks.append(block[:, 0])
                decoded += len(block)
                if decoded > LONGEST:
                    break
            count = max(count, decoded)
            if count > LONGEST:
                raise SoundError(f"too long: {count} samples, but at most {LONGEST} are allowed")
            wave = concatenate(blocks)
            require_sound(wave)
            return LoadedClip(trim_silence(wave, sound.samplerate, trim), sound.samplerate, "", tuple(sound.notes))
    except SoundError as error:
        return LoadedClip(concatenate(()), 0, str(error), ())


def read_mono(path: Path, sample_rate: int, longest: float = math.inf,
              notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """Read a sound file of any length and format, mixed to one channel and resampled. The use of memory is bounded.

    Args:
        sample_rate: Hz of the samples to return.
        longest: greatest length of the file, in seconds.
        notes: remarks are added to it, such as that samples were scaled.
    Yields:
        (samples,) int16, pieces of whole seconds. A file of up to 6 minutes at 44.1 kHz is one piece.
    Raises:
        SoundError: the file cannot be used, or is too long.
    """
    with open_sound(path) as sound:
        rate = sound.samplerate

        def check_length(samples: int) -> None:
            if samples > longest * rate:
                raise SoundError(f"{math.ceil(samples / rate)} seconds long, where at most {longest:g} are taken")

        check_length(sound.frames or 0)
        size = max(1, LONGEST // sample_rate) * sample_rate     # samples of a piece
        resampler, blocks, count, total = Resampler(rate, sample_rate), [], 0, 0
        for block in chain(decode(sound), [None]):      # None is the end
            if block is None:
                changed = resampler.finish()
            else:
                total += len(block)
                check_length(total)
                changed = resampler(np.round(block.mean(1)).astype(np.int16) if sound.channels > 1 else block[:, 0])
            blocks.append(changed)
            count += len(changed)
            while count >= size or (block is None and count):
                wave = concatenate(blocks)
                yield wave[:size]
                blocks, count = [wave[size:]], max(0, count - size)
        if notes is not None:
            notes += dict.fromkeys([*sound.notes, *([CLIPPED] if resampler.clipped else [])])


class Piece(NamedTuple):
    """Up to `LONGEST` samples of a decoded file."""
    wave: np.ndarray        # (samples,) int16
    start: int              # first sample after the silence at the start
    stop: int               # the one after the last before the silence at the end; `start` if there is no sound


def read_pieces(path: Path, sample_rate: int, trim: RemoveSilence | None, longest: float = math.inf,
                notes: list[str] | None = None) -> Iterator[Piece]:
    """Read a sound file as `read_mono` does, and find the silence at both ends of each piece.

    Args:
        trim: None keeps the silence.
    Raises:
        SoundError: as `read_mono`.
    """
    for wave in read_mono(path, sample_rate, longest, notes):
        bounds = trim.bounds(wave, sample_rate) if trim else (0, len(wave))
        yield Piece(wave, *(bounds if has_sound(wave) else (0, 0)))


def concatenate(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Concatenate any number of (samples,) int16 arrays. The result is empty if there are none."""
    return np.concatenate([np.zeros(0, np.int16), *blocks])


def has_sound(wave: np.ndarray) -> bool:
    """Whether (samples,) is neither empty nor constant."""
    return len(wave) > 0 and wave.min() != wave.max()


def require_sound(wave: np.ndarray) -> None:
    """Check that (samples,) is neither empty nor constant.

    Raises:
        SoundError: it is.
    """
    if not has_sound(wave):
        raise SoundError("all silence" if len(wave) else "no samples")


def trim_silence(wave: np.ndarray, sample_rate: int, trim: RemoveSilence | None) -> np.ndarray:
    """Return (samples,) without the silence at both ends, or as it is if `trim` is None."""
    return wave[slice(*trim.bounds(wave, sample_rate))] if trim else wave


class Resampler:
    """Changes the sample rate of a sound, block by block, with soxr in high quality.

    A constant, the mean of the first block, is left as it is, so that a constant signal stays constant, without edges
    where it begins and ends.

    Attributes:
        clipped: whether samples got beyond full scale and were clipped.

    Args:
        old, new: Hz.
    """

    def __init__(self, old: int, new: int):
        self.stream = None
        self.first: np.ndarray | None = None        # the first sample
        self.offset, self.clipped, self.returned = np.float32(0), False, False
        if old != new:
            import soxr  # here, because a kernel on Kaggle may not have it, and never resamples
            self.stream = soxr.ResampleStream(old, new, 1, dtype="float32", quality="HQ")

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """Change (samples,) int16. The result is delayed: `finish` returns the rest."""
        if self.stream is None or not len(wave):
            return wave
        if self.first is None:
            self.first, self.offset = wave[:1], np.float32(wave.mean())
        blocks = [self.convert(wave[start:start + BLOCK]) for start in range(0, len(wave), BLOCK)]  # floats are large
        return concatenate(blocks)

    def finish(self) -> np.ndarray:
        """Return the last samples (samples,) int16."""
        if self.stream is None or self.first is None:
            return concatenate(())
        rest = self.convert(concatenate(()), last=True)
        return self.first if len(rest) == 0 and not self.returned else rest     # nothing is left of a sample or two

    def convert(self, wave: np.ndarray, last: bool = False) -> np.ndarray:
        assert self.stream is not None
        changed = self.stream.resample_chunk(wave.astype(np.float32) - self.offset, last=last) + self.offset
        self.returned |= len(changed) > 0
        self.clipped |= bool((np.abs(changed) > 32768).any())
        return np.clip(np.round(changed), -32768, 32767).astype(np.int16)


def resample(wave: np.ndarray, old: int, new: int, notes: list[str] | None = None) -> np.ndarray:
    """Change the sample rate as `Resampler` does.

    Args:
        wave: (samples,) int16.
        old, new: Hz.
        notes: a remark is added to it if samples get beyond full scale and are clipped.
    Returns:
        (about samples * new / old, and at least one,) int16.
    """
    resampler = Resampler(old, new)
    changed = concatenate([resampler(wave), resampler.finish()])
    if resampler.clipped and notes is not None:
        notes.append(CLIPPED)
    return changed
