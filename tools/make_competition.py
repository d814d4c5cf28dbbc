"""Convert your own labelled sounds to a small competition, on which the scripts can train and be scored.

    python -m tools.make_competition OUT --folders DIR              a folder for each class: DIR/Dog/rec 1.mp3
    python -m tools.make_competition OUT --csv FILE --clips DIR     fname,labels; fname is a path within DIR

    OUT/train_curated.csv          OUT/train_curated/*.wav          fname,labels, and source if clips share one
    OUT/sample_submission.csv      OUT/test/*.wav
    OUT/test_post_competition.csv  the truth: fname,labels,usage
    OUT/clips.csv                  fname,part,original,source: the origin of each clip

The clips become mono 16-bit WAV files of one sample rate. The same clips, options and seed give the same bytes.
"""
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from tyro.conf import Positional, arg, create_mutex_group

from tagging.cli import parse, run_script
from tagging.data.folds import choose_test
from tagging.data.tables import label_texts
from tagging.errors import TaggingError, list_notes, shorten
from tagging.options import Flat, shown_default
from tagging.utils.files import check_new_folder, new_folder
from tagging_lite.decoding.sound import RATES
from tools.convert_sounds import convert_all, most_common_rate
from tools.label_column import AUTO
from tools.labelled_sounds import check_class_names, flat_names, match_sources, read_csv, read_folders

FOLDS = 5       # number of folds of every recipe unless --fold-count changes it
INPUT = create_mutex_group(required=True, title="labels")
SOURCE = create_mutex_group(required=False, title="recordings")


@dataclass(frozen=True, kw_only=True)
class SoundOptions:
    """The labelled sounds."""
    # Folder that contains a folder for each class.
    folders: Annotated[Path | None, INPUT, shown_default("", "DIR")] = None
    # Csv with the columns fname and labels. A clip can have several labels, such as A,B.
    csv: Annotated[Path | None, INPUT, shown_default("", "FILE")] = None
    # Folder that contains the clips of --csv.
    clips: Annotated[Path | None, shown_default("", "DIR")] = None
    # Sign between the labels of a clip in --csv, such as ';'. auto recognises it. none keeps each field as one label.
    label_separator: Annotated[str, arg(metavar="SIGN")] = AUTO
    source: Annotated[str | None, SOURCE, shown_default("", "COLUMN"), arg(
        help="Column of --csv with the recording of each clip. All clips of a recording go to the same split. A clip "
             "with an empty field is its own recording.")] = None
    source_pattern: Annotated[str | None, SOURCE, shown_default("", "REGEX"), arg(
        help="Regular expression whose first group is the recording, searched in the clip's path within DIR. "
             r"Use '/(\d+)-' for Dog/123-4.wav, or '(.+)/' for a folder for each recording.")] = None


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """The conversion, and the split into training and test clips."""
    test_share: float = 0.2                 # Share of the clips in the test split, above 0 and below 1.
    # Sample rate of the written clips, from 1000 to 400000 Hz.
    sample_rate: Annotated[int | None, shown_default("the rate of most clips", "HZ")] = None
    seed: int = 0                           # Seed of the choice of the test clips, 0 or more.
    skip_bad_clips: bool = False            # Drop clips that cannot be used, and list their names.


@dataclass(frozen=True, kw_only=True)
class MakeCompetition:
    """tools.make_competition."""
    out: Annotated[Positional[Path], arg(metavar="OUT", help="Folder to write. It must be empty or not exist.")]
    sounds: Flat[SoundOptions]
    split: Flat[SplitOptions]

    def check(self) -> None:
        """
        Raises:
            TaggingError: options do not go together, or a number is out of its range.
        """
        sounds, split = self.sounds, self.split
        if (sounds.csv is None) != (sounds.clips is None):
            raise TaggingError("--csv needs --clips, and --clips needs --csv. Add or remove one of them.")
        if not sounds.csv and (sounds.source or sounds.label_separator != AUTO):
            raise TaggingError("--source and --label-separator need --csv. Remove them, or replace --folders.")
        if not 0 < split.test_share < 1 or split.seed < 0:
            raise TaggingError("--test-share must be above 0 and below 1, and --seed must not be negative.")
        if split.sample_rate is not None and not RATES[0] <= split.sample_rate <= RATES[1]:
            raise TaggingError(f"--sample-rate must be {RATES[0]} to {RATES[1]} Hz.")


def main() -> None:
    args = parse(MakeCompetition, __doc__)
    args.check()
    check_new_folder(args.out, "OUT")
    split = args.split
    clips, targets, left_out = read_sounds(args.sounds)
    with new_folder(args.out) as folder:
        rate = split.sample_rate or most_common_rate(clips.path)
        clips = clips.join(convert_all(clips, folder, rate))
        try:
            good = usable(clips, targets, split.skip_bad_clips)
        except TaggingError as error:
            raise TaggingError("\n".join([str(error), *left_out])) from error
        clips, targets = clips[good], targets[good]
        groups = join_sources(clips)
        test = choose_test(targets.to_numpy(), groups, split.test_share, split.seed)
        clips = clips.assign(part=np.where(test, "test", "train_curated"),
                             group=clips.source.iloc[groups].to_numpy())     # the name of the first source of the group
        write_splits(folder, clips, targets.columns, shared_sources(groups[~test]) > 0)
    print(f"{len(clips)} clips at {rate} Hz: {sum(clips.channels > 1)} were mixed to one channel, "
          f"{sum(clips.rate != rate)} resampled")
    report(args.out, targets, groups, test, [*list_notes(zip(clips.original, clips.notes)), *left_out])


