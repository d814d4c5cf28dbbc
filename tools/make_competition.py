"""Lay own labelled sounds out as a small competition, for the scripts to train on and to be scored with.

    python -m tools.make_competition OUT --folders DIR              a folder a class: DIR/Dog/rec 1.mp3
    python -m tools.make_competition OUT --csv FILE --clips DIR     fname,labels; fname is a path within DIR

    OUT/train_curated.csv          OUT/train_curated/*.wav
    OUT/sample_submission.csv      OUT/test/*.wav
    OUT/test_post_competition.csv  the truth: fname,labels,usage
    OUT/clips.csv                  fname,part,original,source: where each clip comes from

The clips become mono 16-bit WAV of one sample rate. Same clips, options and seed, same bytes.
"""
import argparse
import hashlib
import os
import re
import shlex
import wave
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from tagging.cli import run_script
from tagging.data.competition import check_classes, find_clips
from tagging.data.folds import choose_test
from tagging.data.tables import join_labels, label_texts, read_labels, read_table, split_labels
from tagging.errors import TaggingError, shorten
from tagging.utils.files import new_folder
from tagging_lite.audio import LONGEST, RATES, SoundError, has_sound, join, open_sound, read_mono, resample
from tagging_lite.command import SUFFIXES, find_sounds

FOLDS = 5       # of every recipe, unless the command line says otherwise


def main() -> None:
    args = parse_arguments()
    clips, targets = read_folders(args.folders) if args.folders else read_csv(args.csv, args.clips, args.source)
    check_class_names(targets.columns)
    clips["labels"] = label_texts(targets.to_numpy(), targets.columns)
    if args.source_pattern:
        clips["source"] = match_sources(clips.original, args.source_pattern)
    clips["fname"] = flat_names(clips.original)
    with new_folder(args.out) as folder:
        rate = args.sample_rate or usual_rate(clips.path)
        clips = clips.join(convert_all(clips, folder, rate))
        good = usable(clips, targets, args.skip_bad_clips)
        clips, targets = clips[good], targets[good]
        groups = join_sources(clips)
        test = choose_test(targets.to_numpy(), groups, args.test_share, args.seed)
        write_parts(folder, clips.assign(part=np.where(test, "test", "train_curated")), targets.columns)
    print(f"{len(clips)} clips at {rate} Hz: {sum(clips.channels > 1)} were mixed to one channel, "
          f"{sum(clips.rate != rate)} resampled")
    report(args.out, targets, groups, test)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; it must be empty or not exist")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--folders", type=Path, metavar="DIR", help="a folder that holds a folder for each class")
    given.add_argument("--csv", type=Path, metavar="FILE",
                       help="fname,labels[,...], with labels joined by commas within the field")
    parser.add_argument("--clips", type=Path, metavar="DIR", help="with --csv: the folder of its clips")
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--source", metavar="COLUMN", help="with --csv: the column that names the recording a clip was "
                      "cut from; clips of one recording are never split between training and test. Empty: a recording "
                      "of its own")
    told.add_argument("--source-pattern", metavar="REGEX", help="the same from the clip's path within DIR: the first "
                      r"group of the regular expression. '/(\d+)-' for Dog/123-4.wav, '(.+)/' for a folder a recording")
    parser.add_argument("--test-share", type=float, default=0.2, metavar="SHARE", help="of the clips (default: 0.2)")
    parser.add_argument("--sample-rate", type=int, metavar="HZ", help="default: the one that most clips have")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of test clips (default: 0)")
    parser.add_argument("--skip-bad-clips", action="store_true", help="leave out clips that cannot be used, by name")
    args = parser.parse_args()
    if (args.csv is None) != (args.clips is None) or (args.source and not args.csv):
        raise TaggingError("--csv and --clips go together, and --source names a column of the csv.")
    if not 0 < args.test_share < 1 or args.seed < 0:
        raise TaggingError("--test-share must lie between 0 and 1, and --seed must not be negative.")
    if args.sample_rate is not None and not RATES[0] <= args.sample_rate <= RATES[1]:
        raise TaggingError(f"--sample-rate must lie from {RATES[0]} to {RATES[1]} Hz.")
    return args


