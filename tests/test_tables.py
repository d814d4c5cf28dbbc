"""The csv files: what is accepted, and that each error names the file and the line."""
import csv

import numpy as np
import pandas as pd
import pytest

from tagging.data.tables import (
    check_same,
    index_by_fname,
    join_labels,
    read_labels,
    read_scores,
    read_table,
    read_truth,
    split_labels,
    write_scores,
)
from tagging.errors import TaggingError

CLASSES = ("Bark", "Chink, clink", "Möwe", "犬")


@pytest.fixture
def table(tmp_path):
    """Write text or bytes to a file, and return its path."""
    def write(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return write


def expect_error(function, path, *arguments, words):
    with pytest.raises(TaggingError) as caught:
        function(path, *arguments)
    for word in [str(path), *words]:
        assert word in str(caught.value)


PLAIN = 'fname,labels\na.wav,Bark\nb.wav,"Möwe,Bark"\n'


@pytest.mark.parametrize("content", [
    PLAIN,
    "\ufeff" + PLAIN,                                                   # Excel's "CSV UTF-8"
    PLAIN.replace("\n", "\r\n"),
    "\ufeff" + PLAIN.replace("\n", "\r\n"),
    PLAIN + "\n\n\n",
    PLAIN + "\r\n\r\n",
    PLAIN.rstrip("\n"),
    PLAIN.replace("a.wav,Bark", "a.wav,  Bark "),
    'fname , labels\na.wav,Bark\nb.wav," Möwe, Bark"\n',
    'licence,fname,labels,id\nCC0,a.wav,Bark,1\n"CC, BY",b.wav,"Möwe,Bark",2\n',
    '"labels","fname"\n"Bark","a.wav"\n"Möwe,Bark","b.wav"\n',
    PLAIN.replace("\n", "\r"),
    'fname;labels\na.wav;Bark\nb.wav;Möwe,Bark\n',                     # Excel where the comma is the decimal point
    'fname\tlabels\na.wav\tBark\nb.wav\t"Möwe,Bark"\n',
    'fname|labels\na.wav|Bark\nb.wav|Möwe,Bark\n',
    'sep=;\nfname;labels\na.wav;Bark\nb.wav;Möwe,Bark\n',
    'sep=,\r\n' + PLAIN,
    '"sep=\t"\rfname\tlabels\ra.wav\tBark\rb.wav\tMöwe,Bark\r',
    'fname;labels;note\na.wav;Bark;"1;2"\nb.wav;"Möwe,Bark";\n',
    'fname,labels,note\na.wav,Bark,"1;2;3"\nb.wav,"Möwe,Bark",;\n',      # semicolons in a field of a comma csv
    PLAIN.replace("\n", ",,,\n"),                                       # empty columns that were used before
    'fname,labels,,,\na.wav,Bark\nb.wav,"Möwe,Bark",\n,,,,\n',
    'fname;labels;;;\r\na.wav;Bark;;;\r\nb.wav;Möwe,Bark;;;\r\n;;;;\r\n',
    ',fname,labels\n0,a.wav,Bark\n1,b.wav,"Möwe,Bark"\n',              # pandas with its default index
    '"","fname","labels"\n"1","a.wav","Bark"\n"2","b.wav","Möwe,Bark"\n',     # R
    ',Unnamed: 0,fname,labels\n0,7,a.wav,Bark\n1,3,b.wav,"Möwe,Bark"\n',
    PLAIN.encode("utf-16"), PLAIN.encode("utf-16-le"), PLAIN.encode("utf-16-be"),
    "\ufeff".encode("utf-16-be") + PLAIN.replace(",", "\t").replace('"Möwe\tBark"', "Möwe,Bark").encode("utf-16-be"),
    PLAIN.encode("cp1252"),
    PLAIN.replace("\n", "\r\n").encode("cp1252"),
])
def test_labels_in_all_the_forms_that_spreadsheets_write(table, content):
    targets, _ = read_labels(table(content), CLASSES)
    expected = pd.DataFrame([[1, 0, 0, 0], [1, 0, 1, 0]], ["a.wav", "b.wav"], CLASSES)
    pd.testing.assert_frame_equal(targets, expected, check_dtype=False, check_names=False)


def test_further_columns_are_kept_as_text(table):
    _, rows = read_labels(table("fname,labels,freesound_id\na.wav,Bark,007\n"), CLASSES)
    assert rows.freesound_id["a.wav"] == "007"


def test_rows_keep_their_line_in_the_file(table):
    assert list(read_table(table("fname\na\n\n\nb\n")).index) == [2, 5]


def test_a_class_with_a_comma_in_its_name_is_quoted_twice(table):
    content = 'fname,labels\na.wav,"""Chink, clink"""\nb.wav,"Bark, ""Chink, clink"" ,犬"\n'
    targets, _ = read_labels(table(content), CLASSES)
    assert targets.to_numpy().tolist() == [[0, 1, 0, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize("labels", [["Bark"], [], ["Chink, clink"], ["Bark", "Chink, clink", "犬"], ['Say "ah"', "b"],
                                    ['"', ","], ["ねこ", "كلب"]])
def test_joined_labels_are_split_into_the_same(labels, tmp_path):
    assert split_labels(join_labels(labels)) == labels
    with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("fname", "labels"), ("a.wav", join_labels(labels))])
    targets, _ = read_labels(tmp_path / "labels.csv", [*labels, "another"])
    assert targets.loc["a.wav"].tolist() == [1] * len(labels) + [0]


def test_other_alphabets_in_names_of_clips_and_classes(table):
    targets, _ = read_labels(table("fname,labels\nねこ.wav,犬\nmöwe 1.wav,Möwe\n"), CLASSES)
    assert targets.loc["ねこ.wav", "犬"] == targets.loc["möwe 1.wav", "Möwe"] == 1
    scores = read_scores(table("fname,犬,Möwe\nねこ.wav,0.5,1e-3\n"))
    assert scores.loc["ねこ.wav"].to_dict() == {"犬": 0.5, "Möwe": 0.001}


@pytest.mark.parametrize("content, words", [
    ("fname,labels\na.wav,Bark\nb.wav,Bark,Möwe\n", ["line 3", "3 fields", "2", "Quote"]),      # unquoted commas
    ("fname,labels\na.wav\n", ["line 2", "1 fields"]),
    ('fname,labels\na.wav,"Bark\n', ["line 2"]),                                                # a quote left open
    ('fname,labels\na.wav,"Bark"s\n', ["line 2"]),
    ("fname,labels,\nb.wav,Bark,\na.wav,Bark,Möwe\n", ["no name for column 3", "'Möwe' in line 3", "Quote"]),
    ("fname,labels,Unnamed: 2\na.wav,Bark,Möwe\n", ["no name for column 3", "'Möwe' in line 2"]),
    ("fname,labels,,\na.wav,Bark,x,\nb.wav,Bark,,y\n", ["no name for column 3, 4"]),
    ("fname,tags\na.wav,Bark\n", ["no column labels", "fname, tags"]),
    ("a.wav,Bark\nb.wav,Bark\n", ["no column fname, labels", "a.wav, Bark"]),                   # no header
    ("fname,labels,labels\na.wav,Bark,Bark\n", ["labels twice"]),
    ("fname,labels,labels.1\na.wav,Bark,Möwe\n", ["labels twice"]),             # how pandas writes it
    ("fname;tags\na.wav;Bark\n", ["no column", "fname;tags"]),
    ("fname;labels\na.wav;Bark;Möwe\n", ["line 2", "3 fields", "Quote fields that contain semicolons"]),
    ("sep=;\nfname,labels\na.wav,Bark\n", ["no column", "fname,labels"]),
    ("sep=;\nfname;labels\na.wav;Bark;Möwe\n", ["line 3", "3 fields"]),
    ("fname,labels\n", ["no rows"]),
    ("", ["no column fname"]),
    ("\n\n", ["no column fname"]),
    ("fname,labels\na.wav,Собака\n".encode("cp1251"), ["line 2", "CSV UTF-8"]),
    ("fname,labels\na.wav,Bark\nb.wav,Möwe\n".encode("mac-roman"), ["line 3", "CSV UTF-8"]),
    ("fname,labels\na.wav,dźwięk\n".encode("cp1250"), ["line 2", "CSV UTF-8"]),
    ("fname,labels\na.wav,犬\n".encode("shift-jis"), ["line 2", "CSV UTF-8"]),
    ("fname,labels\na.wav,Möwe\n".encode() + "b.wav,Bär\n".encode("cp1252"), ["line 3", "CSV UTF-8"]),    # joined
    ("fname,labels\na.wav,Bark\n".encode("utf-16")[:-1], ["UTF-16", "CSV UTF-8"]),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), ["UTF-8"]),
    (bytes(1000), ["no column fname"]),
    (b"PK\x03\x04\x14\0\0\0\x08\0", ["workbook", "CSV UTF-8"]),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), ["workbook"]),
])
def test_a_file_that_is_no_such_table_is_refused(table, content, words):
    expect_error(read_table, table(content), ("fname", "labels"), words=words)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    expect_error(read_table, tmp_path / "none.csv", words=["No such file"])
    expect_error(read_table, tmp_path, words=["directory"])


