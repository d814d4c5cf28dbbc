"""The user's own labelled sounds, from a folder for each class or from a csv. tools.make_competition converts them."""
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.clip_names import clip_names, find_clips, find_fits, list_files
from tagging.data.competition import check_classes
from tagging.data.csv_files import MAX_COLUMNS, NAMELESS, say
from tagging.data.tables import is_missing, join_labels, label_targets, read_table, split_labels
from tagging.errors import TaggingError, shorten
from tagging_lite.find import OTHER, class_folders, find_sounds
from tools.label_column import AUTO, split_column

# Cyrillic and Greek letters that look like Latin ones, as capitals or small.
LOOKALIKES = str.maketrans("\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455"
                           "\u03b1\u03b2\u03b5\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u03b6",
                           "abekmhopctyxijs" "abehikmnoptyxz")
# What does not show, or differs between keyboards: blanks, hyphens, quotes, controls, Unicode's invisible characters.
UNSEEN = ("Z", "Cc", "Cf", "Pd", "Pc", "Pi", "Pf")
FILLERS = "'\"`\u034f\u115f\u1160\ufe0e\ufe0f"
PLACEHOLDER = re.compile(r"#[a-z/0]+[!?]?|nil|nat|n[./ ]?[ad]\.?|\\n|missing|undefined|unlabell?ed|tbd")


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
    targets = pd.DataFrame([[name.startswith(f"{label}/") for label in classes] for name in names],
                           columns=list(classes)).astype(np.uint8)
    note_classes(folder, targets)
    clips = pd.DataFrame({"original": names, "path": found.paths, "source": names})
    return clips, targets, left_out


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
        TaggingError: as `read_table`, `split_column`, `label_targets` and `find_clips`; or the column is missing, a
            field contains a row of another clip, or there are fewer than two classes.
    """
    table = read_table(path, ("fname", "labels", *([column] if column else ())))
    check_lost_rows(path, folder, table)
    labels = split_column(path, table, separator)
    classes = check_classes(path, sorted({label for found in labels for label in found}))
    targets = label_targets(path, table, labels, classes)
    note_classes(path, targets)
    paths = find_clips(path, folder, table.fname)
    names = clip_names(folder, paths)
    sources = names if column is None else [name if is_missing(source) else source.strip()
                                            for name, source in zip(names, table[column])]
    clips = pd.DataFrame({"original": names, "path": paths, "source": sources})
    return clips, targets.reset_index(drop=True)


def check_lost_rows(path: Path, folder: Path, table: pd.DataFrame) -> None:
    """
    Raises:
        TaggingError: a stray quote in the csv has made the rows of other clips a part of a field.
    """
    lines = {(line, text): [part for part in text.splitlines()[1:] if re.search(r"[,;|\t]", part)]
             for name in table for line, text in table[name].items() if "\n" in text or "\r" in text}
    names = {part: re.split(r"[,;|\t]", part)[0].strip('" ') for parts in lines.values() for part in parts}
    fits = find_fits(set(names.values()), list_files(folder)) if names else {}
    for (line, _), parts in lines.items():
        for part in parts:
            if fits[names[part]]:
                clip = table.fname[line].partition("\n")[0]
                raise TaggingError(f"{path}, line {line}: a field in the row of {clip} contains the row of another "
                                   f"clip, {part!r}. Remove the quote that opens this field.")


def check_class_names(classes: Sequence[str]) -> None:
    """
    Raises:
        TaggingError: the csv files cannot represent the name of a class, or so many classes.
    """
    if len(classes) >= MAX_COLUMNS:
        raise TaggingError(f"There are {len(classes)} classes, and the csv files can have {MAX_COLUMNS - 1}. Check "
                           "that the labels are classes and not the names of clips, and what separates them.")
    for name in classes:
        if name in ("fname", "labels") or NAMELESS.fullmatch(name) or split_labels(join_labels([name])) != [name]:
            raise TaggingError(f"{name!r} cannot be the name of a class: fname and labels are columns, columns without "
                               "a name are called Unnamed, and line breaks and blanks at the ends get lost. Rename it.")


def note_classes(path: Path, targets: pd.DataFrame) -> None:
    """Log classes that are likely to be the same class or a missing label, with their numbers of clips."""
    counts = targets.sum()
    groups: dict[str, list[str]] = defaultdict(list)
    for name in targets.columns:
        groups[visible(name)].append(name)
    similar = []
    for names in groups.values():
        # Names that print alike are shown with escapes.
        show = repr if len({"".join(name.casefold().split()) for name in names}) == 1 else ascii
        if len(names) > 1:
            similar.append(" and ".join(f"{show(name)} ({counts[name]})" for name in names))
    if similar:
        say(f"{path}: some classes differ only in case, blanks, hyphens, zeros of numbers or characters that look "
            f"alike, here with their numbers of clips: {shorten(similar, 3)}. Write them alike if they are the "
            "same.")
    placeholders = [f"{name!r} ({counts[name]})" for name in targets.columns if is_placeholder(name)]
    if placeholders:
        say(f"{path}: some classes look like missing labels, here with their numbers of clips: "
            f"{shorten(placeholders, 3)}. If they are, leave their fields empty.")


def visible(name: str) -> str:
    """Return what people see of a name: the same text for names that look alike, and for 1 and 1.0."""
    number = re.fullmatch(r"\+?(-?)0*(\d*?)([.,](\d*?)0*)?", name)
    if number and any(map(str.isdecimal, name)):
        return f"{number[1]}{number[2]}.{number[4] or ''}"
    text = unicodedata.normalize("NFKC", name).casefold().translate(LOOKALIKES)
    return "".join(sign for sign in text
                   if not unicodedata.category(sign).startswith(UNSEEN) and sign not in FILLERS) or name


def is_placeholder(name: str) -> bool:
    """Whether a name is a word or a sign that programs write for a missing value. Pictograms are none."""
    text = name.casefold().strip("()[]<>")
    return bool(PLACEHOLDER.fullmatch(text)) or all(unicodedata.category(sign)[0] in "PSZ" and
                                                    unicodedata.category(sign) != "So" for sign in name)


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
