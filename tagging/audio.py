"""Sound files: decode, find what is wrong with them, trim their silence."""
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.lib.stride_tricks import sliding_window_view

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
        padded = np.pad(wave.astype(np.float32) / 32768, self.frame_length // 2, mode="reflect")
        frames = sliding_window_view(padded, self.frame_length)[::hop]                     # (frames, frame_length)
        energy = np.einsum("ij,ij->i", frames, frames) / self.frame_length                 # (frames,)
        decibels = 10 * np.log10(np.maximum(energy, 1e-10))     # the floor is librosa's
        loud = np.flatnonzero(decibels > decibels.max() - self.threshold)
        return max(0, int(loud[0] - 1) * hop), min(len(wave), int(loud[-1] + 2) * hop)


def load_clip(path: Path, trim: RemoveSilence | None) -> tuple[np.ndarray, int, str]:
    """Decode and trim one clip.

    Returns:
        wave: (samples,) int16, empty if the clip cannot be used.
        rate: Hz, 0 if unknown.
        fault: why the clip cannot be used, or "".
    """
    nothing = np.zeros(0, np.int16)
    try:
        if fault := riff_fault(path):
            return nothing, 0, fault
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            if file.channels != 1:
                return nothing, rate, f"{file.channels} channels where one is expected"
            if not RATES[0] <= rate <= RATES[1]:
                return nothing, 0, f"a sample rate of {rate} Hz"
            if file.frames > LONGEST:
                return nothing, rate, f"too long: {file.frames} samples where at most {LONGEST} are read; cut it"
            # libsndfile does not scale floats when it is asked for integers.
            kind = "int16" if file.subtype == "PCM_16" else "float32"
            # In blocks, because a header may promise more samples than any memory holds.
            blocks = []
            while len(block := file.read(BLOCK, dtype=kind)):
                if not np.isfinite(block).all():
                    return nothing, rate, "samples that are not finite numbers"
                if kind == "float32":
                    block = np.round(np.clip(block, -1, 32767 / 32768) * 32768).astype(np.int16)
                blocks.append(block)
            wave = np.concatenate(blocks) if blocks else nothing
            if len(wave) < file.frames:
                return nothing, rate, f"cut short: {file.frames - len(wave)} of {file.frames} samples are missing"
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:     # TypeError: a name with .raw
        return nothing, 0, f"unreadable ({error})"
    if not len(wave):
        return nothing, rate, "no samples"
    if wave.min() == wave.max():
        return nothing, rate, "all silence"
    if trim:
        first, last = trim.bounds(wave, rate)
        wave = wave[first:last]
    return wave, rate, ""


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
