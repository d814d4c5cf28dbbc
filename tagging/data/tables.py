"""The csv files of a competition: labels, submissions and truth, checked row by row.

This module imports numpy and pandas only, so that `lwlrap.py` starts quickly.
"""
import csv
import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.clip_names import row_of
from tagging.data.csv_files import open_csv, say
from tagging.data.csv_numbers import FLAGS, NumberReader
from tagging.data.csv_numbers import read_numbers as read_numbers  # other modules import it from here
from tagging.errors import TaggingError, did_you_mean, shorten, spelt
from tagging.utils.files import atomic

MISSING = {"", "nan", "none", "null", "na", "n/a", "<na>", "#n/a"}      # how tools write a missing label, in any case


def read_table(path: Path, columns: Sequence[str] = ("fname",)) -> pd.DataFrame:
    """Read a csv with a header as text; the index is each row's line in the file.

    Raises:
        TaggingError: as `open_csv`, or no rows.
    """
    file = open_csv(path, columns)
    # By columns, and equal texts are stored once: lists of rows take many times the file's size.
    lines = array("q")
    fields: list[list[str]] = [[] for _ in file.header]
    known: dict[str, str] = {}
    for line, row in file.rows:
        lines.append(line)
        for column, field in zip(fields, row):
            column.append(known.setdefault(field, field))
    if not lines:
        raise TaggingError(f"{path} has a header and no rows.")
    return pd.DataFrame(dict(zip(file.header, fields)), index=np.array(lines))


def index_by_fname(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Make fname the index.

    Raises:
        TaggingError: a name is duplicate or empty.
    """
    for line, fname in table.fname[table.fname.duplicated() | (table.fname.str.strip() == "")].items():
        first = table.index[table.fname == fname][0]
        what = (f"duplicate fname '{fname}', first used in line {first}. Remove one of the rows" if fname.strip()
                else "the fname is empty. Fill it in or remove the row")
        raise TaggingError(f"{path}, line {line}: {what}.")
    return table.set_index("fname")


def read_labels(path: Path, classes: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read `fname,labels[,...]`, with labels joined by commas within the field.

    Returns:
        targets: 0/1, index fname, columns `classes`, rows as in the file.
        table: the whole file as text, index fname.
    Raises:
        TaggingError: as `read_table` and `label_targets`.
    """
    table = read_table(path, ("fname", "labels"))
    targets = label_targets(path, table, [split_labels(text) for text in table.labels], classes)
    return targets, index_by_fname(table, path)


def label_targets(path: Path, table: pd.DataFrame, labels: Sequence[Sequence[str]],
                  classes: Sequence[str]) -> pd.DataFrame:
    """Return the labels of each clip as 0/1: index fname, columns `classes`.

    Args:
        table: rows of `path`, as `read_table` returns them.
        labels: the labels of each row. nan, None and the like are no label, unless a class has that name.
    Raises:
        TaggingError: a label is not in `classes`, or is duplicate in its row, or as `index_by_fname`.
    """
    column = {name: number for number, name in enumerate(classes)}
    targets = np.zeros((len(table), len(classes)), np.uint8)
    for row, (line, fname, text, found) in enumerate(zip(table.index, table.fname, table.labels, labels)):
        unknown = [label for label in found if label not in column and not is_missing(label)]
        places = [column[label] for label in found if label in column]
        if unknown:
            parts = [part.strip(" ()[]{}'\"") for part in re.split(r"[;|/\t]", unknown[0])]
            remedy = ("Separate the labels by commas" if set(parts) <= set(column) else
                      "Correct the label, or add the class to the class list")
            raise TaggingError(f"{path}, line {line} ({fname}): unknown label '{unknown[0]}', not one of the "
                               f"{len(classes)} classes ({shorten(classes, 3)}).{did_you_mean(unknown[0], classes)} "
                               f"{remedy}.")
        if len(set(places)) < len(places):
            raise TaggingError(f"{path}, line {line} ({fname}): duplicate label in '{text}'. Remove one of them.")
        targets[row, places] = 1
    return pd.DataFrame(targets, index=index_by_fname(table, path).index, columns=list(classes))


def is_missing(label: str) -> bool:
    """Whether a label is empty, nan, None or the like."""
    return label.strip().casefold() in MISSING


def split_labels(text: str) -> list[str]:
    """'a,b' -> ['a', 'b']; a class with a comma in its name is quoted once more: '"a, b",c'."""
    fields = next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True), [])
    return [label.strip() for label in fields if label.strip()]


def join_labels(labels: Sequence[str]) -> str:
    """The inverse of `split_labels`."""
    return ",".join('"' + label.replace('"', '""') + '"' if set(label) & set(',"') else label for label in labels)


def label_texts(targets: np.ndarray, classes: Iterable[str]) -> list[str]:
    """The labels of each clip as the csv files have them, from (clips, classes) 0/1."""
    return [join_labels([name for name, present in zip(classes, row) if present]) for row in targets]


def read_scores(path: Path) -> pd.DataFrame:
    """Read a submission or a table of predictions: index fname, one float column a class.

    Raises:
        TaggingError: as `open_csv`; or a field is no finite number, a column has no name, or a name is duplicate.
    """
    file = open_csv(path)
    classes, place = [name for name in file.header if name != "fname"], file.header.index("fname")
    if not classes:
        raise TaggingError(f"{path} has no column besides fname. Add a column for each class.")
    lines, fnames, values, numbers = array("q"), [], array("d"), NumberReader(classes, file.separator)
    for line, row in file.rows:
        fnames.append(row.pop(place))
        lines.append(line)
        values.frombytes(numbers.read(row, f"{path}, line {line} ({fnames[-1]})").tobytes())
    if not lines:
        raise TaggingError(f"{path} has a header and no rows.")
    numbers.finish(path)
    index = index_by_fname(pd.DataFrame({"fname": fnames}, np.array(lines)), path).index
    return pd.DataFrame(np.array(values).reshape(len(index), len(classes)), index, classes)


