"""Split the labels of a csv that its user wrote in any of the common forms. tools.make_competition reads it."""
import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from tagging.data.csv_files import say
from tagging.data.tables import is_missing, split_labels
from tagging.errors import TaggingError

AUTO, WHOLE = "auto", "none"        # values of --label-separator that are no separators
NAMES = {",": "commas", ";": "semicolons", "|": "vertical bars", "\t": "tabs", "\n": "line breaks", "/": "slashes",
         "+": "plus signs", "&": "ampersands", "\u3001": "ideographic commas",
         "\uff0c": "full-width commas", "\uff1b": "full-width semicolons", "\uff5c": "full-width bars",
         "\u060c": "Arabic commas", "\u061b": "Arabic semicolons"}
POSSIBLE = ("/", "+", "&")              # often part of a name, as in Bass/Low
LIKELY = tuple(mark for mark in NAMES if mark not in (",", *POSSIBLE))      # rarely part of a name
BRACKETS = {"[": "]", "(": ")", "{": "}", "<": ">"}
QUOTE = "['`\u2018-\u201f]"      # that csv files do not know
# Text that begins like a list, as {"A": 1} and array(['A']) do, or is in quotes.
LIST_OR_QUOTE = re.compile(rf"\[|[({{<]\s*['\"\[({{]|\w+\(\s*[\[({{'\"]|{QUOTE}.*{QUOTE}$", re.DOTALL)
ESCAPE = re.compile(r"\\(?:[tnr]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")     # in --label-separator
# What can join two labels besides a separator in NAMES: signs, a tag such as <br>, an escape such as \\n, some words.
JOINTS = (re.compile(r"[^\w\"]+|_+"), re.compile(r"\\[nrt]|<\w[^<>]*>|\s(?:and|or|und|oder|et|ou|y|e)\s"))
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
        TaggingError: the separator is impossible, some rows are lists and others are not, there are two separators, or
            brackets or quotes make the labels of a row uncertain.
    """
    texts = ["" if is_missing(text) else clean(text) for text in table.labels]
    if separator == AUTO:
        split = choose_splitter(path, dict(zip(table.index, texts)))
    else:
        written = any(separator in text for text in texts)      # \n as two characters, by another program
        split = splitter(separator if written else ESCAPE.sub(lambda part: ast.literal_eval(f"'{part[0]}'"), separator))
        say(f"{path}: --label-separator '{separator}' splits {sum(len(split(text)) > 1 for text in texts)} fields.")
    labels = [[label for label in split(text) if not is_missing(label)] for text in texts]
    words = Counter(text.strip() for text in table.labels if text.strip() and is_missing(text))
    if words:
        say(f"{path}: {words.total()} fields are {' or '.join(words)}, which counts as a missing label.")
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
    ends = {text[0] + text[-1] for text in filled.values()}
    bare = len(ends) == 1 and all(BRACKETS.get(pair[0]) == pair[1] for pair in ends)
    lists = {line: split_list(text, bare) is not None for line, text in filled.items()}
    for line, text in filled.items():
        if LIST_OR_QUOTE.match(text) and not lists[line]:
            raise uncertain(path, line, text)
    if any(lists.values()):
        if not all(lists.values()):
            one, other = (next(line for line in lists if lists[line] == kind) for kind in (True, False))
            raise TaggingError(f"{path}: line {one} is a list of labels, {filled[one]}, and line {other} is none: "
                               f"{filled[other]}. Write all rows in one form.")
        say(f"{path}: the labels are lists, such as {next(iter(filled.values()))}.")
        return lambda text: split_list(text, bare) or []

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
    for line, text in filled.items():
        if is_torn(text, chosen):
            raise uncertain(path, line, text)
    count = sum(len(split(text)) > 1 for text in filled.values())
    if count:
        say(f"{path}: {NAMES[chosen]} separate the labels of {count} clips, as in {example(chosen, texts)}.")
    note_kept(path, texts, chosen)
    note_joined(path, {label for text in texts for label in split(text)}, chosen if count else None)
    return split


def uncertain(path: Path, line: int, text: str) -> TaggingError:
    """Return the error for a field whose brackets or quotes can mean several things."""
    return TaggingError(f"{path}, line {line}: the labels of {text[:200]} are not certain, because of its brackets or "
                        "quotes. Write A,B or the list ['A', 'B'] with commas, put a label that contains a separator "
                        "in double quotes, or choose the separator with --label-separator.")


def is_torn(text: str, mark: str) -> bool:
    """Whether a separator splits a field within brackets, as in {A,B}, or is not where the quotes of a label end."""
    labels = splitter(mark)(text)
    if any(text.count(begin) == text.count(end) and any(label.count(begin) != label.count(end) for label in labels)
           for begin, end in BRACKETS.items()):
        return True
    if '"' not in text or mark == "\n":
        return False
    line = re.sub(rf'"\s+(?=$|{re.escape(mark)})', '"', " ".join(text.split("\n")))
    try:
        next(csv.reader([line], delimiter=mark, skipinitialspace=True, strict=True))
    except csv.Error:
        return True
    return False


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
    combination. It also does if a part is quoted because it contains the sign.

    Args:
        texts: the fields, each once.
        least: share of the parts.
    """
    split = splitter(mark)
    fields = [[part for part in split(text) if not is_missing(part)] for text in texts]
    alone = {parts[0] for parts in fields if len(parts) == 1}
    parts = Counter(part for text, found in zip(texts, fields) for part in set(found)
                    if mark in text and (len(found) > 1 or (least < 1 and mark not in "".join(found))))
    known = sum(part in alone or (least < 1 and count > 1) for part, count in parts.items())
    quoted = any(len(found) > 1 and mark in "".join(found) for found in fields)
    return quoted or (bool(parts) and known >= least * len(parts))


