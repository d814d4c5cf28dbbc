"""What spreadsheets and pandas add to csv files: it is read right and said once, or refused with the remedy."""
import bz2
import gzip

import numpy as np
import pandas as pd
import pytest

from tagging.data import csv_files
from tagging.data.competition import read_classes, read_header, read_vocabulary
from tagging.data.tables import read_labels, read_scores, read_soft_labels, read_table, read_truth
from tagging.errors import TaggingError

CLASSES = ["Bark", "Möwe"]
SCORES = pd.DataFrame([[0.25, 1.5], [-3, 1e-3], [0, 20]], ["a.wav", "b.wav", "c.wav"], CLASSES)


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file, and return its path."""
    def put(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return put


@pytest.fixture
def notes(caplog):
    """The notes so far, without the paths. A note is logged once in a process, and each test has its own paths."""
    return lambda: [message.replace(str(message).split("table.csv")[0].removeprefix("note: "), "")
                    for message in caplog.messages if message.startswith("note: ")]


def refused(read, path, *arguments):
    with pytest.raises(TaggingError) as caught:
        read(path, *arguments)
    assert str(path) in str(caught.value)
    return str(caught.value)


PLAIN = SCORES.rename_axis("fname").to_csv()
SEMICOLONS = PLAIN.replace(",", ";")
EXCEL = SEMICOLONS.replace(".", ",").replace(",wav", ".wav")


@pytest.mark.parametrize("content, said", [
    (PLAIN, []),
    (SCORES.rename_axis("fname").reset_index().to_csv(), ["column 1 has no name and numbers the rows. It is ignored."]),
    (SCORES.rename_axis("fname").reset_index().iloc[::-1].to_csv(), ["column 1 has no name"]),
    (SEMICOLONS, ["semicolons separate the fields."]),
    (EXCEL, ["semicolons separate the fields.", "the numbers have decimal commas."]),
    (EXCEL.replace("fname", "sep=;\r\nfname"), ["the numbers have decimal commas."]),
    (EXCEL.replace(";", "\t").encode("utf-16"), ["was read as UTF-16-LE text.", "tabs", "decimal commas"]),
    (EXCEL.encode("cp1252"), ["is not UTF-8 and was read as Windows-1252, with Möwe.", "semicolons", "decimal commas"]),
    (PLAIN.replace("\n", ",,,\n"), ["3 empty columns without a name are ignored."]),
    (PLAIN.replace("1.5", "+1.5E0").replace("20.0", " 20 "), []),
    (SCORES.rename_axis("fname").reset_index().reset_index(names="Unnamed: 0.1").to_csv(),
     ["column 1 has no name and numbers the rows.", "column 2 has no name and numbers the rows."]),
    (PLAIN.encode("utf-32"), ["was read as UTF-32-LE text."]),
])
def test_scores_of_pandas_and_excel_are_read_with_a_note(write, notes, content, said):
    path = write(content)
    for _ in range(2):      # said once
        pd.testing.assert_frame_equal(read_scores(path).sort_index(), SCORES, check_names=False)
    assert len(notes()) == len(said) and all(word in note for word, note in zip(said, notes())), notes()


def test_true_and_false_are_numbers_in_columns_of_their_own(write, notes):
    scores = read_scores(write("fname,a,b\nx,TRUE,0.5\ny,False,0.25\n"))
    assert scores.to_numpy().tolist() == [[1, 0.5], [0, 0.25]]
    assert notes() == ["note: table.csv: True and False are read as 1 and 0."]


@pytest.mark.parametrize("content, words", [
    ("fname,a,b\nx,1,0\ny,True,0\n", ["line 3 (y)", "column a", "'True'", "Write numbers only"]),
    ("fname,a,b\nx,True,0\ny,1,0\n", ["line 3 (y)", "column a", "'1'"]),
    ('fname,a\nx,"0,5"\n', ["line 2 (x)", "'0,5'", "Write decimals with a point"]),
    ("fname;a\nx;1.234,5\n", ["line 2 (x)", "point"]),
    ("fname;a\nx;0,5\ny;0.5\n", ["line 2 (x)", "line 3 (y)", "point"]),
    ("fname;a\nx;0.5\ny;0,5\n", ["line 3 (y)", "line 2 (x)", "point"]),
    ("fname;a\nx;1,234\ny;12,500\n", ["line 2 (x)", "thousands"]),
    ("fname;a;b\nx;1.234;-12.500\ny;567;0\n", ["line 2 (x)", "the points could separate", "four digits"]),
    ("fname\ta\nx\t567\ny\t1.000\n", ["line 3 (y)", "the points could separate"]),
    ("fname;a\nx;1.234.567\n", ["line 2 (x)", "'1.234.567'", "no separators of thousands"]),
    ("fname,a\nx,0.5\u00a0\n", ["line 2 (x)", "not a finite number"]),
    ("fname;a\nx;1,234,567\n", ["line 2 (x)", "'1,234,567'"]),
    ('fname,a\nx,"1,234.5"\n', ["line 2 (x)", "'1,234.5'"]),
    ("fname;a\nx;nan\n", ["line 2 (x)", "'nan'"]),
    ("fname;a\nx;\n", ["line 2 (x)", "''"]),
    ("fname,,a\nx,7,1\n", ["no name for column 2", "'7' in line 2"]),         # a number, but not in front
    (",fname,a\n1,x,1\n1,y,1\n", ["no name for column 1", "index=False"]),         # no row numbers: they repeat
    (",fname,a\n0.5,x,1\n", ["no name for column 1", "'0.5' in line 2"]),
    (",a,b\nx,0,1\n", ["no column fname", "Name the first column"]),
])
def test_numbers_that_cannot_be_told_are_refused(write, content, words):
    message = refused(read_scores, write(content))
    assert all(word in message for word in words), message


def test_decimal_commas_that_could_be_thousands_are_told_by_the_others(write):
    assert read_scores(write("fname;a\nx;1,234\ny;0,5\n")).a.tolist() == [1.234, 0.5]


def test_decimal_points_are_told_by_numbers_that_can_be_nothing_else(write):
    assert read_scores(write("fname;a\nx;1.234\ny;0.567\n")).a.tolist() == [1.234, 0.567]
    assert read_scores(write("fname;a\nx;1.234\ny;2.5\n")).a.tolist() == [1.234, 2.5]
    assert read_scores(write("fname,a\nx,1.234\ny,567\n")).a.tolist() == [1.234, 567]      # commas are no decimals here


@pytest.mark.parametrize("content, words", [
    ('"fname,a,b"\n"x,0,1"\n', ["'fname,a,b'", "Remove these quotes"]),
    ("", ["it is empty"]), ("<!DOCTYPE html>\n<p>fname</p>\n", ["web page"]),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["Git LFS"]),
    ("My scores\n\nfname;a;b\nx;0;1\n", ["The header is in line 3"]),
    ("x.wav,0,1\ny.wav,1,0\n", ["already a clip", "Add a header"]),
    ("name,a\nx,0\n", ["'name, a'", "Rename or add the column"]),
    ("fname,a,b\nx,0,1\nTotal\n", ["line 3", "1 fields", "remove it"]),
    ("fname,a,b\nx,0,1\n\x1a", ["line 3", "remove it"]),
    ("fname,a\nx,0,1\n", ["line 2", "Quote fields that contain commas"]),
    ("fname,a\n \u00a0,0\n", ["line 2", "the fname is empty"]),
])
def test_the_remedy_fits_the_fault_of_the_file(write, content, words):
    message = refused(read_scores, write(content))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("content", [gzip.compress(PLAIN.encode()), bz2.compress(PLAIN.encode()), b"PAR1\x15\4\x15\x80",
                                     b"ARROW1\0\0", b"\x93NUMPY\1\0", b"PK\3\4"])
def test_binary_files_are_named_as_such(write, content):
    assert "is a workbook, an archive or another binary file" in refused(read_table, write(content))


@pytest.mark.parametrize("word, encoding, shown", [
    ("Glöckchen", "cp850", "Gl”ckchen"), ("niño", "mac-roman", "ni\u2013o"), ("90°", "cp1252", "90°")])
def test_the_note_shows_the_characters_that_depend_on_the_encoding(write, notes, word, encoding, shown):
    read_table(write(f"fname\n{word}\n".encode(encoding)))
    assert f"with {shown}." in notes()[0]


def test_soft_labels_name_the_line(write):
    message = refused(read_soft_labels, write("fname,Bark,Möwe\na.wav,0,1\nb.wav,0,2\n"), CLASSES)
    assert "line 3 (b.wav), column Möwe: 2 is not between 0 and 1" in message


def test_a_sample_submission_with_row_numbers(write):
    message = refused(read_header, write("id,fname,Bark,Möwe\n5,a,0,0\n6,b,0,0\n7,c,0,0\n"))
    assert "the column id numbers the rows" in message
    assert read_header(write("fname,Bark,Möwe\na,0,1\nb,1,1\nc,0,1\n")) == tuple(CLASSES)


def test_an_unknown_label_shows_what_the_classes_are(write):
    message = refused(read_labels, write("fname,labels\na,Bark\n"), ["/m/0", "/m/1"])
    assert "'Bark', not one of the 2 classes (/m/0, /m/1)" in message


def test_soft_labels_edited_in_a_spreadsheet(write):
    labels = read_soft_labels(write("fname;Möwe;Bark;\r\na.wav;0,25;1;\r\n".encode("cp1252")), CLASSES)
    assert labels.loc["a.wav"].to_dict() == {"Bark": 1, "Möwe": 0.25}
    assert "too many (id)" in refused(read_soft_labels, write("fname,Möwe,Bark,id\na.wav,0,1,0\n"), CLASSES)


@pytest.mark.parametrize("content", [
    "fname,Bark,Möwe\na,True,FALSE\nb,false,TRUE\n", "fname;Möwe;Bark\na;0,0;1,0\nb;1;0\n",
    ",fname,Bark,Möwe\n0,a,1,0\n1,b,0,1\n", "fname,Bark,Möwe,,\na,1,0,,\nb,0,1,,\n",
    "fname;labels\na;Bark\nb;Möwe\n", ",fname,labels\n0,a,Bark\n1,b,Möwe\n",
    'fname,labels\na,Bark\nb,"Möwe,nan"\n',
])
def test_truth_in_other_forms(write, content):
    for classes in (CLASSES, None):
        truth = read_truth(write(content), classes)
        assert truth.loc["a", CLASSES].tolist() == [1, 0] and truth.loc["b", CLASSES].tolist() == [0, 1]


def test_nan_and_none_are_missing_labels_unless_a_class_has_that_name(write):
    content = "fname,labels\na,nan\nb,None\nc,\nd,Bark\ne,<NA>\n"
    assert read_truth(write(content)).columns.tolist() == ["Bark"]
    targets, _ = read_labels(write(content), CLASSES)
    assert targets.any(axis=1).tolist() == [False, False, False, True, False]
    assert read_labels(write(content), ["Bark", "None"])[0]["None"].tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("labels, remedy", [
    ("Bark;Möwe", "Separate the labels by commas"), ("Bark | Möwe", "Separate the labels by commas"),
    ("\"['Bark', 'Möwe']\"", "Separate the labels by commas"), ("Growl;Bark", "Correct the label")])
def test_other_separators_in_a_competition_get_the_remedy(write, labels, remedy):
    assert remedy in refused(read_labels, write(f"fname,labels\na,{labels}\n"), CLASSES)


VOCABULARY = "0,Bark,/m/0\n1,Möwe,/m/1\n"


@pytest.mark.parametrize("content", [
    VOCABULARY, VOCABULARY.replace(",", ";"), "index,label,mid\n" + VOCABULARY, "Bark\nMöwe\n", "label\nBark\nMöwe\n",
    "index,mid,display_name\n0,/m/0,Bark\n1,/m/1,Möwe\n", "mid;label\n/m/0;Bark\n/m/1;Möwe\n",
    "number,class of sound,mid\n" + VOCABULARY, VOCABULARY.replace("\n", ",,\n"), "Bark,,\nMöwe,,\n",
    VOCABULARY.encode("utf-16"), VOCABULARY.replace(",", "\t").encode("cp1252"),
    "sep=;\n" + VOCABULARY.replace(",", ";"),
])
def test_vocabularies_in_other_forms(write, content):
    path = write(content)
    assert read_vocabulary(path) == read_classes(path) == tuple(CLASSES)


@pytest.mark.parametrize("content, words", [
    ("0,Bark,/m/0\n1,Chink, clink,/m/1\n", ["line 2", "4 fields", "Quote"]),      # once read as Chink
    ("Bark\nChink, clink\n", ["line 2", "2 fields"]),
    ("/m/0,Bark\n/m/1,Möwe\n", ["cannot be told", "index,label"]),
])
def test_vocabularies_that_cannot_be_told_are_refused(write, content, words):
    message = refused(read_vocabulary, write(content))
    assert all(word in message for word in words), message


def test_the_classes_of_a_sample_submission_in_other_forms(write):
    for content in (",fname,Bark,Möwe\n0,a,0,0\n1,b,0,0\n", "fname;Bark;Möwe;;\na;0;0;;\n",
                    "\ufefffname,Bark,Möwe\na,0,0\n"):
        assert read_header(write(content)) == read_classes(write(content)) == tuple(CLASSES)
    assert "no name for column 3" in refused(read_header, write("fname,Bark,,Möwe\na,0,0,0\n"))


def test_western_text_is_read_as_windows_1252(write):
    words = ["Möwe", "œuf", "l\u2019eau", "“Ruf”", "Größe", "5 €", "Niño", "90°", "Ça…", "tap\xa0water"]
    for word in words:
        assert read_table(write(f"fname\n{word}\n".encode("cp1252"))).fname.tolist() == [word]


@pytest.mark.parametrize("text, encoding", [
    ("Собака", "cp1251"), ("σκύλος", "cp1253"), ("dźwięk", "cp1250"), ("łąka", "cp1250"),
    ("café", "mac-roman"), ("Möwe", "mac-roman"), ("garçon", "cp850"), ("犬", "shift-jis"), ("狗叫声", "gbk"),
    ("개 짖는 소리", "euc-kr")])
def test_other_code_pages_are_refused_where_they_cannot_be_told(write, text, encoding):
    message = refused(read_table, write(f"fname\nplain\n{text}\n".encode(encoding)))
    assert "line 3" in message and "CSV UTF-8" in message


def test_a_note_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(csv_files, "said", set())
    for _ in range(3):
        csv_files.say("x.csv: semicolons separate the fields.")
    assert caplog.messages == ["note: x.csv: semicolons separate the fields."]


def test_numbers_are_exact_whatever_the_notation(write):
    values = np.random.default_rng(0).normal(size=(50, 3))
    frame = pd.DataFrame(values, [f"{number}.wav" for number in range(50)], ["a", "b", "c"]).rename_axis("fname")
    for content in (frame.to_csv(), frame.to_csv(sep=";", decimal=","), frame.reset_index().to_csv(sep="\t")):
        assert np.array_equal(read_scores(write(content)).to_numpy(), values)