def read_sounds(options: SoundOptions) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Find the clips and their labels.

    Returns:
        clips: original, path, source, labels, fname.
        targets: 0/1, columns the classes.
        left_out: a line for each kind of files and folders in --folders that are not read.
    """
    left_out: list[str] = []
    if options.folders:
        clips, targets, left_out = read_folders(options.folders)
    else:
        assert options.csv and options.clips        # tyro and `check` require them
        clips, targets = read_csv(options.csv, options.clips, options.source, options.label_separator)
    check_class_names(targets.columns)
    if options.source_pattern:
        clips["source"] = match_sources(clips.original, options.source_pattern)
    return clips.assign(labels=label_texts(targets.to_numpy(), targets.columns),
                        fname=flat_names(clips.original)), targets, left_out


def usable(clips: pd.DataFrame, targets: pd.DataFrame, skip_bad: bool) -> np.ndarray:
    """Return which clips can be used: (clips,) bool.

    Raises:
        TaggingError: a clip cannot be used and `skip_bad` is not set, or a class has no clip left.
    """
    faults = clips.fault.where(clips.labels != "", "no label; " + clips.fault).str.removesuffix("; ")
    good = (faults == "").to_numpy()
    listed = "".join(f"\n  {name}: {fault}" for name, fault in zip(clips.original, faults) if fault)
    if listed and not skip_bad:
        raise TaggingError(f"{sum(~good)} of {len(good)} clips cannot be used:{listed}\n"
                           "Fix the files or their labels, or drop these clips with --skip-bad-clips.")
    if listed:
        print(f"left out {sum(~good)} clips:{listed}", flush=True)
    empty = list(targets.columns[~targets[good].any()])
    if empty:
        raise TaggingError(f"{len(empty)} classes have no clip left: {shorten(empty)}. Fix their clips, or remove the "
                           "classes.")
    return good


def join_sources(clips: pd.DataFrame) -> np.ndarray:
    """Number the sources. Sources that share a clip with the same samples get the same number.

    Returns:
        (clips,) int. Clips with the same number must be in the same split.
    """
    firsts = clips.groupby("digest")[["original", "labels"]].transform("first")
    same = [f"{name} = {other}{'' if labels == others else ' (with other labels)'}" for name, labels, other, others
            in zip(clips.original, clips.labels, firsts.original, firsts.labels) if name != other]
    if same:
        print(f"{len(same)} clips are duplicates of others and go to the same split: {shorten(same)}", flush=True)
    groups = pd.Series(range(len(clips)), clips.index)
    while True:         # each round joins sources that are one duplicate further apart
        lowest = groups.groupby(clips.source).transform("min").groupby(clips.digest).transform("min")
        if lowest.equals(groups):
            return groups.to_numpy()
        groups = lowest


def shared_sources(groups: np.ndarray) -> int:
    """Return the number of clips beyond the first of each group."""
    return len(groups) - len(set(groups))


def write_splits(folder: Path, clips: pd.DataFrame, classes: Sequence[str], with_source: bool) -> None:
    """Write the tables, and move the clips from `folder` into the folders of their splits.

    Args:
        with_source: give train_curated.csv a column with the source, which the folds then keep together.
    """
    for part, rows in clips.groupby("part"):
        (folder / part).mkdir()
        for fname in rows.fname:
            (folder / fname).rename(folder / part / fname)
    clips = clips.assign(usage="Private").sort_values("fname")
    curated, test = (clips[clips.part == part] for part in ("train_curated", "test"))
    blank = pd.DataFrame(0, test.fname, classes).reset_index()
    columns = ["fname", "labels", *(["source"] if with_source else [])]
    for name, table in (("train_curated", curated.assign(source=curated.group)[columns]), ("sample_submission", blank),
                        ("test_post_competition", test[["fname", "labels", "usage"]]),
                        ("clips", clips[["fname", "part", "original", "source"]])):
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def report(out: Path, targets: pd.DataFrame, groups: np.ndarray, test: np.ndarray, left_out: Sequence[str]) -> None:
    """Print the clips of each class, notes on them, what was left out of the folders, and the next commands."""
    table = pd.DataFrame({"training clips": targets[~test].sum(), "test clips": targets[test].sum(),
                          "sources": [len(set(groups[column > 0])) for column in targets.to_numpy().T]})
    print(table.rename_axis("class").reset_index().to_string(index=False))
    missing = list(table.index[table["test clips"] == 0])
    if missing:
        print(f"note: these classes have too few sources for a test clip: {shorten(missing)}. They are trained but not "
              "scored.")
    few = list(table.index[table["training clips"] < FOLDS])
    if few:
        print(f"note: these classes have fewer training clips than the {FOLDS} folds: {shorten(few)}. "
              "train_curated.py --stratified distributes them evenly.")
    if shared := shared_sources(groups[~test]):
        print(f"note: {shared} training clips share their source with another one. The folds keep the clips of a "
              "source together, by the column source of train_curated.csv.")
    for line in left_out:
        print(line)
    place = shlex.quote(str(out))
    print(f"written to {out}. Next:\n"
          f"  python train_curated.py --data {place} --run own --from-scratch\n"
          f"  python predict.py --data {place} --run own\n"
          f"  python lwlrap.py submissions/own.csv --truth {place}/test_post_competition.csv --per-class")


if __name__ == "__main__":
    run_script(main)