def read_folders(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the clips of a folder of classes. What is not called as a sound file is left out by name.

    Returns:
        clips: original (the path within `folder`), path, source (the clip itself).
        targets: 0/1, columns the classes; a clip in no class's folder has none.
    Raises:
        TaggingError: no such folder, fewer than two classes, a class without a clip, or a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise TaggingError(f"{folder} is not a folder. Give --folders the folder that holds a folder for each class.")
    files = {path.relative_to(folder).as_posix() for entry in folder.iterdir() for path in (entry, *entry.rglob("*"))
             if path.is_symlink() or path.is_file()}
    if odd := sorted(ascii(name) for name in files if name != name.encode(errors="replace").decode()):
        raise TaggingError(f"{folder} holds {len(odd)} names that are not UTF-8: {shorten(odd)}. Rename them.")
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    classes = check_classes(folder, [path.name for path in entries if path.is_dir()])
    paths = [path for entry in entries if entry.is_dir() or entry.suffix.lower() in SUFFIXES
             for path in find_sounds([entry])]
    names = [path.relative_to(folder).as_posix() for path in paths]
    if others := sorted(files - {*names, *classes}):        # a class's folder may be a link
        print(f"left out {len(others)} that are not sound files by their names: {shorten(others)}", flush=True)
    targets = [[name.startswith(f"{label}/") for label in classes] for name in names]       # (clips, classes)
    clips = pd.DataFrame({"original": names, "path": paths, "source": names})
    return clips, pd.DataFrame(targets, columns=classes).astype(np.uint8)


def read_csv(path: Path, folder: Path, column: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the clips of a csv; returns what `read_folders` does, with the sources that `column` names.

    Raises:
        TaggingError: as `read_labels` and `find_clips`; or no such column, or fewer than two classes.
    """
    table = read_table(path, ("fname", "labels", *([column] if column else ())))
    classes = check_classes(path, sorted({label for text in table.labels for label in split_labels(text)}))
    targets, _ = read_labels(path, classes)
    sources = table[column].str.strip().replace("", pd.NA).fillna(table.fname) if column else table.fname
    clips = pd.DataFrame({"original": targets.index, "path": find_clips(path, folder, targets.index),
                          "source": sources.to_numpy()})
    return clips, targets.reset_index(drop=True)


def check_class_names(classes: Sequence[str]) -> None:
    """
    Raises:
        TaggingError: a class whose name would not come out of the csv files as it went in.
    """
    for name in classes:
        if name in ("fname", "labels") or split_labels(join_labels([name])) != [name]:
            raise TaggingError(f"{name!r} cannot be the name of a class: fname and labels are columns, and line breaks "
                               "and blanks at the ends get lost. Rename it.")


def match_sources(names: Sequence[str], pattern: str) -> list[str]:
    """
    Raises:
        TaggingError: not a regular expression with a group, or a name in which it finds no source.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise TaggingError(f"--source-pattern '{pattern}' is no regular expression: {error}.") from error
    if not regex.groups:
        raise TaggingError(f"--source-pattern '{pattern}' has no group. Put brackets around what is the source.")
    sources = [match[1] if (match := regex.search(name)) else None for name in names]
    if missed := [name for name, source in zip(names, sources) if not source]:
        raise TaggingError(f"--source-pattern '{pattern}' finds no source in {len(missed)} of {len(names)} paths: "
                           f"{shorten(missed)}.")
    return sources


def flat_names(originals: Sequence[str]) -> list[str]:
    """'Dog/rec 1.mp3' -> 'Dog-rec 1.wav', with a number where that is taken. Of a long path the end is kept."""
    names, taken = [], set()
    for original in originals:
        stem = Path(original.strip("/").replace("/", "-")).stem
        stem = stem.encode()[-240:].decode(errors="ignore")     # file systems take 255 bytes
        name, number = f"{stem}.wav", 1
        while name.casefold() in taken:         # some file systems do not tell A from a
            number += 1
            name = f"{stem} ({number}).wav"
        taken.add(name.casefold())
        names.append(name)
    return names


def usual_rate(paths: Sequence[Path]) -> int:
    """The sample rate in Hz that most clips have; of two that equally many have, the higher one."""
    rates = Counter()
    for path in paths:
        try:
            with open_sound(path) as file:
                rates[file.samplerate] += 1
        except SoundError:
            pass        # it is listed when it is converted
    return max(rates, key=lambda rate: (rates[rate], rate), default=RATES[0])


def convert_all(clips: pd.DataFrame, folder: Path, sample_rate: int) -> pd.DataFrame:
    """Write all clips into `folder`, on all cores; returns a row a clip of what `convert` does."""
    threads, sounds = os.cpu_count() or 1, []
    with (ThreadPoolExecutor(threads) as pool,
          tqdm(total=len(clips), desc="converting clips", unit="clip", disable=None) as progress):
        for first in range(0, len(clips), 16 * threads):        # a signal waits for few clips only
            chunk = clips.iloc[first:first + 16 * threads]
            for sound in pool.map(lambda path, fname: convert(path, folder / fname, sample_rate),
                                  chunk.path, chunk.fname):
                sounds.append(sound)
                progress.update()
    return pd.DataFrame(sounds, columns=["fault", "digest", "rate", "channels"])


def convert(path: Path, copy: Path, sample_rate: int) -> tuple[str, str, int, int]:
    """Write a clip as mono 16-bit WAV, if it can be used. A clip that is one already keeps its samples.

    Returns:
        Why the clip cannot be used, or ""; a digest of its samples as written; its rate in Hz and its channels as read.
    """
    try:
        with open_sound(path) as file:
            rate, channels = file.samplerate, file.channels
        pieces, count = [], 0
        for piece in read_mono(path, rate):
            pieces, count = [*pieces, piece], count + len(piece)
            if count * sample_rate > LONGEST * rate:
                raise SoundError(f"longer than {LONGEST // sample_rate} seconds, too long at {sample_rate} Hz; cut it")
        samples = resample(join(pieces), rate, sample_rate)         # not piece by piece: that could be heard
        if not has_sound(samples):
            mixed = f" once its {channels} channels are mixed" if channels > 1 else ""
            raise SoundError(f"all silence{mixed}" if count else "no samples")
    except SoundError as error:
        return str(error), "", 0, 0
    with wave.open(str(copy), "wb") as file:        # tells a full disk as an OSError, as soundfile does not
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(samples)
    return "", hashlib.sha256(samples).hexdigest(), rate, channels


def usable(clips: pd.DataFrame, targets: pd.DataFrame, skip_bad: bool) -> np.ndarray:
    """Which clips can be used, (clips,) bool.

    Raises:
        TaggingError: some cannot be used, and are not to be left out; or a class keeps no clip.
    """
    faults = clips.fault.where(clips.labels != "", "no label; " + clips.fault).str.removesuffix("; ")
    good = (faults == "").to_numpy()
    listed = "".join(f"\n  {name}: {fault}" for name, fault in zip(clips.original, faults) if fault)
    if listed and not skip_bad:
        raise TaggingError(f"{sum(~good)} of {len(good)} clips cannot be used:{listed}\n"
                           "Mend the files or their labels, or leave these clips out with --skip-bad-clips.")
    if listed:
        print(f"left out {sum(~good)} clips:{listed}", flush=True)
    if empty := list(targets.columns[~targets[good].any()]):
        raise TaggingError(f"{len(empty)} classes have no clip left: {shorten(empty)}. Mend their clips, or remove the "
                           "classes.")
    return good


def join_sources(clips: pd.DataFrame) -> np.ndarray:
    """Number the sources; those that have a clip of the same samples are one.

    Returns:
        (clips,) int, equal for clips that belong on one side.
    """
    firsts = clips.groupby("digest")[["original", "labels"]].transform("first")
    if same := [f"{name} = {other}" + " (labelled otherwise)" * (labels != others) for name, labels, other, others
                in zip(clips.original, clips.labels, firsts.original, firsts.labels) if name != other]:
        print(f"{len(same)} clips have the very samples of another and go to its side: {shorten(same)}", flush=True)
    groups = pd.Series(range(len(clips)), clips.index)
    while True:         # once for each step from a source through shared samples to the next source
        lowest = groups.groupby(clips.source).transform("min").groupby(clips.digest).transform("min")
        if lowest.equals(groups):
            return groups.to_numpy()
        groups = lowest


def write_parts(folder: Path, clips: pd.DataFrame, classes: Sequence[str]) -> None:
    """Write the tables, and move the clips from `folder` to where they belong."""
    for part, rows in clips.groupby("part"):
        (folder / part).mkdir()
        for fname in rows.fname:
            (folder / fname).rename(folder / part / fname)
    clips = clips.assign(usage="Private").sort_values("fname")
    curated, test = (clips[clips.part == part] for part in ("train_curated", "test"))
    blank = pd.DataFrame(0, test.fname, classes).reset_index()
    for name, table in (("train_curated", curated[["fname", "labels"]]), ("sample_submission", blank),
                        ("test_post_competition", test[["fname", "labels", "usage"]]),
                        ("clips", clips[["fname", "part", "original", "source"]])):
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def report(out: Path, targets: pd.DataFrame, groups: np.ndarray, test: np.ndarray) -> None:
    """Print what each class has, what to mind, and the commands that come next."""
    table = pd.DataFrame({"training clips": targets[~test].sum(), "test clips": targets[test].sum(),
                          "sources": [len(set(groups[column > 0])) for column in targets.to_numpy().T]})
    print(table.rename_axis("class").reset_index().to_string(index=False))
    if missing := list(table.index[table["test clips"] == 0]):
        print(f"note: without a test clip, for want of sources: {shorten(missing)}. They are trained, and not scored.")
    if few := list(table.index[table["training clips"] < FOLDS]):
        print(f"note: fewer training clips than the {FOLDS} folds: {shorten(few)}. train_curated.py --stratified "
              "spreads them evenly.")
    if shared := sum(~test) - len(set(groups[~test])):
        print(f"note: {shared} training clips share their source with another, and the folds do not keep sources "
              "together: the out-of-fold scores will be too high. Go by the score of the test clips.")
    place = shlex.quote(str(out))
    print(f"written to {out}. Next:\n"
          f"  python train_curated.py --data {place} --run own --from-scratch\n"
          f"  python predict.py --data {place} --run own\n"
          f"  python lwlrap.py submissions/own.csv --truth {place}/test_post_competition.csv --per-class")


if __name__ == "__main__":
    run_script(main)
