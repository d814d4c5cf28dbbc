"""Convert sound files to mono 16-bit WAV files of one sample rate, on all cores. tools.make_competition uses it."""
import hashlib
import wave
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tagging.utils.progress import map_files
from tagging_lite import audio
from tagging_lite.audio import concatenate, has_sound, read_mono, resample
from tagging_lite.decoding.sound import RATES, open_sound
from tagging_lite.errors import SoundError


def most_common_rate(paths: Sequence[Path]) -> int:
    """Return the sample rate in Hz that most clips have, the higher one if two are equally frequent."""
    rates: Counter[int] = Counter()
    for path in paths:
        try:
            with open_sound(path) as file:
                rates[file.samplerate] += 1
        except SoundError:
            pass        # `convert` reports it
    return max(rates, key=lambda rate: (rates[rate], rate), default=RATES[0])


def convert_all(clips: pd.DataFrame, folder: Path, sample_rate: int) -> pd.DataFrame:
    """Convert all clips into `folder`.

    Args:
        clips: path and fname.
    Returns:
        The results of `convert`, with the index of `clips`: fault, digest, rate, channels, notes.
    """
    results = map_files(lambda clip: convert(clip[0], folder / clip[1], sample_rate),
                        list(zip(clips.path, clips.fname)), "converting clips")
    return pd.DataFrame(list(results), clips.index, ["fault", "digest", "rate", "channels", "notes"])


def convert(path: Path, copy: Path, sample_rate: int) -> tuple[str, str, int, int, tuple[str, ...]]:
    """Write a clip as mono 16-bit WAV if it can be used. The samples of a clip in that format do not change.

    Returns:
        The reason why the clip cannot be used, or ""; a digest of the written samples; the rate in Hz and the number of
        channels of the original; remarks, such as that samples were scaled.
    """
    try:
        with open_sound(path) as file:
            rate, channels = file.samplerate, file.channels
        pieces, count = [], 0
        notes: list[str] = []
        for piece in read_mono(path, rate, notes=notes):
            pieces.append(piece)
            count += len(piece)
            if count * sample_rate > audio.LONGEST * rate:
                limit = audio.LONGEST // sample_rate
                raise SoundError(f"longer than {limit} seconds, the limit at {sample_rate} Hz; cut it")
        # As a whole, because joined pieces would click.
        samples = resample(concatenate(pieces), rate, sample_rate, notes)
        if not has_sound(samples):
            mixed = f" after its {channels} channels are mixed" if channels > 1 else ""
            raise SoundError(f"all silence{mixed}" if count else "no samples")
    except SoundError as error:
        return str(error), "", 0, 0, ()
    with wave.open(str(copy), "wb") as file:        # unlike soundfile, it raises an OSError if the disk is full
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(samples)
    return "", hashlib.sha256(samples).hexdigest(), rate, channels, tuple(notes)
