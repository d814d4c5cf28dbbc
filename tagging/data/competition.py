"""A competition folder -> its classes, and its clips with their labels, checked."""
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.clip_names import clip_names, find_clips
from tagging.data.csv_files import find_separator, parse_rows, read_text, say
from tagging.data.tables import index_by_fname, read_labels, read_table
from tagging.errors import TaggingError, shorten

log = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "display_name", "name", "class")      # of a vocabulary: the names of the classes

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
    sources: np.ndarray | None = None       # (clips,) the recording of each clip, if known. Empty: its own

    def __len__(self) -> int:
        return len(self.fnames)

    def subset(self, keep: np.ndarray) -> "Clips":
        """Return the clips at the positions, or of the mask, `keep`."""
        positions = np.arange(len(self))[keep]
        return Clips(self.split, self.csv, self.fnames[positions], [self.paths[i] for i in positions],
                     self.targets[positions], None if self.sources is None else self.sources[positions])

    @property
    def labelled(self) -> bool:
        return self.targets.shape[1] > 0


@dataclass(frozen=True)
class Competition:
    """A folder in Kaggle's or Zenodo's layout."""
    root: Path
    layout: Layout
    classes: tuple[str, ...]       # in the submission's order

    def clips(self, split: str, source_column: str = "") -> Clips:
        """Read and check one split: curated, noisy or test.

        Args:
            source_column: the column of a training csv with the recording of each clip.
        Raises:
            TaggingError: the csv or the folder is missing or wrong, a label is unknown, or a class has no clip; or as
                `find_clips`.
        """
        table_path, folder = (self.root / name for name in self.layout.splits[split])
        if not folder.is_dir():
            raise TaggingError(f"{folder} is missing. It should contain the {split} clips. See data/README.md.")
        if split == "test":
            # The sample submission has no labels. Zenodo's csv has, but prediction must not see them. The clips keep
            # the names of the csv, because the submission must have them.
            fnames = index_by_fname(read_table(table_path), table_path).index
            targets = np.zeros((len(fnames), 0), np.uint8)
            return Clips(split, table_path, fnames, find_clips(table_path, folder, fnames), targets)
        table, texts = read_labels(table_path, self.classes)
        if split == "curated":
            table = drop_bad_clips(table)
        paths = find_clips(table_path, folder, table.index)
        # The names of the files, however the csv writes them: the order, the folds and the bad clips depend on them.
        names = clip_names(folder, paths)
        path_of = dict(zip(names, paths))
        sources = texts[source_column][table.index].set_axis(names) if source_column in texts else None
        table = table.set_axis(pd.Index(names, name="fname"))
        if split == "curated":
            table = drop_bad_clips(table)
        table = table.sort_index()      # Kaggle's order; Zenodo's differs, and the folds depend on it
        clips = Clips(split, table_path, table.index, [path_of[fname] for fname in table.index], table.to_numpy(),
                      None if sources is None else sources[table.index].to_numpy())
        unlabelled = clips.fnames[~clips.targets.any(1)]
        if len(unlabelled):
            say(f"{table_path}: {len(unlabelled)} clips have no label: {shorten(list(unlabelled), 3)}. They are "
                "trained as clips of no class.")
        self.check_every_class(clips)
        return clips

    def check_test(self) -> None:
        """Check the names of the test clips, if csv and folder are there: training takes long, and then they are used.

        Raises:
            TaggingError: as `clips`.
        """
        try:
            if self.has("test"):
                self.clips("test")
        except TaggingError as error:
            raise TaggingError(f"The test clips could not be predicted after the training. {error} To train without "
                               f"them, rename {self.root / self.layout.splits['test'][1]}.") from error

    def has(self, split: str) -> bool:
        """Whether the csv and the folder of a split exist."""
        return all((self.root / name).exists() for name in self.layout.splits[split])

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


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the classes of a sample submission or of a vocabulary.

    Raises:
        TaggingError: as `read_header` and `read_vocabulary`.
    """
    text = read_text(path)
    separator, start = find_separator(path, text, lambda row: "fname" in row)
    _, header = next(parse_rows(path, text, separator, start), (0, []))
    return read_header(path) if "fname" in map(str.strip, header) else read_vocabulary(path)


def read_header(path: Path) -> tuple[str, ...]:
    """Return the classes of a sample submission: its columns after fname.

    Raises:
        TaggingError: as `read_table` and `check_classes`; or a column numbers the rows.
    """
    table = read_table(path).drop(columns="fname")
    for name in table if len(table) > 2 else ():
        if table[name].str.fullmatch("[0-9]{1,9}").all() and set(table[name].astype(int).diff().dropna()) == {1}:
            raise TaggingError(f"{path}: the column {name} numbers the rows and is no class. Remove it.")
    return check_classes(path, list(table))


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Return the classes of a vocabulary: `index,label,mid` in each row, with or without a header, or a list of names.

    Raises:
        TaggingError: as `parse_rows` and `check_classes`; or the column with the names cannot be told.
    """
    text = read_text(path)
    separator, start = find_separator(path, text, lambda row: len(row) > 1 and (
        row[0].isdigit() or not set(LABEL_COLUMNS).isdisjoint(row)))
    rows: list[list[str]] = []
    for line, row in parse_rows(path, text, separator, start):
        rows.append([field.strip() for field in row])
        if len(row) != len(rows[0]):
            raise TaggingError(f"{path}, line {line}: {len(row)} fields where the first row has {len(rows[0])}. Quote "
                               "names that contain commas.")
    width = 1 + max((place for row in rows for place, field in enumerate(row) if field), default=0)
    first = rows[0][:width] if rows else []
    named = [first.index(name) for name in LABEL_COLUMNS if name in first]
    if first and first[0].isdigit() and width > 1:
        column = 1
    elif named:
        column, rows = named[0], rows[1:]
    elif width == 1:
        column = 0
    elif len(rows) > 1 and rows[1][0].isdigit():        # a header with other names
        column, rows = 1, rows[1:]
    else:
        raise TaggingError(f"{path}: the column with the names of the classes cannot be told. Begin the file with the "
                           "row index,label.")
    return check_classes(path, [row[column] for row in rows])


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


def drop_bad_clips(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the curated clips that the organisers named as bad, and log their names."""
    bad = table.index.intersection(list(BAD_CURATED_CLIPS))
    if len(bad):
        log.info("left out %d curated clips that the organisers named as bad: %s", len(bad),
                 ", ".join(f"{fname} ({BAD_CURATED_CLIPS[fname]})" for fname in bad))
    return table.drop(index=bad)
