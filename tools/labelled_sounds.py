"""The user's own labelled sounds, from a folder for each class or from a csv. tools.make_competition converts them."""
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.competition import check_classes, find_clips
from tagging.data.tables import join_labels, read_labels, read_table, split_labels
from tagging.errors import TaggingError, shorten
from tagging_lite.command import SUFFIXES, find_sounds


def read_folders(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the clips of a folder that contains a folder for each class. Print the files that are not sound files.

    Returns:
        clips: original (the path within `folder`), path, source (the clip itself).
        targets: 0/1, columns the classes. A clip outside the folders of the classes has no label.
    Raises:
        TaggingError: the folder is missing, there are fewer than two classes, a class has no clip, or a name is not
            UTF-8.
    """
    if not folder.is_dir():
        raise TaggingError(f"{folder} is not a folder. --folders needs a folder that contains a folder for each class.")
    files = {path.relative_to(folder).as_posix() for entry in folder.iterdir() for path in (entry, *entry.rglob("*"))
             if path.is_symlink() or path.is_file()}
    undecodable = sorted(ascii(name) for name in files if name != name.encode(errors="replace").decode())
    if undecodable:
        raise TaggingError(f"{folder} contains {len(undecodable)} names that are not UTF-8: {shorten(undecodable)}. "
                           "Rename them.")
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    classes = check_classes(folder, [path.name for path in entries if path.is_dir()])
    paths = [path for entry in entries if entry.is_dir() or entry.suffix.lower() in SUFFIXES
             for path in find_sounds([entry])]
    names = [path.relative_to(folder).as_posix() for path in paths]
    others = sorted(files - {*names, *classes})         # the folder of a class can be a link
    if others:
        print(f"left out {len(others)} files that are not sound files by their names: {shorten(others)}", flush=True)
    targets = [[name.startswith(f"{label}/") for label in classes] for name in names]       # (clips, classes)
    clips = pd.DataFrame({"original": names, "path": paths, "source": names})
    return clips, pd.DataFrame(targets, columns=list(classes)).astype(np.uint8)


def read_csv(path: Path, folder: Path, column: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the clips of a csv.

    Args:
        folder: contains the clips.
        column: the column with the source of each clip. An empty field makes the clip its own source.
    Returns:
        clips and targets as `read_folders`.
    Raises:
        TaggingError: as `read_labels` and `find_clips`; or the column is missing, or there are fewer than two classes.
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
        stem = Path(original.strip("/").replace("/", "-")).stem
        stem = stem.encode()[-240:].decode(errors="ignore")     # file systems accept 255 bytes
        name, number = f"{stem}.wav", 1
        while name.casefold() in taken:         # some file systems do not distinguish A from a
            number += 1
            name = f"{stem} ({number}).wav"
        taken.add(name.casefold())
        names.append(name)
    return names
