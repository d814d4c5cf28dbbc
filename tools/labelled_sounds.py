"""The user's own labelled sounds, from a folder for each class or from a csv. tools.make_competition converts them."""
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from tagging.data.clip_names import clip_names, find_clips
from tagging.data.competition import check_classes
from tagging.data.tables import is_missing, join_labels, label_targets, read_table, split_labels
from tagging.errors import TaggingError, shorten
from tagging_lite.find import OTHER, class_folders, find_sounds
from tools.label_column import AUTO, split_column


def read_folders(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Find the clips of a folder that contains a folder for each class.

    Returns:
        clips: original (the path within `folder`, with escapes for bytes that are not UTF-8), path, source (the clip
            itself).
        targets: 0/1, columns the classes. A clip outside the folders of the classes has no label.
        left_out: a line for each kind of files and folders that are not read.
    Raises:
        TaggingError: the folder is missing, there are fewer than two classes, a class has no clip, or its name is not
            UTF-8.
    """
    if not folder.is_dir():
        raise TaggingError(f"{folder} is not a folder. --folders needs a folder that contains a folder for each class.")
    classes = check_classes(folder, class_folders(folder))
    undecodable = [as_text(name) for name in classes if as_text(name) != name]
    if undecodable:
        raise TaggingError(f"{folder} contains {len(undecodable)} classes whose names are not UTF-8: "
                           f"{shorten(undecodable)}. Rename them.")
    found = find_sounds([folder], follow=True)
    left_out = found.describe(home=folder) + found.describe([OTHER], folder)
    names = [as_text(path.relative_to(folder).as_posix()) for path in found.paths]
    empty = sorted({*classes} - {name.partition("/")[0] for name in names})
    if empty:
        raise TaggingError("\n  ".join([f"{folder} has no sound file of {len(empty)} classes: {shorten(empty)}. Add "
                                        "sounds, or move the folders of these classes elsewhere.", *left_out]))
    targets = [[name.startswith(f"{label}/") for label in classes] for name in names]       # (clips, classes)
    clips = pd.DataFrame({"original": names, "path": found.paths, "source": names})
    return clips, pd.DataFrame(targets, columns=list(classes)).astype(np.uint8), left_out


def as_text(name: str) -> str:
    """Return a file name as text that can be encoded: bytes that are not UTF-8 become escapes such as \\xe9."""
    return os.fsencode(name).decode(errors="backslashreplace")


def read_csv(path: Path, folder: Path, column: str | None, separator: str = AUTO) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the clips of a csv.

    Args:
        folder: contains the clips.
        column: the column with the source of each clip. A clip whose field is empty, nan or None is its own source.
        separator: of the labels, as for `split_column`.
    Returns:
        clips and targets as `read_folders`.
    Raises:
        TaggingError: as `read_table`, `split_column`, `label_targets` and `find_clips`; or the column is missing, or
            there are fewer than two classes.
    """
    table = read_table(path, ("fname", "labels", *([column] if column else ())))
    labels = split_column(path, table, separator)
    classes = check_classes(path, sorted({label for found in labels for label in found}))
    targets = label_targets(path, table, labels, classes)
    paths = find_clips(path, folder, table.fname)
    names = [PurePosixPath(name).as_posix() for name in clip_names(folder, table.fname, paths)]     # without ./
    sources = names if column is None else [name if is_missing(source) else source.strip()
                                            for name, source in zip(names, table[column])]
    clips = pd.DataFrame({"original": names, "path": paths, "source": sources})
    return clips, targets.reset_index(drop=True)


def check_class_names(classes: Sequence[str]) -> None:
    """
    Raises:
        TaggingError: the csv files cannot represent the name of a class.
    """
    for name in classes:
        if name in ("fname", "labels") or split_labels(join_labels([name])) != [name]:
            raise TaggingError(f"{name!r} cannot be the name of a class: fname and labels are columns, and line breaks "
                               "and blanks at the ends get lost. Rename it.")


def match_sources(names: Sequence[str], pattern: str) -> list[str]:
    """Return the first group of the regular expression in each name.

    Raises:
        TaggingError: the pattern is not a regular expression with a group, or does not match a name.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise TaggingError(f"--source-pattern '{pattern}' is not a regular expression: {error}. Correct it.") from error
    if not regex.groups:
        raise TaggingError(f"--source-pattern '{pattern}' has no group. Put parentheses around the source.")
    sources = []
    for name in names:
        match = regex.search(name)
        sources.append(match[1] or "" if match else "")
    missed = [name for name, source in zip(names, sources) if not source]
    if missed:
        raise TaggingError(f"--source-pattern '{pattern}' finds no source in {len(missed)} of {len(names)} paths: "
                           f"{shorten(missed)}. Correct the pattern.")
    return sources


def flat_names(originals: Sequence[str]) -> list[str]:
    """Return a unique file name for each path: 'Dog/rec 1.mp3' -> 'Dog-rec 1.wav'. Long names keep their end."""
    names: list[str] = []
    taken: set[str] = set()
    for original in originals:
        stem = Path(re.sub(r"[/\\]", "-", original.strip("/"))).stem
        stem = stem.encode()[-240:].decode(errors="ignore")     # file systems accept 255 bytes
        name, number = f"{stem}.wav", 1
        while name.casefold() in taken:         # some file systems do not distinguish A from a
            number += 1
            name = f"{stem} ({number}).wav"
        taken.add(name.casefold())
        names.append(name)
    return names
