"""A competition folder -> its classes, and its clips with their labels, checked."""
import csv
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.tables import index_by_fname, read_labels, read_table
from tagging.errors import TaggingError, shorten

log = logging.getLogger(__name__)

# The organisers named these after the deadline.
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
    """Where the splits of a competition are, relative to its folder."""
    name: str
    classes: str                            # the file with the classes, in their order
    splits: dict[str, tuple[str, str]]      # curated, noisy, test -> (csv, folder of its clips)


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
    """One split of a competition, in the order of its csv file."""
    split: str                     # curated, noisy or test
    csv: Path
    fnames: pd.Index               # (clips,)
    paths: list[Path]              # (clips,)
    targets: np.ndarray            # (clips, classes) 0/1 or soft labels; (clips, 0) for the test split, which has none

    def __len__(self) -> int:
        return len(self.fnames)

    def subset(self, keep: np.ndarray) -> "Clips":
        """Return the clips at the positions, or of the mask, `keep`."""
        positions = np.arange(len(self))[keep]
        return Clips(self.split, self.csv, self.fnames[positions], [self.paths[i] for i in positions],
                     self.targets[positions])

    @property
    def labelled(self) -> bool:
        return self.targets.shape[1] > 0


@dataclass(frozen=True)
class Competition:
    """A folder in Kaggle's or Zenodo's layout."""
    root: Path
    layout: Layout
    classes: tuple[str, ...]       # in the submission's order

    def clips(self, split: str) -> Clips:
        """Read and check one split: curated, noisy or test.

        Raises:
            TaggingError: the csv or the folder is missing or wrong, a clip is missing on disk or is outside the
                folder, a label is unknown, or a class has no clip.
        """
        table_path, folder = (self.root / name for name in self.layout.splits[split])
        if not folder.is_dir():
            raise TaggingError(f"{folder} is missing. It should contain the {split} clips. See data/README.md.")
        if split == "test":
            # The sample submission has no labels. Zenodo's csv has, but prediction must not see them.
            fnames = index_by_fname(read_table(table_path), table_path).index
            targets = np.zeros((len(fnames), 0), np.uint8)
        else:
            table, _ = read_labels(table_path, self.classes)
            if split == "curated":
                table = drop_bad_clips(table)
            table = table.sort_index()   # Kaggle's order; Zenodo's differs, and the folds depend on it
            targets, fnames = table.to_numpy(), table.index
        clips = Clips(split, table_path, fnames, find_clips(table_path, folder, fnames), targets)
        if split != "test":
            self.check_every_class(clips)
        return clips

    def announce_missing(self, *splits: str) -> None:
        """Log which of `splits` are missing, because later steps need them."""
        for split in splits:
            missing = [str(self.root / name) for name in self.layout.splits[split] if not (self.root / name).exists()]
            if missing:
                log.info("note: %s are missing. You will need the %s clips later.", " and ".join(missing), split)

    def check_every_class(self, clips: Clips) -> None:
        """
        Raises:
            TaggingError: a class has no clip to learn from.
        """
        empty = [name for name, count in zip(self.classes, clips.targets.sum(0)) if not count]
        if empty:
            raise TaggingError(f"{clips.csv} has no usable clip of {len(empty)} classes: {shorten(empty)}. Add clips, "
                               f"or remove the classes from {self.root / self.layout.classes}.")


def open_competition(root: Path) -> Competition:
    """Recognise the layout of a competition folder and read its classes.

    Raises:
        TaggingError: the folder is missing or has neither layout, or its class list cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise TaggingError(f"{root} is not a folder. Set --data to the competition folder. See data/README.md.")
    for layout in LAYOUTS:
        if (root / layout.classes).is_file():
            read = read_vocabulary if layout.name == "Zenodo" else read_header
            return Competition(root, layout, read(root / layout.classes))
    expected = " nor ".join(f"{layout.classes} ({layout.name})" for layout in LAYOUTS)
    raise TaggingError(f"{root} contains neither {expected}, so its classes are unknown. See data/README.md.")


def read_header(path: Path) -> tuple[str, ...]:
    """Return the classes of a sample submission: its columns after fname."""
    return check_classes(path, list(read_table(path).columns.drop("fname")))


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Return the classes of a vocabulary: `index,label,mid` in each row, with or without a header."""
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
    """
    Raises:
        TaggingError: there are fewer than two classes, a duplicate class, or a class without a name.
    """
    repeated = sorted(name for name, count in Counter(classes).items() if count > 1)
    if len(classes) < 2 or repeated or "" in classes:
        fault = (f"a duplicate class: {shorten(repeated)}" if repeated else
                 "a class without a name" if "" in classes else f"{len(classes)} classes")
        raise TaggingError(f"{path} has {fault}. It must name two or more classes, each once.")
    return tuple(classes)


def find_clips(table_path: Path, folder: Path, fnames: Iterable[str]) -> list[Path]:
    """Return the path of each clip.

    Raises:
        TaggingError: a name points outside the folder, or the file is missing.
    """
    home = folder.resolve()
    missing = []
    for fname in fnames:
        try:
            # The folder itself may be a link to another disk, but a clip's name must not point outside it.
            path = (home / fname).resolve()
            if not path.is_relative_to(home):
                raise TaggingError(f"{table_path}: '{fname}' is outside {folder}. Move the file into the folder.")
            if not (path.is_file() and (folder / fname).is_file()):     # resolve() accepts a missing a/..
                missing.append(str(folder / fname))
        except (OSError, ValueError, RuntimeError) as error:       # too long, a NUL in it, a link to itself
            raise TaggingError(f"{table_path}: {fname!r} is no valid file name: {error}. Rename the clip.") from error
    if missing:
        raise TaggingError(f"{table_path} lists {len(missing)} clips that are missing on disk: {shorten(missing, 5)}. "
                           "Unpack the archive again, or remove their rows.")
    return [folder / fname for fname in fnames]


def drop_bad_clips(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the curated clips that the organisers named as bad, and log their names."""
    bad = table.index.intersection(list(BAD_CURATED_CLIPS))
    if len(bad):
        log.info("left out %d curated clips that the organisers named as bad: %s", len(bad),
                 ", ".join(f"{fname} ({BAD_CURATED_CLIPS[fname]})" for fname in bad))
    return table.drop(index=bad)
