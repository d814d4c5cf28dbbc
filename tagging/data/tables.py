"""The csv files of a competition: labels, submissions and truth, checked row by row.

This module imports numpy and pandas only, so that `lwlrap.py` starts quickly.
"""
import csv
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.errors import TaggingError, did_you_mean, shorten
from tagging.utils.files import atomic

MAX_COLUMNS = 10_000


def read_rows(path: Path, columns: Sequence[str] = ("fname",)) -> Iterator[tuple[int, list[str]]]:
    """Read a csv row by row: first the header, then each row that is not blank, with its line number in the file.

    A byte-order mark, Windows line endings, blank lines and additional columns are accepted.

    Raises:
        TaggingError: the file is missing or no csv, a column of `columns` is missing, or a row has another length.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader, header = csv.reader(file, strict=True), None
            for row in reader:
                if not any(field.strip() for field in row):
                    continue
                if header is None:
                    header = [name.strip() for name in row]
                    check_header(Path(path), header, columns)
                    row = header
                if len(row) != len(header):
                    raise TaggingError(f"{path}, line {reader.line_num}: {len(row)} fields where the header has "
                                       f"{len(header)}. Quote fields that hold commas.")
                yield reader.line_num, row
            if header is None:
                check_header(Path(path), [], columns)
    except OSError as error:
        raise TaggingError(f"{path} could not be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise TaggingError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    except csv.Error as error:
        raise TaggingError(f"{path}, line {reader.line_num}: not a csv row ({error}). Correct the row.") from error


def check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    if len(header) > MAX_COLUMNS:
        raise TaggingError(f"{path} has {len(header)} columns, and at most {MAX_COLUMNS} are read. Check that this "
                           "is the right file.")
    missing = [name for name in columns if name not in header]
    if missing:
        raise TaggingError(f"{path} has no column {shorten(missing)}: its header is '{shorten(header)}'.")
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise TaggingError(f"{path}: the header names {shorten(repeated)} twice. Keep one column of each name.")


def read_table(path: Path, columns: Sequence[str] = ("fname",)) -> pd.DataFrame:
    """Read a csv with a header as text; the index is each row's line in the file.

    Raises:
        TaggingError: as `read_rows`, or no rows.
    """
    rows = read_rows(path, columns)
    _, header = next(rows)
    # By columns, and equal texts are stored once: lists of rows take many times the file's size.
    lines = array("q")
    fields: list[list[str]] = [[] for _ in header]
    known: dict[str, str] = {}
    for line, row in rows:
        lines.append(line)
        for column, field in zip(fields, row):
            column.append(known.setdefault(field, field))
    if not lines:
        raise TaggingError(f"{path} has a header and no rows.")
    return pd.DataFrame(dict(zip(header, fields)), index=np.array(lines))


def index_by_fname(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Make fname the index.

    Raises:
        TaggingError: a name is duplicate or empty.
    """
    for line, fname in table.fname[table.fname.duplicated() | (table.fname == "")].items():
        first = table.index[table.fname == fname][0]
        what = (f"duplicate fname '{fname}', first used in line {first}. Remove one of the rows" if fname
                else "the fname is empty. Fill it in or remove the row")
        raise TaggingError(f"{path}, line {line}: {what}.")
    return table.set_index("fname")