@pytest.mark.parametrize("content, words", [
    ("fname,labels\na.wav,Bark\nb.wav,Growl\n", ["line 3", "b.wav", "'Growl'", "4 classes"]),
    ("fname,labels\n\na.wav,bark\n", ["line 3", "'bark'"]),                     # blank lines are counted
    ("fname,labels\na.wav,Chink\n", ["line 2", "'Chink'"]),
    ('fname,labels\na.wav,"Chink, clink"\n', ["line 2", "'Chink'"]),            # quoted once only
    ('fname,labels\na.wav,"Bark,Möwe,Bark"\n', ["line 2", "a.wav", "duplicate label", "Bark,Möwe,Bark"]),
    ('fname,labels\na.wav,"Bark\nMöwe"\n', ["a.wav"]),                          # a line break in the field
    ("fname,labels\na.wav,Bark\nb.wav,Bark\n\na.wav,Bark\n", ["line 5", "'a.wav'", "line 2"]),
    ("fname,labels\na.wav,Bark\n,Bark\n", ["line 3", "empty"]),
])
def test_a_faulty_row_of_labels_is_named(table, content, words):
    expect_error(read_labels, table(content), CLASSES, words=words)


def test_the_same_name_twice_is_refused_in_any_table(table):
    content = "fname,a\nx,1\ny,2\nx,3\n"
    path = table(content)
    expect_error(read_scores, path, words=["line 4", "'x'", "line 2"])
    with pytest.raises(TaggingError, match="line 4"):
        index_by_fname(read_table(path), path)