def split_list(text: str, bare: bool) -> list[str] | None:
    """['A', "B"] -> [A, B], and the same in other brackets, as JSON or without quotes. None if it is no such list.

    Args:
        bare: whether labels without quotes are read in all brackets, as in {A,B} and <A><B>, and not in [] only.
    """
    if len(text) < 2 or BRACKETS.get(text[0]) != text[-1]:
        return None
    with suppress(ValueError, RecursionError):
        items = json.loads(text)
        if isinstance(items, list) and all(isinstance(item, str) or is_missing(str(item)) for item in items):
            return [str(item).strip() for item in items if not is_missing(str(item))]
    inside, place, labels = text[1:-1].strip(), 0, []
    if not set(text) & set("'\""):          # <A><B>
        inside = re.sub(rf"{re.escape(text[-1])}\s*{re.escape(text[0])}", ",", inside)
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
        elif text[0] != "[" and not bare and not is_missing(item):
            return None         # (A) and {A} can be names
        labels.append(item)
    return [label for label in labels if not is_missing(label)]


def example(mark: str, texts: Sequence[str]) -> str:
    """Return a field that contains the separator, or its beginning, for a message."""
    text = next((text for text in texts if len(splitter(mark)(text)) > 1), texts[0])
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def note_kept(path: Path, texts: Sequence[str], chosen: str) -> None:
    """Log how many labels contain a sign that separates labels in other files."""
    labels = {label for text in texts for label in splitter(chosen)(text)}
    for mark in (",", *LIKELY, "/"):
        kept = sorted(label for label in (texts if mark == "\n" else labels) if mark in label)
        if kept and mark != chosen:
            say(f"{path}: {len(kept)} labels contain {NAMES[mark]}, such as {kept[0]!r}, and are not split there. "
                f"--label-separator {as_option(mark)} splits them.")


def note_joined(path: Path, labels: set[str], chosen: str | None) -> None:
    """Log labels that consist of other labels and an unknown separator, as 'A - B' does.

    Args:
        chosen: the separator of other fields, if there is one.
    """
    joined: dict[str, list[str]] = {}
    for label in sorted(labels):
        if re.fullmatch(r"[\d.,+-]+", label):
            continue        # 1.5 is not 1 and 5
        marks = {form for joint in JOINTS for mark in joint.findall(label) for form in (mark, mark.strip(" ") or " ")}
        parts = {mark: {part.strip() for part in label.split(mark)} - {""} for mark in marks
                 if mark not in (*LIKELY, ",", "/") and not mark.isalnum()}
        fits = [mark for mark in parts if len(parts[mark]) > 1 and parts[mark] <= labels]
        if fits:
            joined.setdefault(max(sorted(fits, key=len), key=lambda mark: len(parts[mark])), []).append(label)
    for mark, found in sorted(joined.items(), key=lambda item: -len(item[1]))[:3]:
        remedy = (f"write {NAMES[chosen]} between them" if chosen else
                  f"--label-separator {as_option(mark)} splits them")
        say(f"{path}: {len(found)} labels consist of other labels, such as {found[0]!r}. If they are several labels, "
            f"{remedy}.")


def as_option(mark: str) -> str:
    """Return a separator as one writes it behind --label-separator, with escapes for what cannot be seen."""
    return repr(mark).replace("\\\\", "\\")
