"""Split the labels of a csv that its user wrote in any of the common forms. tools.make_competition reads it."""
import ast
import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from tagging.data.csv_files import say
from tagging.data.tables import is_missing, split_labels
from tagging.errors import TaggingError, shorten

AUTO, WHOLE = "auto", "none"        # values of --label-separator that are no separators
NAMES = {",": "commas", ";": "semicolons", "|": "vertical bars", "\t": "tabs", "\n": "line breaks", "/": "slashes",
         "+": "plus signs", "&": "ampersands"}
LIKELY = (";", "|", "\t", "\n")         # rarely part of a name
POSSIBLE = ("/", "+", "&")              # often part of a name, as in Bass/Low
BRACKETS = {"[": "]", "(": ")", "{": "}"}
ITEM = re.compile(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^,'\"\[\](){}]+)(?:,|$)\s*")

Splitter = Callable[[str], list[str]]


def split_column(path: Path, table: pd.DataFrame, separator: str = AUTO) -> list[list[str]]:
    """Return the labels of each row, and log what separates them. nan, None and the like are no label.

    Args:
        path: the csv, for messages.
        table: its rows with the column labels, and their lines as the index.
        separator: sign between labels. `none` keeps each field as one label. `auto` recognises what is certain: lists
            such as ['A', 'B'], semicolons, vertical bars and so on. Otherwise, it is the comma.
    Raises:
        TaggingError: the separator is impossible, some rows are lists and others are not, or there are two separators.
    """
    texts = ["" if is_missing(text) else clean(text) for text in table.labels]
    if separator == AUTO:
        split = choose_splitter(path, dict(zip(table.index, texts)))
    else:
        split = splitter(separator.replace("\\t", "\t").replace("\\n", "\n"))
        say(f"{path}: --label-separator '{separator}' splits {sum(len(split(text)) > 1 for text in texts)} fields.")
    labels = [[label for label in split(text) if not is_missing(label)] for text in texts]
    words = Counter(text.strip() for text in table.labels if text.strip() and is_missing(text))
    if words:
        say(f"{path}: {words.total()} fields are {' or '.join(words)}, which counts as a missing label.")
    note_similar(path, labels)
    return labels


def clean(text: str) -> str:
    """Remove blanks at the ends of lines, empty lines, and the line breaks behind a separator."""
    lines = [line.strip() for line in text.splitlines()]
    return re.sub(r"(?<=[,;|])\n", " ", "\n".join(line for line in lines if line))


def choose_splitter(path: Path, text_of: dict[int, str]) -> Splitter:
    """Recognise the form of the labels from all rows.

    Args:
        text_of: line -> field, "" if the label is missing.
    Raises:
        TaggingError: as `split_column`.
    """
    filled = {line: text for line, text in text_of.items() if text}
    lists = {line: split_list(text) is not None for line, text in filled.items()}
    broken = [line for line, text in filled.items() if text.startswith("[") and not lists[line]]
    if broken:
        raise TaggingError(f"{path}, line {broken[0]}: {filled[broken[0]]} begins like a list and is none. Separate "
                           "the labels by commas, as in \"A,B\".")
    if any(lists.values()):
        if not all(lists.values()):
            one, other = (next(line for line in lists if lists[line] == kind) for kind in (True, False))
            raise TaggingError(f"{path}: line {one} is a list of labels, {filled[one]}, and line {other} is none. "
                               "Write all rows in one form.")
        say(f"{path}: the labels are lists, such as {next(iter(filled.values()))}.")
        return lambda text: split_list(text) or []

    texts = sorted(set(filled.values()))
    certain = [mark for mark in LIKELY if separates(mark, texts, least=0.5)]
    inside = sorted({part for text in texts for part in splitter(certain[0])(text)}) if certain else texts
    certain += [","] if separates(",", inside, least=0.5) else []
    certain = certain or [mark for mark in POSSIBLE if separates(mark, texts, least=1)]
    if len(certain) > 1:
        pairs = " and ".join(f"{NAMES[mark]}, as in {example(mark, texts)}" for mark in certain[:2])
        raise TaggingError(f"{path}: the labels are separated by {pairs}. Use the same separator in all rows, or "
                           "choose one with --label-separator.")
    chosen = certain[0] if certain else ","
    split = splitter(chosen)
    count = sum(len(split(text)) > 1 for text in filled.values())
    if count:
        say(f"{path}: {NAMES[chosen]} separate the labels of {count} clips, as in {example(chosen, texts)}.")
    note_kept(path, texts, chosen)
    return split


def splitter(mark: str) -> Splitter:
    """Return the function that splits a field at a separator. Labels that contain it can be quoted.

    Raises:
        TaggingError: the separator could be part of any label.
    """
    if mark.lower() == WHOLE:
        return lambda text: [" ".join(text.split("\n"))]
    if mark == ",":
        return split_labels
    if not mark or '"' in mark or mark[0].isalnum():
        raise TaggingError(f"--label-separator '{mark}' must be a sign such as ';', or {WHOLE}. Correct it.")
    if len(mark) > 1 or mark == "\n":
        return lambda text: [part.strip() for part in text.split(mark) if part.strip()]
    return lambda text: [part.strip() for part in next(csv.reader(
        [" ".join(text.split("\n"))], delimiter=mark, skipinitialspace=True), []) if part.strip()]


def separates(mark: str, texts: Sequence[str], least: float) -> bool:
    """Whether a sign certainly separates labels, and is no part of their names.

    It does if enough of the parts are labels of other fields too: alone, or, if `least` is below 1, in another
    combination.

    Args:
        texts: the fields, each once.
        least: share of the parts.
    """
    split = splitter(mark)
    fields = [[part for part in split(text) if not is_missing(part)] for text in texts]
    alone = {parts[0] for parts in fields if len(parts) == 1}
    parts = Counter(part for text, found in zip(texts, fields) for part in set(found)
                    if mark in text and mark not in "".join(found) and (len(found) > 1 or least < 1))
    known = sum(part in alone or (least < 1 and count > 1) for part, count in parts.items())
    return bool(parts) and known >= least * len(parts)


def split_list(text: str) -> list[str] | None:
    """['A', "B"] -> [A, B], and the same in other brackets, as JSON or without quotes. None if it is no such list."""
    if len(text) < 2 or BRACKETS.get(text[0]) != text[-1]:
        return None
    with suppress(ValueError, RecursionError):
        items = json.loads(text)
        if isinstance(items, list) and all(isinstance(item, str) or is_missing(str(item)) for item in items):
            return [str(item).strip() for item in items if not is_missing(str(item))]
    inside, place, labels = text[1:-1].strip(), 0, []
    while place < len(inside):
        match = ITEM.match(inside, place)
        if not match:
            return None
        item, place = match[1].strip(), match.end()
        if item[:1] in ("'", '"'):
            try:
                item = str(ast.literal_eval(item)).strip()
            except (ValueError, SyntaxError):
                return None
        elif text[0] != "[" and not is_missing(item):
            return None         # (A) and {A} can be names
        labels.append(item)
    return [label for label in labels if not is_missing(label)]


def example(mark: str, texts: Sequence[str]) -> str:
    """Return a field that contains the separator, for a message."""
    return repr(next((text for text in texts if len(splitter(mark)(text)) > 1), texts[0]))


def note_kept(path: Path, texts: Sequence[str], chosen: str) -> None:
    """Log how many labels contain a sign that separates labels in other files."""
    labels = {label for text in texts for label in splitter(chosen)(text)}
    for mark in (",", *LIKELY, "/"):
        kept = sorted(label for label in (texts if mark == "\n" else labels) if mark in label)
        if kept and mark != chosen:
            word = {"\t": "$'\\t'", "\n": "$'\\n'"}.get(mark, f"'{mark}'")
            say(f"{path}: {len(kept)} labels contain {NAMES[mark]}, such as {kept[0]!r}, and are not split there. "
                f"--label-separator {word} splits them.")


def note_similar(path: Path, labels: Sequence[Sequence[str]]) -> None:
    """Log labels that differ only in case or blanks, with their numbers of clips."""
    counts = Counter(label for found in labels for label in found)
    groups: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        groups["".join(label.casefold().split())].append(f"'{label}' ({counts[label]})")
    similar = [" and ".join(group) for group in groups.values() if len(group) > 1]
    if similar:
        say(f"{path}: some labels differ only in case or blanks and become different classes, here with their numbers "
            f"of clips: {shorten(similar, 3)}. Write them alike if they are the same.")
