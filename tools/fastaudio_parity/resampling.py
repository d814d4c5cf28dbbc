"""Our resampling against that of fastaudio and torchaudio."""
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tagging_lite.audio import resample
from tools.fastaudio_parity.compare import FULL_SCALE, Reference, Row
from tools.fastaudio_parity.sounds import Sound, band_noise

EDGE = 0.1          # seconds at both ends of the noise that do not count, because it begins and ends at full level
# dB, for noise. A gain of 1 dB, or a delay of a sample, gives more than -20 dB.
TOLERANCES = {("ours", "fastaudio's"): -20.0, ("ours", "exact"): -60.0}


def compare_resampling(sounds: Sequence[Sound], references: Sequence[Reference]) -> list[Row]:
    """Compare the resampling of all sounds. The exact result is known for noise only.

    Recordings have no tolerance: they can contain sound near the limit of the band, where the filters differ.

    Args:
        references: what reference.py computed, for each sound.
    Returns:
        a row for each two results: the level of their difference relative to the second one, dB.
    """
    rows: dict[str, Row] = {}
    for sound, theirs in zip(sounds, references):
        for rate in sound.new_rates:
            waves = {"ours": resample(sound.wave, sound.rate, rate) / FULL_SCALE,
                     "fastaudio's": theirs[f"fastaudio_{rate}"], "torchaudio's": theirs[f"torchaudio_{rate}"]}
            if sound.is_noise:
                waves["exact"] = band_noise(sound.rate, rate)[1]
            edge = round(EDGE * rate) if sound.is_noise else 0
            for one, other in combinations(waves, 2):
                key = f"Resample, {'noise' if sound.is_noise else 'recordings'}, {one} - {other}"
                tolerance = TOLERANCES.get((one, other)) if sound.is_noise else None
                row = rows.setdefault(key, Row(key, "dB", tolerance))
                name = sound.name if sound.is_noise else f"{sound.name} to {rate} Hz"
                row.differences[name] = level(waves[one], waves[other], edge)
    return list(rows.values())


def level(wave: np.ndarray, expected: np.ndarray, edge: int) -> float:
    """Return the level of the difference of two waves relative to that of the second one, dB.

    Args:
        wave, expected: (samples,). Implementations round the length differently; more than one sample gives infinity.
        edge: samples at both ends that do not count.
    """
    if abs(len(wave) - len(expected)) > 1:
        return np.inf
    inner = slice(edge, min(len(wave), len(expected)) - edge)
    wave, expected = wave[inner].astype(np.float64), expected[inner].astype(np.float64)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.square(wave - expected).sum() / np.square(expected).sum()))
