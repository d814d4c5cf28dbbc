"""Hostile csv files, submissions and file names: each is read right, or refused with one error that names the file."""
import csv
import io
import re

import numpy as np
import pytest
from hostile import CASES, EDITS, damage, outcome, put, refused, run_cases
from hostile import watchdog as watchdog  # pytest runs it around every test of this file
from hypothesis import strategies as st

from tagging.data.competition import open_competition, read_header, read_vocabulary
from tagging.data.tables import join_labels, read_labels, read_scores, read_table, read_truth
from tagging.evaluation.ensemble import check_submission

pytestmark = pytest.mark.slow       # thousands of generated cases

# --- csv files ---

CLASSES = ("Bark", "Chink, clink", "Möwe", "犬")
TOKENS = ["fname", "labels", "usage", "index", "label", "mid", "a.wav", "b.wav", "../c.wav", "Bark", "Möwe", "犬",
          '"""Chink, clink"""', '"Chink, clink"', "Private", "Public", "0", "1", "2", "nan", "1e999", ",", ",", ",",
          ",", "\n", "\n", "\n", "\r\n", "\r", '"', '""', " ", "\t", ";", "\0", "\ufeff", "\u2028", "\x1c", "=1+1",
          "é", "\U0001f415", "x" * 300, "," * 40, "\n" * 30]
TABLES = ['fname,labels\na.wav,Bark\nb.wav,"Möwe,Bark"\n', "\ufefffname,labels,usage\r\na.wav,犬,Private\r\n",
          'usage,fname,labels\nPublic,a.wav,"""Chink, clink"""\n\n\nPrivate,b.wav,\n',
          'fname,Bark,"Chink, clink",Möwe,犬,usage\na.wav,0,1,0,1.0,Private\nb.wav,1,0,0,0,Public\n',
          '0,Bark,/m/1\n1,"Chink, clink",/m/2\n2,Möwe,/m/3\n', "index,label,mid\n0,Bark,/m/1\n1,犬,/m/2\n"]
SOUP = st.tuples(st.lists(st.sampled_from(TOKENS), max_size=30).map("".join),
                 st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])).map(
    lambda pair: pair[0].encode(pair[1], "replace"))
HEADED = st.lists(st.sampled_from(TOKENS), max_size=20).map(lambda words: ("fname,labels\n" + "".join(words)).encode())
CSV = st.tuples(SOUP | HEADED | st.sampled_from(TABLES).map(str.encode) | st.binary(max_size=80), EDITS)


def parse(text):
    """An independent reading of a csv: rows of fields, blank lines left out."""
    rows, row, field, quoted, place = [], [], "", False, 0
    while place < len(text):
        char = text[place]
        place += 1
        if quoted:
            if char != '"':
                field += char
            elif text[place:place + 1] == '"':
                field, place = field + '"', place + 1
            else:
                quoted = False
        elif char == '"' and not field:
            quoted = True
        elif char == ",":
            row, field = [*row, field], ""
        elif char in "\r\n":
            rows, row, field = [*rows, [*row, field]], [], ""
        else:
            field += char
    return [row for row in [*rows, [*row, field]] if row != [""]]


def parsed(content):
    """Header, stripped, and the rows that hold anything."""
    header, *rows = parse(content.decode("utf-8-sig"))
    return [name.strip() for name in header], [row for row in rows if "".join(row).strip()]


def check_table(table, content):
    header, rows = parsed(content)
    assert list(table.columns) == header and len(set(header)) == len(header)
    assert table.to_numpy().tolist() == rows
    assert (np.diff(table.index) > 0).all() and table.index[-1] <= len(content)


def check_labels(targets, table):
    assert targets.columns.tolist() == list(CLASSES) and targets.index.is_unique
    for row, text in zip(targets.to_numpy(), table.labels):
        if '"' not in text:
            said = [label.strip() for label in re.split(r"[,\r\n]", text) if label.strip()]
            assert [CLASSES[number] for number in np.flatnonzero(row)] == sorted(said, key=CLASSES.index)


def check_vocabulary(names, content):
    assert len(set(names)) == len(names) >= 2 and all(names)
    text = content.decode("utf-8-sig")
    if '"' not in text:
        rows = [row[min(1, len(row) - 1)].strip() for row in parse(text)]
        assert list(names) in (rows, rows[1:])


