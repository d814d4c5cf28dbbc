"""The names of the classes of own sounds: what looks alike or is no class is said, what cannot be a class refused."""
import pytest
from own_sounds import TOOL, sound, write
from own_sounds import folders as folders
from own_sounds import listed as listed
from own_sounds import shop as shop

from tagging.errors import TaggingError
from tools import labelled_sounds
from tools.labelled_sounds import check_class_names, is_placeholder, visible

ALIKE = [("Bell", "bell"), ("Tap  water", "Tap water"), ("Tap_water", "Tap water"), ("Hi-hat", "Hi\u2010hat"),
         ("Caf\xe9", "Cafe\u0301"), ("Bell", "Bell\u200b"), ("Bell", "\ufeffBell"), ("Bell", "\u200eBell"),
         ("Bell", "Be\xadll"), ("Bell", "\uff22ell"), ("Alarm", "\u0410larm"), ("Say 'ah'", "Say \u2019ah\u2019"),
         ("1", "1.0"), ("1", "01"), ("-1", "-1,00"), ("1.5", "1.50"), ("0", "0.0")]


@pytest.mark.parametrize("one, other", ALIKE)
def test_names_that_look_alike(one, other):
    assert visible(one) == visible(other)


@pytest.mark.parametrize("one, other", [
    ("1", "10"), ("1", "-1"), ("0.1", "1"), ("C", "C#"), ("Bell", "Ball"), ("12345678901234567", "12345678901234568"),
    ("-", "_"), ("\u0410", "\u0411"), ("a", "\xe4")])
def test_names_that_do_not(one, other):
    assert visible(one) != visible(other)


def test_classes_of_a_csv_that_look_alike_are_said(shop, listed):
    fields = ["Dog", "dog", "Cafe\u0301", "Caf\xe9", "1", "1.0"] * 5
    (shop.folder / "own.csv").write_text("fname,labels\n" + "".join(
        f"{number:02}.wav,{field}\n" for number, field in enumerate(fields)))
    result = shop.call(TOOL, shop.data, *listed)
    assert result.code == 0, result.err
    assert "'1' (5) and '1.0' (5), 'Cafe\\u0301' (5) and 'Caf\\xe9' (5), 'Dog' (5) and 'dog' (5). Write" in result.out


@pytest.mark.parametrize("names, said", [
    (("Bell", "bell"), "'Bell' (3) and 'bell' (3)"),
    (("Caf\xe9", "Cafe\u0301"), "'Cafe\\u0301' (3) and 'Caf\\xe9' (3)"),
    (("a", "a\u200b"), "'a' (3) and 'a\\u200b' (3)"), (("-", "NIL"), "missing labels, here")])
def test_classes_of_folders_are_said(shop, names, said):
    for number, name in enumerate(names):
        for clip in range(3):
            write(shop.folder / "own" / name / f"{clip}.wav", sound(10 * number + clip, 0.1))
    result = shop.call(TOOL, shop.data, "--folders", shop.folder / "own")
    assert result.code == 0 and said in result.out


@pytest.mark.parametrize("name", ["-", "--", "?", "\u2013", "\u2026", "\\N", "NIL", "n.a.", "N.A", "n/d", "NaT",
                                  "#REF!", "#DIV/0!", "#N/A", "#NAME?", "missing", "(missing)", "unlabeled", "TBD"])
def test_words_for_a_missing_label(name):
    assert is_placeholder(name)


@pytest.mark.parametrize("name", ["Bell", "1", "C#", "#1", "\U0001f415", "nature", "Nile", "None of these", "\u732b"])
def test_names_that_are_no_such_words(name):
    assert not is_placeholder(name)


@pytest.mark.parametrize("names, said", [
    (("Unnamed: 0", "Bell"), "'Unnamed: 0' cannot be the name"), (("labels", "Bell"), "'labels' cannot be the name"),
    ([f"k{number}" for number in range(10_000)], "There are 10000 classes, and the csv files can have 9999")])
def test_classes_that_no_script_could_read(names, said):
    with pytest.raises(TaggingError) as caught:
        check_class_names(names)
    assert said in str(caught.value)


def test_they_are_refused_before_anything_is_converted(shop, listed, expect_error, monkeypatch):
    monkeypatch.setattr(labelled_sounds, "MAX_COLUMNS", 3)
    expect_error(shop.call(TOOL, shop.data, *listed), "There are 3 classes")
    assert not shop.data.exists()


@pytest.mark.parametrize("rows, line, lost", [
    ('00.wav,"A\n01.wav,B\n02.wav,C"\n03.wav,A\n04.wav,B\n', 4, "01.wav,B"),
    ('00.wav,A\n01,"B\n02,C"\n03,C\n', 4, "02,C"), ('00.wav,A,"x\n01.wav,B,y"\n02.wav,B,z\n', 3, "01.wav,B,y")])
def test_a_stray_quote_that_swallows_rows_is_refused(shop, listed, expect_error, rows, line, lost):
    (shop.folder / "own.csv").write_text(f"fname,labels{',recording' * (',y' in rows)}\n" + rows)
    expect_error(shop.call(TOOL, shop.data, *listed), f"own.csv, line {line}: a field in the row of 0",
                 f"another clip, '{lost}'. Remove the quote")


def test_line_breaks_between_labels_are_no_lost_rows(shop, listed):
    (shop.folder / "own.csv").write_text("fname,labels\n" + "".join(
        f'{number:02}.wav,"{("A", "B", "A,~B", "B,~A,")[number % 4]}"~'.replace("~", "\n") for number in range(30)))
    result = shop.call(TOOL, shop.data, *listed)
    assert result.code == 0 and "commas separate the labels of 14 clips" in result.out, result.err
