"""What is in a competition folder: its labels, and its sounds as they are before any training."""
import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.competition import Clips, Competition
from tagging.data.tables import label_texts
from tagging.errors import TaggingError
from tagging.utils.progress import map_files
from tagging_lite.audio import RemoveSilence, SoundError, load_clip, open_sound

FRAME = RemoveSilence.frame_length      # samples
COLUMNS = ("seconds", "sample_rate", "format", "channels", "silence_start", "silence_end", "noise_floor", "peak",
           "digest", "fault")


def open_splits(competition: Competition) -> dict[str, Clips]:
    """The clips of each split that is there: curated, noisy, test.

    Raises:
        TaggingError: as `Competition.clips`; or no split is there.
    """
    splits = {split: competition.clips(split) for split, names in competition.layout.splits.items()
             if all((competition.root / name).exists() for name in names)}
    if not splits:
        raise TaggingError(f"{competition.root} holds no set of clips. See data/README.md.")
    return splits


def choose_clips(clips: Clips, limit: int, seed: int = 0) -> Clips:
    """At most `limit` clips, drawn at random and left in their order; 0 is all of them."""
    if not 0 < limit < len(clips):
        return clips
    return clips.subset(np.sort(np.random.default_rng(seed).choice(len(clips), limit, replace=False)))


def measure_sounds(clips: Clips, trim: RemoveSilence) -> pd.DataFrame:
    """Decode all clips on all cores and measure each. Only the clips under way are in memory.

    Returns:
        index fname, a row a clip:
        seconds: before trimming.
        sample_rate, format, channels: Hz, libsndfile's name of how samples are kept, such as PCM_16, and a number.
        silence_start, silence_end: seconds that `trim` cuts off at either end.
        noise_floor: dBFS, see `noise_floor`.
        peak: the largest sample, dBFS.
        digest: a hash of the samples; two clips with the same one are the same.
        fault: why the clip cannot be trained on, as in `open_store`, or ""; what could not be measured is missing.
    """
    rows = map_files(lambda path: measure_clip(path, trim), clips.paths, f"measuring {clips.split} clips")
    sounds = pd.DataFrame(list(rows), clips.fnames, COLUMNS)
    rates = usable(sounds).sample_rate
    if len(rates):
        usual = Counter(rates).most_common(1)[0][0]         # of two, the first clip's, as in `open_store`
        for fname in rates.index[rates != usual]:
            sounds.loc[fname, "fault"] = f"{rates[fname]:.0f} Hz where most clips have {usual:.0f} Hz"
    return sounds


def measure_clip(path: Path, trim: RemoveSilence) -> dict:
    """One row of `measure_sounds`; of a clip with a fault, only what its header says."""
    wave, rate, fault = load_clip(path, None)
    row = {"fault": fault}
    with suppress(SoundError), open_sound(path) as file:        # `fault` has said it
        row |= {"sample_rate": file.samplerate, "format": file.subtype, "channels": file.channels}
    if fault:
        return row
    first, last = trim.bounds(wave, rate)
    return row | {
        "seconds": len(wave) / rate, "silence_start": first / rate, "silence_end": (len(wave) - last) / rate,
        "noise_floor": noise_floor(wave), "peak": decibels((max(int(wave.max()), -int(wave.min())) / 32768) ** 2),
        "digest": hashlib.blake2b(wave, digest_size=16).hexdigest()}


