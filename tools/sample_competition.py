"""Synthesise a small audio-tagging competition. It makes the scripts usable without a download.

    OUT/train_curated.csv  OUT/train_curated/*.wav   clean clips with correct labels
    OUT/train_noisy.csv    OUT/train_noisy/*.wav     longer, noisier and duller clips, 45 % of them with wrong labels
    OUT/test/*.wav         OUT/sample_submission.csv
    OUT/test_post_competition.csv                    the truth: fname,labels,usage

The layout is that of Freesound Audio Tagging 2019. Each clip is computed with its own pitch, pace and level. A score on
these clips shows that the code works, and nothing about recordings. The same seed gives the same bytes.
"""
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import soundfile as sf
from tyro.conf import Positional, arg

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.utils.files import try_place

RATE = 16_000                                # Hz; the real competition has 44 100, which is slower
COUNTS = {"train_curated": 150, "train_noisy": 300, "test": 100}        # clips at scale 1
TWO_LABELS, THREE_LABELS = 0.15, 0.03        # shares of clips with at least two and three labels
WRONG_LABELS = 0.45                          # share of noisy clips whose labels differ from their sounds
MARKER = ".sample_competition"               # file in each folder of this tool, which only then replaces the folder
FILES = {MARKER, *COUNTS, "train_curated.csv", "train_noisy.csv", "sample_submission.csv",
         "test_post_competition.csv"}


@dataclass(frozen=True, kw_only=True)
class SampleCompetition:
    """tools.sample_competition."""
    # Folder to write. A folder that this tool wrote is replaced. Any other folder must be empty.
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    seed: int = 2019            # Seed of all random numbers. The same seed gives the same bytes.
    scale: float = 1.0          # Share of 150 curated, 300 noisy and 100 test clips, above 0 and below 1000.


def seconds_axis(seconds: float) -> np.ndarray:
    """Return the time of each sample in seconds."""
    return np.arange(round(seconds * RATE)) / RATE


def phase(frequency: np.ndarray) -> np.ndarray:
    """Return the phase in radians of an oscillator from its frequency in Hz at each sample: (samples,)."""
    return 2 * np.pi * np.cumsum(frequency) / RATE