def test_any_csv_is_read_right_or_refused(tmp_path):
    def check(case):
        path = put(tmp_path / "t.csv", content := damage(*case))
        if not refused(table := outcome(path, read_table)):
            check_table(table, content)
        if not refused(labels := outcome(path, read_labels, CLASSES)):
            check_labels(*labels)
        for usage in (None, "Private"):
            if not refused(truth := outcome(path, read_truth, CLASSES, usage)):
                assert list(truth.columns) == list(CLASSES) and truth.isin([0, 1]).all(axis=None)
        if not refused(names := outcome(path, read_vocabulary)):
            check_vocabulary(names, content)
        if not refused(names := outcome(path, read_header)):
            assert list(names) == [name for name in parsed(content)[0] if name != "fname"]
    run_cases(check, CSV)


NAME = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8).map(
    str.strip).filter(bool)
FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def spreadsheets(draw):
    """A right table of labels in any form that a spreadsheet may write, and what stands in it."""
    classes = draw(st.lists(NAME, min_size=2, max_size=5, unique=True))
    fnames = draw(st.lists(FIELD.filter(str.strip), min_size=1, max_size=5, unique=True))
    extra = draw(st.lists(NAME.filter(lambda name: name not in ("fname", "labels")), max_size=2, unique=True))
    labels = [draw(st.lists(st.sampled_from(classes), unique=True)) for _ in fnames]
    rows = [{"fname": fname, "labels": join_labels(said)} | {name: draw(FIELD) for name in extra}
            for fname, said in zip(fnames, labels)]
    header = draw(st.permutations(["fname", "labels", *extra]))
    end, always = draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.booleans())
    lines = [",".join(quote(row[name], always) for name in header) for row in [dict(zip(header, header)), *rows]]
    text = "".join(end * draw(st.integers(0, 2)) + line + end for line in lines)
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig"]))), classes, rows, labels


def quote(field, always):
    return '"' + field.replace('"', '""') + '"' if always or set(field) & set(',"\r\n') else field


