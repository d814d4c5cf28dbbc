"""Hostile csv files and submissions: each is read right, or refused with one error that names the file."""
import re

import numpy as np
import pytest
from csv_reader import decoded, parse, parsed
from hostile import CASES, EDITS, csv_of, damage, outcome, put, refused, run_cases
from hostile import watchdog as watchdog  # pytest runs it around every test of this file
from hypothesis import strategies as st

from tagging.data.competition import read_header, read_vocabulary
from tagging.data.tables import MISSING, join_labels, read_labels, read_scores, read_table, read_truth
from tagging.evaluation.ensemble import check_submission

pytestmark = pytest.mark.slow       # thousands of generated cases

# --- csv files ---

CLASSES = ("Bark", "Chink, clink", "Möwe", "犬")
TOKENS = ["fname", "labels", "usage", "index", "label", "mid", "a.wav", "b.wav", "../c.wav", "Bark", "Möwe", "犬",
          '"""Chink, clink"""', '"Chink, clink"', "Private", "Public", "0", "1", "2", "nan", "1e999", ",", ",", ",",
          ",", "\n", "\n", "\n", "\r\n", "\r", '"', '""', " ", "\t", ";", "\0", "\ufeff", "\u2028", "\x1c", "=1+1",
          "é", "\U0001f415", "x" * 300, "," * 40, "\n" * 30, ";", ";", "|", "0,5", "True", "sep=;\n", "Unnamed: 0"]
TABLES = ['fname,labels\na.wav,Bark\nb.wav,"Möwe,Bark"\n', "\ufefffname,labels,usage\r\na.wav,犬,Private\r\n",
          'usage,fname,labels\nPublic,a.wav,"""Chink, clink"""\n\n\nPrivate,b.wav,\n',
          'fname,Bark,"Chink, clink",Möwe,犬,usage\na.wav,0,1,0,1.0,Private\nb.wav,1,0,0,0,Public\n',
          '0,Bark,/m/1\n1,"Chink, clink",/m/2\n2,Möwe,/m/3\n', "index,label,mid\n0,Bark,/m/1\n1,犬,/m/2\n",
          "fname;labels\na.wav;Bark\nb.wav;Möwe,Bark\n", "sep=;\r\nfname;labels;;\r\na.wav;Bark;;\r\n",
          ",fname,labels\n0,a.wav,Bark\n1,b.wav,Möwe\n", "fname\tlabels\tusage\na.wav\tnan\tPrivate\n",
          "fname;Bark;Chink, clink;Möwe;犬\na.wav;0,25;TRUE;1;0\nb.wav;0,5;FALSE;1;1e-3\n",
          "index;label;mid\n0;Bark;/m/1\n1;犬;/m/2\n"]
SOUP = st.tuples(st.lists(st.sampled_from(TOKENS), max_size=30).map("".join),
                 st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])).map(
    lambda pair: pair[0].encode(pair[1], "replace"))
HEADED = st.lists(st.sampled_from(TOKENS), max_size=20).map(lambda words: ("fname,labels\n" + "".join(words)).encode())
WHOLE = st.tuples(st.sampled_from(TABLES), st.sampled_from(["utf-8", "utf-8", "utf-16-le", "cp1252"])).map(
    lambda pair: pair[0].encode(pair[1], "replace"))
CSV = st.tuples(SOUP | HEADED | WHOLE | st.binary(max_size=80), EDITS)


def check_table(table, content):
    header, rows = parsed(content)
    assert list(table.columns) == header and len(set(header)) == len(header)
    assert table.to_numpy().tolist() == rows
    assert (np.diff(table.index) > 0).all() and table.index[-1] <= len(content)


def check_labels(targets, table):
    assert targets.columns.tolist() == list(CLASSES) and targets.index.is_unique
    for row, text in zip(targets.to_numpy(), table.labels):
        if '"' not in text:
            said = [label.strip() for label in re.split(r"[,\r\n]", text) if label.strip().lower() not in MISSING]
            assert [CLASSES[number] for number in np.flatnonzero(row)] == sorted(said, key=CLASSES.index)


def check_vocabulary(names, content):
    assert len(set(names)) == len(names) >= 2 and all(names)
    text = decoded(content)
    if '"' not in text and "sep=" not in text.lower():
        tables = [[[field.strip() for field in row] for row in parse(text, separator) if "".join(row).strip()]
                  for separator in ",;\t|"]
        columns = [[row[place] for row in rows] for rows in tables for place in range(min(map(len, rows), default=0))]
        assert list(names) in columns or list(names) in [column[1:] for column in columns]


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
        if not refused(scores := outcome(path, read_scores)):
            check_scores(scores, content)
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
    sign, index, behind = draw(st.sampled_from(",,;\t")), draw(st.booleans()), draw(st.sampled_from(["", "", ",,"]))
    lines = [sign.join(quote(row[name], always, sign) for name in header) for row in [dict(zip(header, header)), *rows]]
    if index:
        lines = [sign + lines[0], *(f"{number}{sign}{line}" for number, line in enumerate(lines[1:]))]
    lines = [line + behind.replace(",", sign) for line in lines]
    text = draw(st.sampled_from(["", "", f"sep={sign}{end}"]))
    text += "".join(end * draw(st.integers(0, 2)) + line + end for line in lines)
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))), classes, rows, labels


def quote(field, always, separator):
    return '"' + field.replace('"', '""') + '"' if always or set(field) & {separator, *'"\r\n'} else field


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
    (read_table, ",fname,labels\n" + "".join(f"{n},{n}.wav,B\n" for n in range(60_000))),
    (read_table, "fname;labels\n" + "a;Möwe, Ruf\n" * 60_000),
    (read_scores, "fname;a;b\n" + "".join(f"{n};0,25;1,5\n" for n in range(60_000))),
    (read_scores, "fname,a,b\n" + "".join(f"{n},True,False\n" for n in range(50_000))),
    (read_table, 'fname,labels\na,"' + "x" * 1_000_000),
], ids=["wide", "vocabulary", "narrow", "short", "long", "blank", "index", "names", "decimal commas", "flags",
        "one field"])
def test_a_megabyte_of_csv_takes_neither_long_nor_much(tmp_path, read, content):
    for encoding in ("utf-8", "cp1252", "utf-16"):
        if read is read_vocabulary or encoding != "utf-16":         # 16-bit text is twice as large and as slow
            outcome(put(tmp_path / "t.csv", content.encode(encoding)), read, seconds=5)


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
    text = decoded(content)
    flags = {"true": "1", "false": "0"}
    rows = [[flags.get(field.strip().lower(), field) for field in row] for row in rows]
    if not any("fname" in map(str.strip, row) for row in parse(text)):       # no comma separates the fields
        rows = [[re.sub(r"^(\s*[+-]?\d*),(\d+)", r"\1.\2", field) for field in row] for row in rows]
    assert all(NUMBER.fullmatch(field.strip()) for row in rows for field in row), "text was taken for a number"
    assert scores.to_numpy().tolist() == [[float(field) for field in row] for row in rows]
    assert np.isfinite(scores.to_numpy()).all()
