"""Sound files, and parts of files, that libsndfile decodes."""
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import soundfile

from tagging_lite.decoding.views import View
from tagging_lite.errors import SoundError

BLOCK = 1_000_000       # samples that are decoded at a time


class SndfileSound:
    """A `tagging_lite.decoding.sound.Sound` that libsndfile decodes. It can consist of parts that follow each other.

    Args:
        parts: descriptors, names, or files, each with the number of samples to read from it. None reads all.
        tolerance: number of samples that may be missing at the end.
    Raises:
        soundfile.LibsndfileError: libsndfile does not read the file.
        SoundError: the parts differ in rate or channels.
    """

    def __init__(self, stack: ExitStack, parts: Sequence[tuple[str | int | View, int | None]], notes: list[str],
                 tolerance: float = 0):
        files = [stack.enter_context(soundfile.SoundFile(file, closefd=False)) for file, _ in parts]
        self.parts = [(file, file.frames if limit is None else limit) for file, (_, limit) in zip(files, parts)]
        if len({(file.samplerate, file.channels) for file in files}) > 1:
            raise SoundError(f"its {len(files)} streams differ in sample rate or channels; split it")
        self.samplerate, self.channels = files[0].samplerate, files[0].channels
        self.frames = sum(frames for _, frames in self.parts)
        self.format, self.subtype = files[0].format, files[0].subtype
        self.floats = self.subtype in ("FLOAT", "DOUBLE")
        # libsndfile does not scale floats if integers are requested.
        self.dtype = "int16" if self.subtype == "PCM_16" else "float32"
        self.notes, self.tolerance, self.started = notes, tolerance, False

    def blocks(self) -> Iterator[np.ndarray]:
        total = 0
        for file, frames in self.parts:
            count, size = 0, max(1, BLOCK // self.channels)
            if self.started:
                file.seek(0)
            try:
                while len(block := file.read(min(size, frames - count), dtype=self.dtype, always_2d=True)):
                    count += len(block)
                    yield block
            except soundfile.LibsndfileError as error:
                raise SoundError(f"damaged or cut short ({error.error_string.removeprefix('Error : ')})") from error
            total += count
        self.started = True
        if total < self.frames - self.tolerance:
            raise SoundError(f"cut short: {self.frames - total} of {self.frames} samples are missing")
