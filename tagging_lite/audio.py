"""Decode, check, trim and resample sound files."""
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

BLOCK = 1_000_000       # samples that are decoded at a time
LONGEST = 16_000_000    # samples of a clip, 6 minutes at 44.1 kHz; a few kilobytes of flac can contain hours of silence
RATES = 1_000, 400_000  # lowest and highest sample rate, Hz


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
        padded = np.pad(wave, self.frame_length // 2, mode="reflect").astype(np.float32)
        frames = sliding_window_view(padded, self.frame_length)[::hop]                     # (frames, frame_length)
        energy = np.einsum("ij,ij->i", frames, frames) / (self.frame_length * 32768 ** 2)  # (frames,)
        decibels = 10 * np.log10(np.maximum(energy, 1e-10))     # librosa's floor
        loud = np.flatnonzero(decibels > decibels.max() - self.threshold)
        return max(0, int(loud[0] - 1) * hop), min(len(wave), int(loud[-1] + 2) * hop)


def make_trim(trim_db: float) -> RemoveSilence | None:
    """Return the trimming for a threshold in dB below the loudest frame. 0 keeps the silence: None."""
    return RemoveSilence(threshold=trim_db) if trim_db else None


def load_clip(path: Path, trim: RemoveSilence | None) -> tuple[np.ndarray, int, str]:
    """Decode and trim one clip of a competition. It must be mono.

    Args:
        trim: None keeps the silence.
    Returns:
        wave: (samples,) int16, empty if the clip cannot be used.
        rate: Hz, 0 if the clip cannot be used.
        fault: the reason why the clip cannot be used, or "".
    """
    try:
        with open_sound(path) as file:
            if file.channels != 1:
                raise SoundError(f"{file.channels} channels, but a clip must be mono")
            if file.frames > LONGEST:
                raise SoundError(f"too long: {file.frames} samples, but at most {LONGEST} are allowed")
            wave = concatenate(block[:, 0] for block in decode(file))
            require_sound(wave)
            return trim_silence(wave, file.samplerate, trim), file.samplerate, ""
    except SoundError as error:
        return concatenate(()), 0, str(error)


def read_mono(path: Path, sample_rate: int, longest: float = math.inf) -> Iterator[np.ndarray]:
    """Read a sound file of any length and format, mixed to one channel and resampled. The use of memory is bounded.

    Args:
        sample_rate: Hz of the samples to return.
        longest: greatest length of the file, in seconds.
    Yields:
        (samples,) int16, pieces of whole seconds. A file of up to 6 minutes at 44.1 kHz is one piece.
    Raises:
        SoundError: the file cannot be used, or is too long.
    """
    with open_sound(path) as file:
        rate = file.samplerate
        if file.frames > longest * rate:
            raise SoundError(f"{file.frames / rate:.0f} seconds long, where at most {longest:.0f} are taken")
        size = max(1, LONGEST // max(rate, sample_rate)) * rate          # samples of a piece before resampling
        blocks: list[np.ndarray] = []
        count = 0
        for block in decode(file):
            mono = np.round(block.mean(1)).astype(np.int16) if file.channels > 1 else block[:, 0]
            blocks.append(mono)
            count += len(mono)
            if count >= size:
                wave = concatenate(blocks)
                yield resample(wave[:size], rate, sample_rate)
                blocks, count = [wave[size:]], count - size
        if count:
            yield resample(concatenate(blocks), rate, sample_rate)


@contextmanager
def open_sound(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a sound file and check its header.

    Raises:
        SoundError: the file cannot be used. Errors within the `with` block are included.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):         # reading from a pipe could wait forever
            raise SoundError("not a regular file")
        if fault := riff_fault(path):
            raise SoundError(fault)
        with soundfile.SoundFile(path) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise SoundError(f"a sample rate of {file.samplerate} Hz, but it must be from {RATES[0]} to "
                                 f"{RATES[1]} Hz")
            yield file
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:     # TypeError: a .raw file
        raise SoundError(f"unreadable ({error})") from error


def decode(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Decode a file in blocks, because its header can claim more samples than fit into the memory.

    Yields:
        (samples, channels) int16.
    Raises:
        SoundError: the file is cut short, or has samples that are not finite.
    """
    # libsndfile does not scale floats if integers are requested.
    kind, samples = "int16" if file.subtype == "PCM_16" else "float32", 0
    while len(block := file.read(max(1, BLOCK // file.channels), dtype=kind, always_2d=True)):
        if kind == "float32":
            if not np.isfinite(block).all():
                raise SoundError("some samples are not finite numbers")
            block = np.round(np.clip(block, -1, 32767 / 32768) * 32768).astype(np.int16)
        samples += len(block)
        yield block
    if samples < file.frames:
        raise SoundError(f"cut short: {file.frames - samples} of {file.frames} samples are missing")


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


def resample(wave: np.ndarray, old: int, new: int) -> np.ndarray:
    """Change the sample rate by interpolation with a windowed sinc, equal to torchaudio's `resample`.

    The ratio of the rates is rounded to a fraction of whole numbers up to 2000. The rounding is exact for all rates in
    use, and off by at most 0.05 % for others. The exact ratio of 44,100 and 44,101 Hz would need a table of gigabytes.
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
    cutoff, crossings = 0.99 * min(old, new), 6         # torchaudio's rolloff, and its zero crossings on each side
    half = math.ceil(crossings * old / cutoff)                                          # samples on each side
    times = -np.arange(new)[:, None] / new + np.arange(-half, half + old)[None] / old   # (new, taps)
    times = np.clip(times * cutoff, -crossings, crossings)
    kernels = (np.sinc(times) * np.cos(times * np.pi / crossings / 2) ** 2 * cutoff / old).astype(np.float32)
    padded = np.pad(wave, (half, half + old))
    frames = sliding_window_view(padded, kernels.shape[1])[::old]                       # (frames, taps)
    rows = max(1, BLOCK // kernels.shape[1])
    blocks = [np.clip(np.round(frames[first:first + rows].astype(np.float32) @ kernels.T), -32768, 32767)
              .astype(np.int16).ravel() for first in range(0, len(frames), rows)]       # (rows * new,) each
    return np.concatenate(blocks)[:math.ceil(len(wave) * new / old)]


def riff_fault(path: Path) -> str:
    """Return why a WAV file is incomplete, or "" if it is complete or has another format.

    libsndfile reads a truncated WAV file without an error.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return "0 bytes"
        if file.read(4) != b"RIFF":
            return ""                   # another format, which libsndfile checks
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", header)
            if name == b"data":
                # Programs that write to a pipe leave 0 or the largest number as the length.
                missing = length - (size - file.tell()) if length not in (0, 0xFFFFFFFF) else 0
                return f"cut short: {missing} of {length} bytes are missing" if missing > 0 else ""
            file.seek(length + length % 2, os.SEEK_CUR)
    return "cut short: it has no data chunk"