def test_a_right_table_of_any_form_is_read_exactly(tmp_path):
    def check(case):
        content, classes, rows, labels = case
        targets, table = outcome(put(tmp_path / "t.csv", content), read_labels, classes)
        assert table.reset_index()[list(rows[0])].to_dict("records") == rows
        assert targets.to_numpy().tolist() == [[int(name in said) for name in classes] for said in labels]
    run_cases(check, spreadsheets(), CASES // 4)


@pytest.mark.parametrize("read, content", [
    (read_header, "fname," + ",".join(f"c{n}" for n in range(60_000)) + "\na" + ",0" * 60_000 + "\n"),
    (read_vocabulary, "\n".join(f"c{n}" for n in range(60_000))),
    (read_table, "fname,labels\n" + "a,b\n" * 250_000),
    (read_table, "fname,labels\n" + "ab,\n" * 250_000),
    (read_table, "fname,labels\n" + "".join(f"{n}.wav,Bark\n" for n in range(80_000))),
    (read_table, "fname,labels\n" + "\n" * 1_000_000),
    (read_table, 'fname,labels\na,"' + "x" * 1_000_000),
], ids=["wide", "vocabulary", "narrow", "short", "long", "blank", "one field"])
def test_a_megabyte_of_csv_takes_neither_long_nor_much(tmp_path, read, content):
    outcome(put(tmp_path / "t.csv", content.encode()), read, seconds=5)


# --- submissions ---

FNAMES = ("a.wav", "b, c.wav", "ねこ.wav")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
ODD_NUMBERS = ["", " ", "nan", "NaN", "inf", "-Infinity", "1e999", "1_000", "\uff11\uff12", "0x10", "1,5", "1e", "--1",
               "True", "1j", "٣", "9" * 400, "1\0", "\u00a01", "1d5", "None", "=1", "1 2", "0" * 2_000 + "1", "loud",
               "'1"]
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(repr)


@st.composite
def submissions(draw):
    """A submission, with a chance of faults in its values, its rows and its columns; and whether it is right."""
    faults = draw(st.sets(st.sampled_from(["value", "rows", "columns", "order"]), max_size=2))
    fnames, classes = list(FNAMES), list(CLASSES)
    if "rows" in faults:
        fnames = draw(st.lists(st.sampled_from([*FNAMES, "new.wav", ""]), max_size=4))
    if "columns" in faults:
        classes = draw(st.lists(st.sampled_from([*CLASSES, "fname", "", "new"]), max_size=5))
    if "order" in faults:
        fnames, classes = draw(st.permutations(fnames)), draw(st.permutations(classes))
    field = FLOATS | st.sampled_from(["0", "1", " .5", "+2.", "1E-400"])
    rows = [[draw(field) for _ in classes] for _ in fnames]
    if "value" in faults and rows and classes:
        draw(st.sampled_from(rows))[draw(st.integers(0, len(classes) - 1))] = draw(st.sampled_from(ODD_NUMBERS))
    content = csv_of([["fname", *classes], *([fname, *row] for fname, row in zip(fnames, rows))],
                     draw(st.sampled_from(["\n", "\r\n"])))
    edits = draw(st.just([]) | EDITS)
    # The rows of a submission may stand in any order, its columns may not.
    right = not edits and sorted(fnames) == sorted(FNAMES) and tuple(classes) == CLASSES and "value" not in faults
    return content, edits, right


def csv_of(rows, end="\r\n"):
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows(rows)
    return out.getvalue().encode()


def test_any_submission_is_read_right_or_refused(tmp_path):
    def check(case):
        whole, edits, right = case
        path = put(tmp_path / "submission.csv", content := damage(whole, edits))
        if not refused(scores := outcome(path, read_scores)):
            check_scores(scores, content)
        if not refused(checked := outcome(path, check_submission, FNAMES, CLASSES)):
            assert sorted(checked.index) == sorted(FNAMES) and tuple(checked.columns) == CLASSES
        assert not (right and refused(checked)), checked
    run_cases(check, submissions())


def check_scores(scores, content):
    header, rows = parsed(content)
    key = header.index("fname")
    assert list(scores.columns) == header[:key] + header[key + 1:]
    assert list(scores.index) == [row.pop(key) for row in rows] and scores.index.is_unique
    assert all(NUMBER.fullmatch(field.strip()) for row in rows for field in row), "text was taken for a number"
    assert scores.to_numpy().tolist() == [[float(field) for field in row] for row in rows]
    assert np.isfinite(scores.to_numpy()).all()


# --- names of clips ---

PARTS = ["..", "..", ".", "", "a.wav", "a.wav.", "sub", "b.wav", "out", "secret.wav", "link.wav", "good.wav", "loop",
         "clips", "test", "test-other", "none", "...", "~", "a.wav\\..\\..\\secret.wav", "..\\secret.wav", "%2e%2e",
         "a.wav ", "a.wav\0", "a.wav\n", "x" * 300, "/", "ABSOLUTE"]


@pytest.fixture
def forest(tmp_path):
    """A competition whose clips hold `inside`; all other files hold `outside`, and links lead to them."""
    home = tmp_path / "root" / "test"
    for folder in (home / "sub", tmp_path / "root" / "test-other"):
        folder.mkdir(parents=True)
    for path in (home / "a.wav", home / "sub" / "b.wav"):
        path.write_bytes(b"inside")
    for folder in (tmp_path, tmp_path / "root", tmp_path / "root" / "test-other"):
        for name in ("secret.wav", "a.wav"):
            (folder / name).write_bytes(b"outside")
    (home / "out").symlink_to(tmp_path)
    (home / "link.wav").symlink_to(tmp_path / "secret.wav")
    (home / "good.wav").symlink_to("sub/../a.wav")
    (home / "loop").symlink_to("loop")
    return tmp_path / "root"


def test_a_name_in_a_csv_never_leaves_the_folder_of_clips(forest):
    def check(case):
        parts, separator = case
        name = separator.join(parts).replace("ABSOLUTE", str(forest))
        path = put(forest / "sample_submission.csv", csv_of([["fname", "Bark", "Meow"], [name, 0, 0]]))
        clips = outcome(path, lambda _: open_competition(forest).clips("test"))
        if not refused(clips):
            assert clips.paths[0].read_bytes() == b"inside"
    run_cases(check, st.tuples(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5),
                               st.sampled_from(["/", "/", "/", "//", "\\"])), CASES // 2)