def repeat(hit: Callable[[], np.ndarray], seconds: float, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Call `hit` about `rate` times a second, from the start on, and add up the samples that it returns."""
    wave = np.zeros(round(seconds * RATE), np.float32)
    for start in np.arange(0, seconds - 0.05, 1 / rate):
        delay = rng.uniform(0, 0.15) / rate                 # human timing is not exact
        room = wave[round((start + delay if start > 0 else start) * RATE):]
        piece = rng.uniform(0.6, 1) * hit()
        room[:len(piece)] += piece[:len(room)]
    return wave


# The ten sounds: (seconds, random generator) -> float32 samples of any loudness
def bell(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Inharmonic partials, struck about once a second. The high ones fade first."""
    t, pitch, decay = seconds_axis(1.5), rng.uniform(500, 1100), rng.uniform(0.4, 1.2)
    ratios = (0.5, 1, 1.19, 1.56, 2, 2.66, 3.76)
    partials = (np.exp(-t * ratio / decay) * np.sin(2 * np.pi * pitch * ratio * t) for ratio in ratios)
    strike = sum(partials, np.zeros(len(t)))
    return repeat(lambda: strike, seconds, rng.uniform(0.7, 2), rng)


def bird_warble(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A high whistle with a quick trill, in syllables with short gaps."""
    pace, pitch, depth = rng.uniform(2, 4), rng.uniform(3200, 4800), rng.uniform(500, 1100)
    t = seconds_axis(0.7 / pace)
    trill = np.sin(2 * np.pi * rng.uniform(14, 30) * t)
    return repeat(lambda: np.sin(phase(pitch + depth * trill)) * np.hanning(len(t)), seconds, pace, rng)


def buzz(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A low sawtooth with a fluttering loudness, like an insect behind glass."""
    t = seconds_axis(seconds)
    flutter = 1 + rng.uniform(0.5, 1) * np.sin(2 * np.pi * rng.uniform(8, 20) * t)
    return ((t * rng.uniform(110, 220) % 1 - 0.5) * flutter).astype(np.float32)


def chirp(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Upward sweeps, one after the other."""
    pace, low, high = rng.uniform(2.5, 6), rng.uniform(300, 700), rng.uniform(2200, 3600)
    rise = np.linspace(0, 1, round(0.8 / pace * RATE))
    sweep = np.sin(phase(low * (high / low) ** rise)) * np.hanning(len(rise)) ** 0.25
    return repeat(lambda: sweep, seconds, pace, rng)


def chord(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Three steady notes with soft harmonics, major or minor, like an organ."""
    t, root, third = seconds_axis(seconds), rng.uniform(180, 420), rng.choice([1.2, 1.25])
    partials = (np.sin(2 * np.pi * root * note * k * t + rng.uniform(0, 6)) / k ** 2
                for note in (1, third, 1.5) for k in (1, 2, 3))
    return sum(partials, np.zeros(len(t))).astype(np.float32)


def clicks(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Very short knocks in quick succession."""
    t = seconds_axis(0.02)
    click = np.exp(-t / rng.uniform(0.001, 0.0025)) * np.cos(2 * np.pi * rng.uniform(1200, 2600) * t)
    return repeat(lambda: click, seconds, rng.uniform(7, 18), rng)


def drum(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Low hits that fall in pitch and fade exponentially."""
    t, pitch, drop = seconds_axis(0.5), rng.uniform(50, 100), rng.uniform(0.5, 1.5)
    hit = np.exp(-t / rng.uniform(0.06, 0.15)) * np.sin(phase(pitch * (1 + drop * np.exp(-t / 0.03))))
    return repeat(lambda: hit, seconds, rng.uniform(1.5, 5), rng)


def noise_burst(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Gusts of white noise with gaps between them."""
    pace, share = rng.uniform(2, 5), rng.uniform(0.4, 0.8)
    shape = np.hanning(round(share / pace * RATE)) ** 0.5
    return repeat(lambda: shape * rng.standard_normal(len(shape)), seconds, pace, rng)


def siren(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A tone with overtones that wails up and down."""
    t, centre, depth = seconds_axis(seconds), rng.uniform(800, 1300), rng.uniform(0.2, 0.4)
    angle = phase(centre * (1 + depth * np.sin(2 * np.pi * rng.uniform(1, 4) * t + rng.uniform(0, 6))))
    return (np.sin(angle) + np.sin(2 * angle) / 2 + np.sin(3 * angle) / 3).astype(np.float32)


def surf(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Dull noise that swells and ebbs slowly."""
    t = seconds_axis(seconds)
    fall = 1 + (np.fft.rfftfreq(len(t), 1 / RATE) / rng.uniform(250, 700)) ** 2
    swell = 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * t + rng.uniform(0, 6))
    return (np.fft.irfft(np.fft.rfft(rng.standard_normal(len(t))) / fall, len(t)) * swell).astype(np.float32)


SOUNDS = {"Bell": bell, "Bird_warble": bird_warble, "Buzz": buzz, "Chirp": chirp, "Chord": chord,
          "Clicks": clicks, "Drum": drum, "Noise_burst": noise_burst, "Siren": siren, "Surf": surf}
CLASSES = sorted(SOUNDS)


def arrange(names: Sequence[str], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return the named sounds, all at once or one after the other, in `seconds` in total."""
    in_turn, parts = rng.random() < 0.5, []
    for name in names:
        part = SOUNDS[name](seconds / len(names) if in_turn else seconds, rng)
        ramp = np.minimum(1, np.arange(len(part)) / 80)      # 5 ms; an abrupt start would sound like a click
        parts.append(rng.uniform(0.5, 1) * part / np.abs(part).max() * ramp * ramp[::-1])
    wave = np.concatenate(parts) if in_turn else np.sum(parts, axis=0)
    return rng.uniform(0.15, 0.9) * wave / np.abs(wave).max()


def curated_clip(names: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Return a clean clip of 0.3 to 6 s. Half of these clips have near-silence at their ends."""
    wave = arrange(names, np.clip(rng.lognormal(0.3, 0.8), 0.3 * len(names), 4.6), rng)
    if rng.random() < 0.5:
        wave = np.pad(wave, (rng.uniform(0.05, 0.7, 2) * RATE).astype(int))
    return wave + rng.uniform(5e-5, 3e-4) * rng.standard_normal(len(wave))


def noisy_clip(names: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Return a clip of 1.5 to 6 s in loud noise. A moving average dulls it like a cheap microphone."""
    wave, width = arrange(names, rng.uniform(1.5, 6), rng), rng.integers(2, 7)
    wave += rng.uniform(0.01, 0.12) * np.abs(wave).max() * rng.standard_normal(len(wave))
    return np.convolve(wave, np.full(width, 1 / width), "same")


def mislabel(sounds: list[str], other: str, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return the sounds and the labels of a clip, which differ by the class `other`."""
    fault = rng.choice(["swapped", "extra", "missing"], p=[0.6, 0.2, 0.2])
    labels = {"swapped": [other, *sounds[1:]], "extra": [*sounds, other], "missing": sounds}[fault]
    return [*sounds, other] if fault == "missing" else sounds, labels


def write_set(folder: Path, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Write `count` clips into `folder`, and return the table of their names and labels."""
    folder.mkdir(parents=True)
    noisy, rows = folder.name == "train_noisy", []
    ranks, codes = rng.permutation(count) / count, rng.choice(2**32, count, replace=False)
    for index, (rank, code) in enumerate(zip(ranks, codes, strict=True)):
        first = CLASSES[index % len(CLASSES)]                # in turn, so that the smallest set has every class
        *others, spare = rng.permutation([name for name in CLASSES if name != first])
        sounds = labels = [first, *others[:sum(rank >= 1 - share for share in (TWO_LABELS, THREE_LABELS))]]
        # The first noisy clip of each class has the correct label.
        if noisy and index >= len(CLASSES) and rng.random() < WRONG_LABELS:
            sounds, labels = mislabel(sounds, spare, rng)
        wave = noisy_clip(sounds, rng) if noisy else curated_clip(sounds, rng)
        rows.append((f"{code:08x}.wav", ",".join(labels)))
        sf.write(folder / rows[-1][0], np.int16(np.clip(wave, -1, 1) * 32767), RATE, subtype="PCM_16")
    return pd.DataFrame(rows, columns=["fname", "labels"]).sort_values("fname", ignore_index=True)


def write_competition(out: Path, *, scale: float = 1.0, seed: int = 2019) -> dict[str, int]:
    """Write the competition into the folder `out`, and return the number of clips in each set.

    Raises:
        TaggingError: `scale` or `seed` is out of its range, or `out` contains files that this tool did not write.
    """
    if not (0 < scale < 1000 and seed >= 0):
        raise TaggingError("--scale must be above 0 and below 1000, and --seed must not be negative.")
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise TaggingError(f"{out} is a file. Choose another folder.")
    found = {path.name for path in out.iterdir()} if out.exists() else set()
    if found and not (MARKER in found and found <= FILES):
        raise TaggingError(f"{out} contains files that this tool did not write. Choose another folder.")
    try_place(out, out.parent, f".{out.name}-", "OUT")
    counts = {name: max(len(CLASSES), round(count * scale)) for name, count in COUNTS.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    # A folder beside `out` is renamed at the end, so that `out` is always complete.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        curated, noisy, truth = (write_set(new / name, count, np.random.default_rng([seed, stream]))
                                 for stream, (name, count) in enumerate(counts.items()))
        curated.to_csv(new / "train_curated.csv", index=False)
        noisy.to_csv(new / "train_noisy.csv", index=False)
        pd.DataFrame(0, index=pd.Index(truth["fname"]), columns=CLASSES).to_csv(new / "sample_submission.csv")
        truth["usage"] = np.resize(["Public", *["Private"] * 3], len(truth))     # random, because the names are
        truth.to_csv(new / "test_post_competition.csv", index=False)
        (new / MARKER).write_text(f"Synthesised by tools/sample_competition.py: {seed=}, {scale=}\n")
        if found:
            out.rename(old)                  # rename cannot replace a folder that contains files
        new.rename(out)
    return counts


def main() -> None:
    args = parse(SampleCompetition, __doc__)
    counts = write_competition(args.out, scale=args.scale, seed=args.seed)
    print("Wrote", ", ".join(f"{count} {name}" for name, count in counts.items()), "clips to", args.out)


if __name__ == "__main__":
    run_script(main)
