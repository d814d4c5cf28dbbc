"""The sounds on which both sides are compared."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagging.errors import SoundError, TaggingError
from tagging_lite.audio import concatenate, read_mono, require_sound
from tagging_lite.decoding.sound import open_sound
from tagging_lite.find import find_sounds

# Pairs of sample rates in Hz, between which noise is resampled.
RATES = ((44_100, 16_000), (44_100, 48_000), (48_000, 44_100), (22_050, 44_100), (16_000, 44_100))
BAND = 0.9          # share of the lower Nyquist frequency that the noise fills
NOISE_SECONDS = 5


@dataclass(frozen=True)
class Sound:
    """A mono sound."""
    name: str
    wave: np.ndarray                # (samples,) int16
    rate: int                       # Hz
    new_rates: tuple[int, ...]      # Hz to resample it to
    is_noise: bool = False          # of `band_noise`


def recording(name: str, wave: np.ndarray, rate: int) -> Sound:
    """Return a sound that is resampled to the two most common other rates."""
    return Sound(name, wave, rate, tuple(new for new in (16_000, 44_100, 48_000) if new != rate)[:2])


def read_sounds(paths: tuple[Path, ...]) -> list[Sound]:
    """Read the user's own clips, mixed to one channel.

    Raises:
        TaggingError: a path does not exist, or a clip cannot be used.
    """
    sounds, faults = [], []
    for path in find_sounds(paths).paths:
        try:
            with open_sound(path) as file:
                rate = file.samplerate
            wave = concatenate(read_mono(path, rate))
            require_sound(wave)
            sounds.append(recording(str(path), wave, rate))
        except SoundError as error:
            faults.append(f"\n  {path}: {error}")
    if faults:
        raise TaggingError(f"{len(faults)} of {len(faults) + len(sounds)} clips cannot be used:{''.join(faults)}\n"
                           "Fix the files, or name others with --clips.")
    return sounds


def made_sounds() -> list[Sound]:
    """Make sounds at the limits of the transforms, at 44.1 kHz."""
    rng = np.random.default_rng(0)

    def noise(samples: int) -> np.ndarray:
        return rng.integers(-20_000, 20_000, samples, np.int16)
    silence = np.zeros(30_000, np.int16)
    fade = np.geomspace(1, 1e-4, 150_000)
    waves = {
        "a click in silence": np.concatenate([silence, noise(50), silence]),
        "a sound at both ends": np.concatenate([noise(3000), silence, silence, noise(3000)]),
        "2 s without silence": noise(88_200),
        "2 s and a sample": noise(88_201),
        "2 s less a sample": noise(88_199),
        "13 ms, shorter than the padding": noise(600),
        "34 ms, shorter than a frame": noise(1500),
        "a fading sound": (noise(150_000) * fade).astype(np.int16),
        "a fading sound, backwards": (noise(150_000) * fade[::-1]).astype(np.int16),
        "full scale": rng.choice(np.array([-32768, 32767], np.int16), 100_000),
        "one step loud": rng.choice(np.array([0, 1], np.int16), 100_000),
    }
    return [Sound(name, wave, 44_100, ()) for name, wave in waves.items()]


def band_noise(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Make noise that is limited to a band, with the same spectrum at two rates.

    Returns:
        (samples,) float64 in [-1, 1] at `old` Hz, and at `new` Hz: the exact result of resampling.
    """
    size = NOISE_SECONDS * old
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=size))
    spectrum[np.fft.rfftfreq(size, 1 / old) > BAND * min(old, new) / 2] = 0
    scale = 0.15 / np.fft.irfft(spectrum, size).std()       # peaks are about five times as high
    new_size = NOISE_SECONDS * new
    kept = np.zeros(new_size // 2 + 1, complex)
    kept[:len(spectrum)] = spectrum[:len(kept)]
    return np.fft.irfft(spectrum, size) * scale, np.fft.irfft(kept, new_size) * scale * new / old


def noise_sounds() -> list[Sound]:
    """Make the noise for each pair of rates."""
    return [Sound(f"noise, {old} to {new} Hz", np.rint(band_noise(old, new)[0] * 32768).clip(-32768, 32767)
                  .astype(np.int16), old, (new,), is_noise=True) for old, new in RATES]
