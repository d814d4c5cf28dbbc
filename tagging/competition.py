"""A competition folder -> its classes, and its clips with their labels. Every check of the csv files is here."""
import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.errors import TaggingError, shorten
from tagging.tables import index_by_fname, read_labels, read_table

# Named by the organisers after the deadline.
BAD_CURATED_CLIPS = {
    "f76181c4.wav": "wrong label",
    "77b925c2.wav": "wrong label",
    "6a1f682a.wav": "wrong label",
    "c7db12aa.wav": "wrong label",
    "7752cc8a.wav": "wrong label",
    "1d44b0bd.wav": "no signal",
}


@dataclass(frozen=True)
class Layout:
    """Where the parts of a competition lie, relative to its folder."""
    name: str
    classes: str                   # the file that gives the classes and their order
    parts: dict[str, tuple[str, str]]   # curated, noisy, test -> (csv, folder of its clips)


LAYOUTS = (
    Layout("Kaggle", "sample_submission.csv", {
        "curated": ("train_curated.csv", "train_curated"),
        "noisy": ("train_noisy.csv", "train_noisy"),
        "test": ("sample_submission.csv", "test"),
    }),
    Layout("Zenodo", "FSDKaggle2019.meta/vocabulary.csv", {
        "curated": ("FSDKaggle2019.meta/train_curated_post_competition.csv", "FSDKaggle2019.audio_train_curated"),
        "noisy": ("FSDKaggle2019.meta/train_noisy_post_competition.csv", "FSDKaggle2019.audio_train_noisy"),
        "test": ("FSDKaggle2019.meta/test_post_competition.csv", "FSDKaggle2019.audio_test"),
    }),
)


@dataclass(frozen=True)
class Clips:
    """One set of clips, in the order of its csv file."""
    part: str                      # curated, noisy or test
    csv: Path
    fnames: pd.Index               # (clips,)
    paths: list[Path]              # (clips,)
    targets: np.ndarray | None     # (clips, classes) 0/1, or soft; None for the test set

    def __len__(self) -> int:
        return len(self.fnames)

    def subset(self, keep: np.ndarray) -> "Clips":
        """The clips at the positions, or of the mask, `keep`."""
        positions = np.arange(len(self))[keep]
        return Clips(self.part, self.csv, self.fnames[positions], [self.paths[i] for i in positions],
                     None if self.targets is None else self.targets[positions])


@dataclass(frozen=True)
class Competition:
    """A folder in Kaggle's or Zenodo's layout."""
    root: Path
    layout: Layout
    classes: tuple[str, ...]       # in the submission's order

    def clips(self, part: str) -> Clips:
        """Read and check one part: curated, noisy or test.

        Raises:
            TaggingError: the csv or the folder is missing or wrong, a clip is missing on disk or lies
                outside the folder, a label is no class, or a class has no clip.
        """
        table_path, folder = (self.root / name for name in self.layout.parts[part])
        if not folder.is_dir():
            raise TaggingError(f"{folder} is missing: it should hold the {part} clips. See data/README.md.")
        if part == "test":
            # The sample submission has no labels; Zenodo's truth has, and they are none of the network's business.
            targets, fnames = None, index_by_fname(read_table(table_path), table_path).index
        else:
            table, _ = read_labels(table_path, self.classes)
            if part == "curated":
                table = leave_out_bad(table)
            table = table.sort_index()   # Kaggle's order; Zenodo's differs, and the folds depend on it
            targets, fnames = table.to_numpy(), table.index
        clips = Clips(part, table_path, fnames, find_clips(table_path, folder, fnames), targets)
        if part != "test":
            self.check_every_class(clips)
        return clips

    def announce_missing(self, *parts: str) -> None:
        """Print which of `parts` are not there, for later steps to need."""
        for part in parts:
            missing = [str(self.root / name) for name in self.layout.parts[part] if not (self.root / name).exists()]
            if missing:
                print(f"note: {' and '.join(missing)} are missing; the {part} clips will be needed later", flush=True)

    def check_every_class(self, clips: Clips) -> None:
        """
        Raises:
            TaggingError: a class without a clip, which could not be learnt.
        """
        empty = [name for name, count in zip(self.classes, clips.targets.sum(0)) if not count]
        if empty:
            raise TaggingError(f"{clips.csv} has no usable clip of {len(empty)} classes: {shorten(empty)}. Add clips, "
                               f"or remove the classes from {self.root / self.layout.classes}.")


def open_competition(root: Path) -> Competition:
    """Recognise the layout of a competition folder and read its classes.

    Raises:
        TaggingError: no such folder, neither layout, or a class list that cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise TaggingError(f"{root} is not a folder. Give --data the competition folder; see data/README.md.")
    for layout in LAYOUTS:
        if (root / layout.classes).is_file():
            read = read_vocabulary if layout.name == "Zenodo" else read_header
            return Competition(root, layout, read(root / layout.classes))
    expected = " nor ".join(f"{layout.classes} ({layout.name})" for layout in LAYOUTS)
    raise TaggingError(f"{root} holds neither {expected}, so its classes are unknown. See data/README.md.")


def read_header(path: Path) -> tuple[str, ...]:
    """The classes of a sample submission: its columns after fname."""
    return check_classes(path, list(read_table(path).columns.drop("fname")))


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The classes of a vocabulary: `index,label,mid` in each row, with or without a header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaggingError(f"{path} could not be read as a csv: {error}.") from error
    if rows and not rows[0][0].strip().isdigit() and len(rows[0]) > 1:
        rows = rows[1:]
    # A one-column list of names is read too.
    return check_classes(path, [row[min(1, len(row) - 1)].strip() for row in rows])


def check_classes(path: Path, classes: list[str]) -> tuple[str, ...]:
    repeated = sorted(name for name, count in Counter(classes).items() if count > 1)
    if len(classes) < 2 or repeated or "" in classes:
        fault = (f"the class {shorten(repeated)} twice" if repeated else
                 "a class without a name" if "" in classes else f"{len(classes)} classes")
        raise TaggingError(f"{path} gives {fault}; it must name two or more classes, each once.")
    return tuple(classes)


def find_clips(table_path: Path, folder: Path, fnames: Sequence[str]) -> list[Path]:
    """The path of each clip.

    Raises:
        TaggingError: a name leaves the folder, or there is no such file.
    """
    home = folder.resolve()
    missing = []
    for fname in fnames:
        try:
            # The folder itself may be a link to another disk; a clip's name must not lead out of it.
            path = (home / fname).resolve()
            if not path.is_relative_to(home):
                raise TaggingError(f"{table_path}: '{fname}' lies outside {folder}. Put the file into the folder.")
            if not (path.is_file() and (folder / fname).is_file()):     # resolve() lets a/.. be nothing, open() not
                missing.append(str(folder / fname))
        except (OSError, ValueError, RuntimeError) as error:       # too long, a NUL in it, a link to itself
            raise TaggingError(f"{table_path}: {fname!r} cannot be a file's name: {error}. Rename the clip.") from error
    if missing:
        raise TaggingError(f"{table_path} names {len(missing)} clips that are missing on disk: {shorten(missing, 5)}. "
                           "Unpack the archive again, or remove their rows.")
    return [folder / fname for fname in fnames]


def leave_out_bad(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the curated clips that the organisers named as bad, and say so."""
    bad = table.index.intersection(list(BAD_CURATED_CLIPS))
    if len(bad):
        print(f"left out {len(bad)} curated clips that the organisers named as bad: "
              + ", ".join(f"{fname} ({BAD_CURATED_CLIPS[fname]})" for fname in bad), flush=True)
    return table.drop(index=bad)
