"""Exploratory data analysis of a competition folder: its labels, and its sounds before any training."""
import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tagging.data.competition import Clips, Competition
from tagging.data.tables import label_texts
from tagging.errors import SoundError, TaggingError
from tagging.utils.progress import map_files
from tagging_lite.audio import RemoveSilence, load_clip
from tagging_lite.decoding.sound import open_sound

FRAME = RemoveSilence.frame_length      # samples
COLUMNS = ("seconds", "sample_rate", "format", "channels", "silence_start", "silence_end", "noise_floor", "peak",
           "digest", "fault")


def open_splits(competition: Competition) -> dict[str, Clips]:
    """Read the splits that exist: curated, noisy, test.

    Raises:
        TaggingError: no split exists; or as `Competition.clips`.
    """
    splits = {split: competition.clips(split) for split, names in competition.layout.splits.items()
              if all((competition.root / name).exists() for name in names)}
    if not splits:
        raise TaggingError(f"{competition.root} holds no set of clips. Add at least one. See data/README.md.")
    return splits


def choose_clips(clips: Clips, limit: int, seed: int = 0) -> Clips:
    """Draw at most `limit` clips at random, and keep their order. 0 keeps all clips."""
    if not 0 < limit < len(clips):
        return clips
    return clips.subset(np.sort(np.random.default_rng(seed).choice(len(clips), limit, replace=False)))


def measure_sounds(clips: Clips, trim: RemoveSilence) -> pd.DataFrame:
    """Decode and measure all clips on all cores. Only a few clips are in memory at a time.

    Returns:
        a row for each clip, index fname. Values that could not be measured are missing.
        seconds: length before trimming.
        sample_rate, format, channels: Hz; libsndfile's name of the sample format, such as PCM_16; and a number.
        silence_start, silence_end: seconds that `trim` removes at each end.
        noise_floor: dBFS, see `noise_floor`.
        peak: level of the largest sample, dBFS.
        digest: hash of the samples. Duplicate clips have the same hash.
        fault: the reason why the clip cannot be used for training, as in `open_store`, or "".
    """
    rows = map_files(lambda path: measure_clip(path, trim), clips.paths, f"measuring {clips.split} clips")
    sounds = pd.DataFrame(list(rows), clips.fnames, COLUMNS)
    rates = usable(sounds).sample_rate
    if len(rates):
        common = Counter(rates).most_common(1)[0][0]        # in a tie the rate of the first clip, as in `open_store`
        for fname in rates.index[rates != common]:
            sounds.loc[fname, "fault"] = f"{rates[fname]:.0f} Hz where most clips have {common:.0f} Hz"
    return sounds


def measure_clip(path: Path, trim: RemoveSilence) -> dict[str, object]:
    """Return a row of `measure_sounds`. If the clip cannot be used, the row has only the values of the header."""
    wave, rate, fault, _ = load_clip(path, None)
    row: dict[str, object] = {"fault": fault}
    with suppress(SoundError), open_sound(path) as file:        # `fault` already gives the reason
        row |= {"sample_rate": file.samplerate, "format": file.subtype, "channels": file.channels}
    if fault:
        return row
    first, last = trim.bounds(wave, rate)
    return row | {
        "seconds": len(wave) / rate, "silence_start": first / rate, "silence_end": (len(wave) - last) / rate,
        "noise_floor": noise_floor(wave), "peak": decibels((max(int(wave.max()), -int(wave.min())) / 32768) ** 2),
        "digest": hashlib.blake2b(wave.data, digest_size=16).hexdigest()}


