"""The sounds that the page plays: clips of the data by number, uploads, and files of an archive."""
import io
import secrets
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import soundfile

from tagging.data.competition import Clips
from tagging_lite.audio import concatenate, load_clip, read_mono
from tagging_lite.errors import SoundError
from tagging_lite.pictures import spectrogram_png

KEPT = 100_000_000      # samples in memory, 200 MB
OFFERED = 1000          # files of an archive that can be played
LONGEST = 300           # seconds of a sound


class Sounds:
    """Decoded sounds by name: "curated-17" is a clip. Names of uploads and files cannot be guessed. Threads can share
    it.

    Args:
        splits: the clips that can be played.
        rate: Hz of the files of an archive.
    """

    def __init__(self, splits: dict[str, Clips], rate: int):
        self.splits, self.rate, self.lock = splits, rate, threading.Lock()
        self.kept: OrderedDict[str, tuple[np.ndarray, int]] = OrderedDict()
        self.files: OrderedDict[str, Path] = OrderedDict()

    def add(self, wave: np.ndarray, rate: int) -> str:
        """Keep (samples,) int16 at `rate` Hz, and return its name, which nobody can guess."""
        name = f"upload-{secrets.token_urlsafe(16)}"
        self.keep(name, wave, rate)
        return name

    def offer(self, path: Path) -> str:
        """Let a file of an archive be played, and return its name."""
        name = f"file-{secrets.token_urlsafe(16)}"
        with self.lock:
            self.files[name] = path
            while len(self.files) > OFFERED:
                self.files.popitem(last=False)
        return name

    def keep(self, name: str, wave: np.ndarray, rate: int) -> None:
        """Keep a sound, and forget the sounds that were not used for the longest time."""
        with self.lock:
            self.kept[name] = wave, rate
            while len(self.kept) > 1 and sum(len(each) for each, _ in self.kept.values()) > KEPT:
                self.kept.popitem(last=False)

    def get(self, name: str) -> tuple[np.ndarray, int]:
        """Return (samples,) int16 and Hz.

        Raises:
            KeyError: there is no such sound, or it was forgotten.
            SoundError: the clip cannot be used.
        """
        with self.lock:
            if name in self.kept:
                self.kept.move_to_end(name)
                return self.kept[name]
        if name in self.files:
            wave, rate = concatenate(read_mono(self.path(name), self.rate, LONGEST)), self.rate
        else:
            wave, rate, fault, _ = load_clip(self.path(name), None)
            if fault:
                raise SoundError(fault)
        self.keep(name, wave, rate)
        return wave, rate

    def path(self, name: str) -> Path:
        """Return the file of a clip, or of an archive.

        Raises:
            KeyError: there is no such file.
        """
        if name in self.files:
            return self.files[name]
        split, _, number = name.rpartition("-")
        clips = self.splits[split]
        if not (number.isascii() and number.isdecimal() and int(number) < len(clips)):
            raise KeyError(name)
        return clips.paths[int(number)]

    def wav(self, name: str) -> bytes:
        """Return a sound as the content of a wav file. Raises as `get`."""
        wave, rate = self.get(name)
        content = io.BytesIO()
        soundfile.write(content, wave, rate, format="WAV", subtype="PCM_16")
        return content.getvalue()

    def spectrogram(self, name: str, start: float, end: float) -> bytes:
        """Return the spectrogram from `start` to `end`, in seconds, as the content of a PNG file. Raises as `get`."""
        wave, rate = self.get(name)
        first = min(max(0, round(start * rate)), len(wave) - 1)
        return spectrogram_png(wave[first:max(first + 1, round(end * rate))], rate)