def noise_floor(wave: np.ndarray) -> float:
    """The 10th percentile of the energy of a clip's frames of 2048 samples: how loud it is where it is quietest.

    Args:
        wave: (samples,) int16. A clip shorter than a frame is one frame; a rest at the end does not count.
    Returns:
        dBFS: 0 is a square wave of full scale, -3 a sine, -100 the least that is told from nothing.
    """
    size = min(len(wave), FRAME)
    frames = wave[:len(wave) // size * size].reshape(-1, size).astype(np.float32) / 32768      # (frames, size)
    energy = np.einsum("ij,ij->i", frames, frames) / size                                      # (frames,)
    return float(np.percentile(decibels(energy), 10))


def decibels(energy: np.ndarray | float) -> np.ndarray | float:
    return 10 * np.log10(np.maximum(energy, 1e-10))     # the rounding to 16 bits makes about as much noise


def usable(sounds: pd.DataFrame) -> pd.DataFrame:
    return sounds[sounds.fault == ""]


def overview(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a split. What is not a count of clips or labels is of the measured clips that can be used."""
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
    return pd.DataFrame(rows).astype({"labels": "Int64"})       # the test set has none


def labelled(splits: dict[str, Clips]) -> dict[str, Clips]:
    return {split: clips for split, clips in splits.items() if clips.labelled}


def labels_by_class(splits: dict[str, Clips], classes: Sequence[str]) -> pd.DataFrame:
    """Clips that have each label: index class, a column for each split with labels."""
    return pd.DataFrame({split: clips.targets.sum(0, dtype=int) for split, clips in labelled(splits).items()},
                        list(classes))


def labels_a_clip(splits: dict[str, Clips]) -> pd.DataFrame:
    """Clips that have each number of labels: index the number, a column for each split with labels."""
    counts = {split: np.bincount(clips.targets.sum(1, dtype=int)) for split, clips in labelled(splits).items()}
    return pd.DataFrame({split: pd.Series(count) for split, count in counts.items()}).fillna(0).astype(int)


def co_occurrence(clips: Clips, classes: Sequence[str]) -> pd.DataFrame:
    """Clips that have both labels, class x class; in the diagonal, those that have the label at all."""
    targets = clips.targets.astype(int)
    return pd.DataFrame(targets.T @ targets, list(classes), list(classes))


def frequent_pairs(counts: pd.DataFrame, limit: int) -> pd.DataFrame:
    """The pairs of a `co_occurrence` that most clips have, with the share of each class's clips that these are."""
    matrix = counts.to_numpy()
    rows, columns = np.nonzero(np.triu(matrix, 1))
    order = np.argsort(-matrix[rows, columns], kind="stable")[:limit]
    rows, columns = rows[order], columns[order]
    together = matrix[rows, columns]
    return pd.DataFrame({"class": counts.index[rows], "other": counts.index[columns], "clips": together,
                         "share of class": together / matrix[rows, rows],
                         "share of other": together / matrix[columns, columns]})


def formats(sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Clips of each sample rate, sample format and number of channels, of all that have a readable header."""
    names = ["split", "sample_rate", "format", "channels"]
    table = join_splits(sounds).dropna(subset="sample_rate").astype({"sample_rate": int, "channels": int})
    return table.groupby(names, sort=False).size().rename("clips").reset_index()


def unusable(sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """split, fname and fault of the clips that cannot be trained on."""
    table = join_splits(sounds)
    return table.loc[table.fault != "", ["split", "fname", "fault"]].reset_index(drop=True)


def extremes(sounds: dict[str, pd.DataFrame], count: int = 3) -> pd.DataFrame:
    """In each split, the clips that lie outermost in one respect: what, split, fname, and the value with its unit."""
    looks = {"shortest": ("seconds", True, "{:.2f} s"), "longest": ("seconds", False, "{:.2f} s"),
             "quietest": ("peak", True, "peak {:.1f} dBFS"), "noisiest": ("noise_floor", False, "floor {:.1f} dBFS"),
             "most silence": ("silence", False, "{:.2f} s")}
    rows = []
    for split, table in sounds.items():
        good = usable(table)
        good = good.assign(silence=(good.silence_start + good.silence_end).replace(0, np.nan))
        for what, (column, ascending, unit) in looks.items():
            values = good[column].sort_values(ascending=ascending, kind="stable").dropna()[:count]
            rows += [{"what": what, "split": split, "fname": fname, "value": unit.format(value)}
                     for fname, value in values.items()]
    return pd.DataFrame(rows, columns=["what", "split", "fname", "value"])


def duplicates(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    """Clips with exactly the same samples, within a split or across splits: group, split, fname and labels."""
    table = join_splits({split: usable(sounds[split]) for split in splits})
    table = table[table.digest.duplicated(keep=False)]
    texts = {(split, fname): text for split, clips in labelled(splits).items()
             for fname, text in zip(clips.fnames, label_texts(clips.targets, classes))}
    return pd.DataFrame({"group": table.groupby("digest", sort=False).ngroup() + 1, "split": table.split,
                         "fname": table.fname, "labels": [texts.get(key, "") for key in zip(table.split, table.fname)]
                         }).sort_values("group", kind="stable").reset_index(drop=True)


def join_splits(sounds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """All splits in one table, with the columns split and fname."""
    return pd.concat([table.rename_axis("fname").reset_index().assign(split=split) for split, table in sounds.items()],
                     ignore_index=True)