@pytest.mark.parametrize("value", ["nan", "NaN", "", " ", "inf", "-inf", "1e999", "loud", "0,5", "True", "0x1F"])
def test_a_score_that_is_no_finite_number_is_named(table, value):
    content = f'fname,Bark,Möwe\na.wav,0.5,1\nb.wav,0,"{value}"\nc.wav,1,1\n'
    expect_error(read_scores, table(content), words=["line 3", "b.wav", "column Möwe", f"'{value}'"])


def test_scores_need_a_class(table):
    expect_error(read_scores, table("fname\na.wav\n"), words=["no column"])


def test_every_float32_is_read_back_bit_for_bit(tmp_path):
    # All bit patterns are equally likely: tiny, huge and subnormal numbers too, and both zeros.
    bits = np.random.default_rng(0).integers(0, 2**32, 12_000, np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)][:10_000]
    values[:4] = -0.0, 0, np.finfo(np.float32).smallest_subnormal, np.nextafter(np.float32(1), np.float32(0))
    fnames = [f"{number}.wav" for number in range(2_500)]
    path = tmp_path / "new folder" / "scores.csv"
    write_scores(path, pd.DataFrame(values.reshape(2_500, 4), fnames, CLASSES))
    back = read_scores(path)
    assert list(back.index) == fnames and tuple(back.columns) == CLASSES
    assert np.array_equal(back.to_numpy().astype(np.float32).view(np.uint32), values.reshape(2_500, 4).view(np.uint32))


