"""The file of test clips and fastaudio's arrays. `make fastaudio-parity` writes it, and the tests read it.

Its arrays, for the clip NAME:

| array | shape | content |
|---|---|---|
| NAME_wave | (2, samples) uint8 | differences of the samples, low bytes before high ones: half the size |
| NAME_trim | (2,) int64 | bounds that RemoveSilence keeps if the ends are padded by reflection |
| NAME_logmel | (mels, frames) int16 | AudioToSpec of the first 2 s after the trim, with zeros after them; 0.002 dB |
| NAME_masks | (2, 2) float64 | first bin and fill value, dB, of MaskTime and then MaskFreq of 8 bins on that image |
| versions | () | JSON: the versions of the packages that computed the arrays |
"""
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagging.errors import TaggingError
from tagging.utils.files import atomic

RATE = 44_100       # Hz of the test clips
STEPS = 500         # stored steps of a decibel


@dataclass(frozen=True)
class StoredClip:
    """A test clip, and what fastaudio makes of it."""
    wave: np.ndarray            # (samples,) int16, at 44.1 kHz
    trim: tuple[int, int]       # the first sample that RemoveSilence keeps, and the one after the last
    logmel: np.ndarray          # (mels, frames) float64, dB
    masks: np.ndarray           # (2, 2): start and fill value of the time mask, and of the frequency mask


def read_arrays(path: Path) -> dict[str, StoredClip]:
    """Read the file.

    Raises:
        TaggingError: the file is missing or damaged.
    """
    try:
        with np.load(path) as arrays:
            names = sorted(key.removesuffix("_wave") for key in arrays if key.endswith("_wave"))
            clips = {}
            for name in names:
                differences = arrays[f"{name}_wave"].T.copy().view("<i2").ravel()
                first, last = arrays[f"{name}_trim"].tolist()
                clips[name] = StoredClip(np.cumsum(differences, dtype=np.int16), (first, last),
                                       arrays[f"{name}_logmel"] / STEPS, arrays[f"{name}_masks"])
    except FileNotFoundError as error:
        raise TaggingError(f"{path} does not exist. Check --arrays, or name your own clips with --clips.") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise TaggingError(f"{path} is damaged, or has other content. Get it from the repository again.") from error
    if not clips:
        raise TaggingError(f"{path} contains no clips. Get it from the repository again.")
    return clips


def write_arrays(path: Path, clips: Mapping[str, StoredClip], versions: Mapping[str, str]) -> None:
    """Write the file, atomically. The same arrays give the same bytes.

    Raises:
        TaggingError: the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {"versions": np.array(json.dumps(versions))}
    for name, clip in clips.items():
        differences = np.diff(clip.wave, prepend=np.int16(0)).astype("<i2")
        arrays |= {f"{name}_wave": differences.view(np.uint8).reshape(-1, 2).T,
                   f"{name}_trim": np.array(clip.trim, np.int64),
                   f"{name}_logmel": np.rint(clip.logmel * STEPS).astype(np.int16),
                   f"{name}_masks": np.array(clip.masks, np.float64)}
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for key, array in arrays.items():
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array))
            # numpy's own function compresses less. A ZipInfo has a fixed date.
            file.writestr(zipfile.ZipInfo(f"{key}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED, 9)