def noise_floor(wave: np.ndarray) -> float:
    """Return the level of the quietest parts of a clip: the 10th percentile of the energy of frames of 2048 samples.

    Args:
        wave: (samples,) int16. A clip shorter than a frame is one frame. An incomplete frame at the end is ignored.
    Returns:
        dBFS: 0 for a square wave at full scale, -3 for a sine, and -100 for digital silence.
    """
    size = min(len(wave), FRAME)
    frames = wave[:len(wave) // size * size].reshape(-1, size).astype(np.float32) / 32768      # (frames, size)
    energy = np.einsum("ij,ij->i", frames, frames) / size                                      # (frames,)
    return float(np.percentile(decibels(energy), 10))


def decibels(energy: ArrayLike) -> np.ndarray:
    """Convert energy relative to full scale, of any shape, to dBFS, -100 at least."""
    return 10 * np.log10(np.maximum(energy, 1e-10))     # -100 dBFS is about the noise of rounding to 16 bits


def usable(sounds: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `measure_sounds` without a fault."""
    return sounds[sounds.fault == ""]


def overview(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a row for each split.

    Columns `clips` and `labels` count all clips. All columns after `unusable` describe the measured clips that can be
    used.
    """
    rows = []
    for split, clips in splits.items():
        good = usable(sounds[split])
        seconds = good.seconds
        rows.append({
            "split": split, "clips": len(clips),
            "labels": int(clips.targets.sum(dtype=int)) if clips.labelled else None,
            "measured": len(sounds[split]), "unusable": len(sounds[split]) - len(good), "hours": seconds.sum() / 3600,
            "shortest s": seconds.min(), "median s": seconds.median(), "longest s": seconds.max(),
            "silence %": 100 * ((good.silence_start + good.silence_end) / seconds).mean(),
            "noise floor dBFS": good.noise_floor.median()})
    return pd.DataFrame(rows).astype({"labels": "Int64"})       # the test split has no labels


def labelled(splits: dict[str, Clips]) -> dict[str, Clips]:
    """Return the splits that have labels."""
    return {split: clips for split, clips in splits.items() if clips.labelled}


def labels_by_class(splits: dict[str, Clips], classes: Sequence[str]) -> pd.DataFrame:
    """Count the clips that have each label: index class, a column for each split with labels."""
    return pd.DataFrame({split: clips.targets.sum(0, dtype=int) for split, clips in labelled(splits).items()},
                        list(classes))


def labels_per_clip(splits: dict[str, Clips]) -> pd.DataFrame:
    """Count the clips with each number of labels: index the number, a column for each split with labels."""
    counts = {split: np.bincount(clips.targets.sum(1, dtype=int)) for split, clips in labelled(splits).items()}
    return pd.DataFrame({split: pd.Series(count) for split, count in counts.items()}).fillna(0).astype(int)


def co_occurrence(clips: Clips, classes: Sequence[str]) -> pd.DataFrame:
    """Count the clips that have both labels: (classes, classes). The diagonal counts the clips that have the label."""
    targets = clips.targets.astype(int)
    return pd.DataFrame(targets.T @ targets, list(classes), list(classes))


def frequent_pairs(counts: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return the most frequent pairs of `co_occurrence`, with their share of the clips of each class."""
    matrix = counts.to_numpy()
    rows, columns = np.nonzero(np.triu(matrix, 1))
    order = np.argsort(-matrix[rows, columns], kind="stable")[:limit]
    rows, columns = rows[order], columns[order]
    together = matrix[rows, columns]
    return pd.DataFrame({"class": counts.index[rows], "other": counts.index[columns], "clips": together,
                         "share of class": together / matrix[rows, rows],
                         "share of other": together / matrix[columns, columns]})


def formats(sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count the clips of each sample rate, sample format and number of channels, if their header is readable."""
    names = ["split", "sample_rate", "format", "channels"]
    table = join_splits(sounds).dropna(subset="sample_rate").astype({"sample_rate": int, "channels": int})
    return table.groupby(names, sort=False).size().rename("clips").reset_index()


def unusable(sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return split, fname and fault of the clips that cannot be used for training."""
    table = join_splits(sounds)
    return table.loc[table.fault != "", ["split", "fname", "fault"]].reset_index(drop=True)


def extremes(sounds: dict[str, pd.DataFrame], count: int = 3) -> pd.DataFrame:
    """Return the `count` most extreme clips of each split by length, level, noise floor and silence.

    Returns:
        what (the criterion), split, fname, and value with its unit.
    """
    criteria = {"shortest": ("seconds", True, "{:.2f} s"), "longest": ("seconds", False, "{:.2f} s"),
                "quietest": ("peak", True, "peak {:.1f} dBFS"), "noisiest": ("noise_floor", False, "floor {:.1f} dBFS"),
                "most silence": ("silence", False, "{:.2f} s")}
    rows = []
    for split, table in sounds.items():
        good = usable(table)
        good = good.assign(silence=(good.silence_start + good.silence_end).replace(0, np.nan))
        for what, (column, ascending, unit) in criteria.items():
            values = good[column].sort_values(ascending=ascending, kind="stable").dropna()[:count]
            rows += [{"what": what, "split": split, "fname": fname, "value": unit.format(value)}
                     for fname, value in values.items()]
    return pd.DataFrame(rows, columns=["what", "split", "fname", "value"])


def duplicates(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    """Return the clips with identical samples, within a split or across splits: group, split, fname and labels."""
    table = join_splits({split: usable(sounds[split]) for split in splits})
    table = table[table.digest.duplicated(keep=False)]
    texts = {(split, fname): text for split, clips in labelled(splits).items()
             for fname, text in zip(clips.fnames, label_texts(clips.targets, classes))}
    return pd.DataFrame({"group": table.groupby("digest", sort=False).ngroup() + 1, "split": table.split,
                         "fname": table.fname, "labels": [texts.get(key, "") for key in zip(table.split, table.fname)]
                         }).sort_values("group", kind="stable").reset_index(drop=True)


def join_splits(sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the tables of all splits, with the additional columns split and fname."""
    return pd.concat([table.rename_axis("fname").reset_index().assign(split=split) for split, table in sounds.items()],
                     ignore_index=True)