def test_names_with_commas_quotes_and_other_alphabets_are_read_back(tmp_path):
    scores = pd.DataFrame([[0.25, 1.0]], ['a "b", c.wav'], ["Chink, clink", 'Say "犬"'])
    write_scores(tmp_path / "scores.csv", scores)
    pd.testing.assert_frame_equal(read_scores(tmp_path / "scores.csv"), scores, check_names=False)


def test_written_scores_are_plain_lines_and_leave_no_other_file(tmp_path):
    write_scores(tmp_path / "scores.csv", pd.DataFrame([[0.5, 1 / 3]], ["a.wav"], ["Bark", "Meow"]))
    assert (tmp_path / "scores.csv").read_bytes() == b"fname,Bark,Meow\na.wav,0.5,0.333333333\n"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("before")
    half = pd.DataFrame([[0.5]] * 2, ["a.wav", "\ud800.wav"], ["Bark"])         # the second row cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        write_scores(path, half)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "scores.csv"
    expect_error(write_scores, path, pd.DataFrame([[0.5]], ["a.wav"], ["Bark"]), words=[])


TRUTH = 'fname,labels,usage\na.wav,"Meow,Bark",Public\nb.wav,,Private\nc.wav,Meow,Private\n'
TABLE = "fname,Meow,usage,Bark\na.wav,1,Public,1.0\nb.wav,0,Private,0\nc.wav,1,Private,0\n"


@pytest.mark.parametrize("content", [TRUTH, TABLE])
def test_truth_has_the_asked_for_order_of_classes_and_rows_of_that_usage(table, content):
    truth = read_truth(table(content), ["Bark", "Meow"])
    assert list(truth.columns) == ["Bark", "Meow"] and list(truth.index) == ["a.wav", "b.wav", "c.wav"]
    assert truth.to_numpy().tolist() == [[1, 1], [0, 0], [0, 1]]
    private = read_truth(table(content), ["Bark", "Meow"], "Private")
    assert list(private.index) == ["b.wav", "c.wav"] and private.to_numpy().tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("content, usage, words", [
    (TRUTH, "private", ["usage private", "Private, Public"]),
    ("fname,labels\na.wav,Bark\n", "Private", ["no column usage", "--usage"]),
    ("fname,Bark,Meow\na.wav,1,2\n", None, ["a.wav", "neither 0 nor 1"]),
    ("fname,Bark,Meow\na.wav,1,0.5\n", None, ["a.wav", "neither 0 nor 1"]),
    ("fname,Bark,Meow\na.wav,1,\n", None, ["a.wav", "neither 0 nor 1"]),
    ("fname,Bark,Meow\na.wav,1,yes\n", None, ["a.wav", "neither 0 nor 1"]),
    ("fname,Bark,Meow\na.wav,1,1\na.wav,1,1\n", None, ["line 3", "'a.wav'"]),
    ("fname,Bark,Growl\na.wav,1,0\n", None, ["missing (Meow)", "too many (Growl)"]),
    ("fname,Bark,Meow,Growl\na.wav,1,0,0\n", None, ["1 classes too many (Growl)"]),
    ("fname,labels\na.wav,Growl\n", None, ["line 2", "'Growl'"]),
])
def test_faulty_truth_is_refused(table, content, usage, words):
    expect_error(read_truth, table(content), ["Bark", "Meow"], usage, words=words)


def test_a_class_may_be_called_labels(table):
    truth = read_truth(table("fname,labels,Bark\na.wav,1,0\n"), ["Bark", "labels"])
    assert truth.to_numpy().tolist() == [[0, 1]]


def test_differing_names_are_listed_and_counted():
    check_same(["b", "a"], ["a", "b"], "here", "rows")                  # the order may differ
    with pytest.raises(TaggingError) as caught:
        check_same([f"new{n}" for n in range(7)], ["old"], "here", "rows", "Do this.")
    message = str(caught.value)
    assert message.startswith("here has 1 rows missing (old) and 7 rows too many (new0, ")
    assert "new4 and 2 more" in message and "new5" not in message and message.endswith("Do this.")