def read_soft_labels(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """Read labels between 0 and 1: index fname, columns `classes`, whatever their order in the file.

    Raises:
        TaggingError: as `read_scores`; or the classes differ, or a label is out of range.
    """
    labels = read_scores(path)
    check_same(labels.columns, classes, str(path), "classes", "Each class needs one column.")
    for row, column in np.argwhere((labels.lt(0) | labels.gt(1)).to_numpy())[:1]:
        raise TaggingError(f"{row_of(path, labels.index[row])} ({labels.index[row]}), column {labels.columns[column]}: "
                           f"{labels.iat[row, column]:.9g} is not between 0 and 1. Correct the row.")
    return labels[list(classes)]


def write_scores(path: Path, scores: pd.DataFrame) -> None:
    """Write a table of predictions with nine digits, which preserve every float32 exactly."""
    with atomic(path) as temporary:
        scores.to_csv(temporary, index_label="fname", float_format="%.9g", lineterminator="\n")


def has_labels(path: Path) -> bool:
    """Whether a truth is `fname,labels` and not a 0/1 table."""
    return "labels" in open_csv(path).header


def read_truth(path: Path, classes: Sequence[str] | None = None, usage: str | None = None) -> pd.DataFrame:
    """Read the truth: `fname,labels[,usage]`, or a 0/1 table with a column for each class.

    Args:
        classes: the order of the returned columns. By default, the columns of the 0/1 table, or all labels.
        usage: keep the rows with this value in the column `usage`, such as Private.
    Returns:
        0/1, index fname, columns `classes`.
    Raises:
        TaggingError: as `open_csv` and `label_targets`; or the classes differ, a field of a 0/1 table is neither 0 nor
            1, the table has both labels and columns of classes, or as `select_usage`.
    """
    table = read_table(path)
    similar = [name for name in table if name.casefold() in ("label", "labels") and name not in (classes or ())]
    if similar and "labels" not in table:
        raise TaggingError(f"{path} has no column labels, but a column {similar[0]}. Rename it to labels.")
    if "labels" in table and "labels" not in (classes or ()):
        labels = [[label for label in split_labels(text) if label in (classes or ()) or not is_missing(label)]
                  for text in table.labels]
        if classes is None:
            classes = sorted({label for found in labels for label in found})
        both = [name for name in classes if name in table]
        if both:
            raise TaggingError(f"{path} has the column labels, and columns for {len(both)} classes: "
                               f"{shorten(both, 3)}. Remove the column labels or these columns.")
        targets = label_targets(path, table, labels, classes)
    else:
        found = [name for name in table if name not in ("fname", "usage")]
        classes = found if classes is None else classes
        check_same(found, classes, f"{path}: the header", "classes")
        targets = read_marks(path, table, classes)
    return targets if usage is None else targets[select_usage(path, table, usage)]


def select_usage(path: Path, table: pd.DataFrame, usage: str) -> np.ndarray:
    """Return (rows,) bool: whether the column usage of a truth has this value. Log how many rows have others.

    Raises:
        TaggingError: no row has it, or the value of a row differs from it in case or blanks only.
    """
    if "usage" not in table:
        raise TaggingError(f"{path} has no column usage, so usage {usage} cannot be selected. Remove --usage.")
    if usage not in set(table.usage):
        raise TaggingError(f"{path} has no row with usage {usage}: it has {shorten(sorted(set(table.usage)))}.")
    others = table.usage[table.usage != usage]
    for line, value in others.items():
        if value.strip().casefold() == usage.strip().casefold():
            raise TaggingError(f"{path}, line {line}: the usage '{value}' is almost '{usage}'. Write them alike.")
    if len(others):
        counts = [f"{count} {value.strip() or 'without a usage'}" for value, count in others.value_counts().items()]
        say(f"{path}: {len(table) - len(others)} rows are of usage {usage}. The other rows do not count: "
            f"{shorten(counts)}.")
    return (table.usage == usage).to_numpy()


def read_marks(path: Path, table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return the columns `classes` of a 0/1 table: 0 and 1 as numbers, or False and True.

    Raises:
        TaggingError: a field is something else, or as `index_by_fname`.
    """
    index = index_by_fname(table, path).index
    targets = table[list(classes)].apply(lambda column: pd.to_numeric(
        column.str.strip().str.lower().replace(FLAGS).str.replace(",", "."), errors="coerce"))
    for row, column in np.argwhere(~targets.isin([0, 1]).to_numpy())[:1]:
        raise TaggingError(f"{path}, line {table.index[row]} ({index[row]}), column {classes[column]}: "
                           f"'{table[classes[column]].iloc[row]}' is neither 0 nor 1. Correct the field.")
    return targets.astype(np.uint8).set_index(index)


def check_same(found: Iterable[str], expected: Iterable[str], where: str, what: str, remedy: str = "") -> None:
    """Compare two collections of names.

    Raises:
        TaggingError: a name is missing in one of them. The message lists the names.
    """
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if missing or extra:
        faults = [f"{len(names)} {what} {word} ({shorten(spelt(names, others), 5)})"
                  for names, others, word in ((missing, extra, "missing"), (extra, missing, "too many")) if names]
        raise TaggingError(f"{where} has {' and '.join(faults)}. {remedy}".rstrip())
