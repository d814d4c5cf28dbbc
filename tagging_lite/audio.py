"""Sound files: decode, find what is wrong with them, trim their silence, change their sample rate."""
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from numpy.lib.stride_tricks import sliding_window_view

from tagging_lite.errors import SoundError

BLOCK = 1_000_000       # samples decoded at a time
LONGEST = 16_000_000    # samples of a clip, 6 minutes at 44.1 kHz; a few kilobytes of flac can hold hours of silence
RATES = 1_000, 400_000  # Hz, what a sample rate may be


@dataclass(frozen=True)
class RemoveSilence:
    """Find where a clip begins and ends, as fastaudio's RemoveSilence of type Trim does.

    A frame of 2048 samples is silent if its mean energy lies `threshold` dB below that of the loudest one. fastaudio
    uses the padding as the hop from frame to frame, so both are one number here too. Frames at the edges are padded
    by reflection, as librosa did before 0.9, on which the starting system ran.
    """
    threshold: float = 20.0        # dB below the loudest frame
    pad_ms: float = 20.0           # kept on either side, and the hop
    frame_length: int = 2048       # samples

    def bounds(self, wave: np.ndarray, sample_rate: int) -> tuple[int, int]:
        """First sample to keep, and one past the last.

        Args:
            wave: (samples,) int16.
            sample_rate: Hz.
        """
        hop = int(self.pad_ms / 1000 * sample_rate)
        if len(wave) < 2 or hop < 1:
            return 0, len(wave)
        padded = np.pad(wave, self.frame_length // 2, mode="reflect").astype(np.float32)
        frames = sliding_window_view(padded, self.frame_length)[::hop]                     # (frames, frame_length)
        energy = np.einsum("ij,ij->i", frames, frames) / (self.frame_length * 32768 ** 2)  # (frames,)
        decibels = 10 * np.log10(np.maximum(energy, 1e-10))     # the floor is librosa's
        loud = np.flatnonzero(decibels > decibels.max() - self.threshold)
        return max(0, int(loud[0] - 1) * hop), min(len(wave), int(loud[-1] + 2) * hop)


def make_trim(trim_db: float) -> RemoveSilence | None:
    """Return the trimming for a threshold in dB below the loudest frame. 0 keeps the silence: None."""
    return RemoveSilence(threshold=trim_db) if trim_db else None


def load_clip(path: Path, trim: RemoveSilence | None) -> tuple[np.ndarray, int, str]:
    """Decode and trim one clip of a competition, which has to be mono.

    Returns:
        wave: (samples,) int16, empty if the clip cannot be used.
        rate: Hz, 0 if the clip cannot be used.
        fault: why the clip cannot be used, or "".
    """
    try:
        with open_sound(path) as file:
            if file.channels != 1:
                raise SoundError(f"{file.channels} channels where one is expected")
            if file.frames > LONGEST:
                raise SoundError(f"too long: {file.frames} samples where at most {LONGEST} are read; cut it")
            wave = join(block[:, 0] for block in decode(file))
            require_sound(wave)
            return trimmed(wave, file.samplerate, trim), file.samplerate, ""
    except SoundError as error:
        return join(()), 0, str(error)


def read_mono(path: Path, sample_rate: int, longest: float = math.inf) -> Iterator[np.ndarray]:
    """Read any sound file, mixed to one channel and resampled, in pieces of whole seconds that bound the memory.

    Args:
        longest: seconds of a file, at most.
    Yields:
        (samples,) int16 at `sample_rate` Hz. A file of up to 6 minutes at 44.1 kHz is one piece.
    Raises:
        SoundError: the file cannot be used, or is longer.
    """
    with open_sound(path) as file:
        rate = file.samplerate
        if file.frames > longest * rate:
            raise SoundError(f"{file.frames / rate:.0f} seconds long, where at most {longest:.0f} are taken")
        size = max(1, LONGEST // max(rate, sample_rate)) * rate          # samples of a piece as it is read
        held, count = [], 0
        for block in decode(file):
            mono = np.round(block.mean(1)).astype(np.int16) if file.channels > 1 else block[:, 0]
            held, count = [*held, mono], count + len(mono)
            if count >= size:
                wave = join(held)
                yield resample(wave[:size], rate, sample_rate)
                held, count = [wave[size:]], count - size
        if count:
            yield resample(join(held), rate, sample_rate)


@contextmanager
def open_sound(path: Path) -> Iterator[soundfile.SoundFile]:
    """
    Raises:
        SoundError: the file cannot be used, also if that shows within the block.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):         # a pipe would be waited for without end
            raise SoundError("not a regular file")
        if fault := riff_fault(path):
            raise SoundError(fault)
        with soundfile.SoundFile(path) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise SoundError(f"a sample rate of {file.samplerate} Hz")
            yield file
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:     # TypeError: a name with .raw
        raise SoundError(f"unreadable ({error})") from error


def decode(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Decode in blocks, because a header may promise more samples than any memory holds.

    Yields:
        (samples, channels) int16.
    Raises:
        SoundError: the file was cut short, or holds samples that are not finite.
    """
    # libsndfile does not scale floats when it is asked for integers.
    kind, samples = "int16" if file.subtype == "PCM_16" else "float32", 0
    while len(block := file.read(max(1, BLOCK // file.channels), dtype=kind, always_2d=True)):
        if kind == "float32":
            if not np.isfinite(block).all():
                raise SoundError("samples that are not finite numbers")
            block = np.round(np.clip(block, -1, 32767 / 32768) * 32768).astype(np.int16)
        samples += len(block)
        yield block
    if samples < file.frames:
        raise SoundError(f"cut short: {file.frames - samples} of {file.frames} samples are missing")


def join(blocks: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *blocks])


def has_sound(wave: np.ndarray) -> bool:
    return len(wave) > 0 and wave.min() != wave.max()


def require_sound(wave: np.ndarray) -> None:
    """
    Raises:
        SoundError: there is nothing to hear.
    """
    if not has_sound(wave):
        raise SoundError("all silence" if len(wave) else "no samples")


def trimmed(wave: np.ndarray, sample_rate: int, trim: RemoveSilence | None) -> np.ndarray:
    return wave[slice(*trim.bounds(wave, sample_rate))] if trim else wave


def resample(wave: np.ndarray, old: int, new: int) -> np.ndarray:
    """Change the sample rate by interpolation with a windowed sinc, equal to torchaudio's `resample`.

    The ratio is rounded to one of whole numbers up to 2000, which is off by half a thousandth at most and exact for
    all rates in use: between 44,100 and 44,101 Hz the exact one would take a table of gigabytes.
    Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/.

    Args:
        wave: (samples,) int16.
        old, new: Hz.
    Returns:
        (ceil(samples * new / old),) int16.
    """
    ratio = Fraction(new, old)
    ratio = ratio.limit_denominator(2000) if ratio <= 1 else 1 / (1 / ratio).limit_denominator(2000)
    new, old = ratio.as_integer_ratio()
    if new == old or not len(wave):
        return wave
    cutoff, zeros = 0.99 * min(old, new), 6                     # torchaudio's rolloff, and zero crossings on a side
    reach = math.ceil(zeros * old / cutoff)                                                 # samples on a side
    times = -np.arange(new)[:, None] / new + np.arange(-reach, reach + old)[None] / old     # (new, taps)
    times = np.clip(times * cutoff, -zeros, zeros)
    kernels = (np.sinc(times) * np.cos(times * np.pi / zeros / 2) ** 2 * cutoff / old).astype(np.float32)
    padded = np.pad(wave, (reach, reach + old))
    frames = sliding_window_view(padded, kernels.shape[1])[::old]                           # (frames, taps)
    rows = max(1, BLOCK // kernels.shape[1])
    parts = [np.clip(np.round(frames[first:first + rows].astype(np.float32) @ kernels.T), -32768, 32767)
             .astype(np.int16).ravel() for first in range(0, len(frames), rows)]            # (rows * new,) each
    return np.concatenate(parts)[:math.ceil(len(wave) * new / old)]


def riff_fault(path: Path) -> str:
    """Say how much of a WAV file is missing, or ""; libsndfile reads a file that was cut short without a word."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return "0 bytes"
        if file.read(4) != b"RIFF":
            return ""                   # another format; libsndfile judges it
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", header)
            if name == b"data":
                # Programs that write to a pipe leave 0 or the largest number as the length.
                missing = length - (size - file.tell()) if length not in (0, 0xFFFFFFFF) else 0
                return f"cut short: {missing} of {length} bytes are missing" if missing > 0 else ""
            file.seek(length + length % 2, os.SEEK_CUR)
    return "cut short: it has no data chunk"