def read_labels(path: Path, classes: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read `fname,labels[,...]`, with labels joined by commas within the field.

    Returns:
        targets: 0/1, index fname, columns `classes`, rows as in the file.
        table: the whole file as text, index fname.
    Raises:
        TaggingError: as `read_table`; or a label is not in `classes`, or is duplicate in its row.
    """
    table = read_table(path, ("fname", "labels"))
    column = {name: number for number, name in enumerate(classes)}
    targets = np.zeros((len(table), len(classes)), np.uint8)
    for row, (line, fname, text) in enumerate(zip(table.index, table.fname, table.labels)):
        labels = split_labels(text)
        unknown = [label for label in labels if label not in column]
        if unknown:
            raise TaggingError(f"{path}, line {line} ({fname}): unknown label '{unknown[0]}', not one of the "
                               f"{len(classes)} classes.{did_you_mean(unknown[0], classes)} Correct the label, or add "
                               "the class to the class list.")
        if len(set(labels)) < len(labels):
            raise TaggingError(f"{path}, line {line} ({fname}): duplicate label in '{text}'."
                               " Remove one of them.")
        targets[row, [column[label] for label in labels]] = 1
    table = index_by_fname(table, path)
    return pd.DataFrame(targets, index=table.index, columns=list(classes)), table


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
        TaggingError: as `read_rows`; or a field is no finite number, or a name is duplicate.
    """
    rows = read_rows(path)
    _, header = next(rows)
    classes, place = [name for name in header if name != "fname"], header.index("fname")
    if not classes:
        raise TaggingError(f"{path} has no column besides fname.")
    lines, fnames, values = [], [], []
    for line, row in rows:
        fnames.append(row.pop(place))
        lines.append(line)
        values.append(read_numbers(row, f"{path}, line {line} ({fnames[-1]})", classes))
    if not lines:
        raise TaggingError(f"{path} has a header and no rows.")
    index = index_by_fname(pd.DataFrame({"fname": fnames}, lines), path).index
    return pd.DataFrame(np.array(values), index, classes)


def read_soft_labels(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """Read labels between 0 and 1: index fname, columns `classes`, whatever their order in the file.

    Raises:
        TaggingError: as `read_scores`; or the classes differ, or a label is out of range.
    """
    labels = read_scores(path)
    check_same(labels.columns, classes, str(path), "classes", "Each class needs one column.")
    for row, column in np.argwhere((labels.lt(0) | labels.gt(1)).to_numpy())[:1]:
        raise TaggingError(f"{path} ({labels.index[row]}), column {labels.columns[column]}: "
                           f"{labels.iat[row, column]:.9g} is not between 0 and 1. Correct the row.")
    return labels[list(classes)]


def read_numbers(fields: list[str], where: str, columns: Sequence[str]) -> np.ndarray:
    """(columns,) float64 of one row.

    Raises:
        TaggingError: a field is no finite number.
    """
    try:
        numbers = np.array(fields, np.float64)
        if "_" in (text := "".join(fields)) or not text.isascii():      # numpy accepts 1_000 and digits of all scripts
            raise ValueError
    except ValueError:
        numbers = pd.to_numeric(pd.Series(fields), errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise TaggingError(f"{where}, column {columns[wrong[0]]}: '{fields[wrong[0]]}' is not a finite number.")
    return numbers


def write_scores(path: Path, scores: pd.DataFrame) -> None:
    """Write a table of predictions with nine digits, which preserve every float32 exactly."""
    with atomic(path) as temporary:
        scores.to_csv(temporary, index_label="fname", float_format="%.9g", lineterminator="\n")


def read_truth(path: Path, classes: Sequence[str], usage: str | None = None) -> pd.DataFrame:
    """Read the truth: `fname,labels[,usage]`, or a 0/1 table with a column for each class.

    Args:
        classes: the order of the returned columns.
        usage: keep the rows with this value in the column `usage`, such as Private.
    Returns:
        0/1, index fname, columns `classes`.
    Raises:
        TaggingError: as `read_labels` and `read_scores`; or the classes differ, or no row has that usage.
    """
    header = read_table(path).columns
    if "labels" in header and "labels" not in classes:
        targets, table = read_labels(path, classes)
    else:
        table = index_by_fname(lined := read_table(path), path)
        check_same(sorted(set(header) - {"fname", "usage"}), sorted(classes), f"{path}: the header", "classes")
        targets = table[list(classes)].apply(pd.to_numeric, errors="coerce")
        for row, column in np.argwhere(~targets.isin([0, 1]).to_numpy())[:1]:
            raise TaggingError(f"{path}, line {lined.index[row]} ({table.index[row]}), column {classes[column]}: "
                               f"'{table[classes[column]].iloc[row]}' is neither 0 nor 1.")
        targets = targets.astype(np.uint8)
    if usage is None:
        return targets
    if "usage" not in table:
        raise TaggingError(f"{path} has no column usage, so its rows of usage {usage} cannot be selected. "
                           "Remove --usage.")
    if usage not in set(table.usage):
        raise TaggingError(f"{path} has no row with usage {usage}: it has {shorten(sorted(set(table.usage)))}.")
    return targets[table.usage == usage]


def check_same(found: Iterable[str], expected: Iterable[str], where: str, what: str, remedy: str = "") -> None:
    """Compare two collections of names.

    Raises:
        TaggingError: a name is missing in one of them. The message lists the names.
    """
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if missing or extra:
        faults = [f"{len(names)} {what} {word} ({shorten(names, 5)})"
                  for names, word in ((missing, "missing"), (extra, "too many")) if names]
        raise TaggingError(f"{where} has {' and '.join(faults)}. {remedy}".rstrip())
