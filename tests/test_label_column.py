"""The labels of a user's csv: what separates them is recognised if it is certain, and otherwise said."""
from pathlib import Path

import pandas as pd
import pytest

from tagging.data import csv_files
from tagging.errors import TaggingError
from tools.label_column import split_column

PATH = Path("own.csv")


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """Each test starts as a process does: nothing is said yet."""
    monkeypatch.setattr(csv_files, "said", set())


def split(*texts, separator="auto"):
    return split_column(PATH, pd.DataFrame({"labels": texts}, range(2, 2 + len(texts))), separator)


AB = [["A"], ["B"], ["A", "B"]]


@pytest.mark.parametrize("texts, said", [
    (("A", "B", "A,B"), "commas separate the labels of 1 clips, as in 'A,B'"),
    (("A", "B", "A;B"), "semicolons separate the labels of 1 clips, as in 'A;B'"),
    (("A", "B", "A | B"), "vertical bars separate"), (("A", "B", "A\tB"), "tabs separate"),
    (("A", "B", "A\nB"), "line breaks separate"), (("A", "B", "A\r\nB"), "line breaks separate"),
    (("A", "B", "A/B"), "slashes separate"), (("A", "B", "A + B"), "plus signs separate"),
    (("A", "B", "A & B"), "ampersands separate"),
    (("A;", "B;", "A;B;"), "semicolons separate"), (("A", "B", "A,\nB"), "commas separate"),
    (("A", "B", "A; nan;B"), "semicolons separate"), (("A", "B", "A,None,B"), "commas separate"),
    (("['A']", "['B']", "['A', 'B']"), "the labels are lists, such as ['A']"),
    (('["A"]', '["B"]', '["A","B"]'), "the labels are lists"), (("[A]", "[B]", "[A, B]"), "the labels are lists"),
    (("('A',)", "('B',)", "('A', 'B')"), "the labels are lists"),
    (("{'A'}", "{'B'}", "{'A', 'B'}"), "the labels are lists"),
    (('["A", null]', '["B", NaN]', '["A", "B"]'), "the labels are lists"),
    (("['A', nan]", "['B', None]", "['A', \"B\"]"), "the labels are lists"),
    (("{A}", "{B}", '{"A",B}'), "the labels are lists"), (("(A)", "(B)", "(A, B)"), "the labels are lists"),
    (("(A)", "(B)", "(A) (B)"), "the labels are lists"), (("<A>", "<B>", "<A,B>"), "the labels are lists"),
    (("<A>", "<B>", "<A><B>"), "the labels are lists"),
    (("A", "B", "A\u3001B"), "ideographic commas separate"), (("A", "B", "A\uff0cB"), "full-width commas separate"),
    (("A", "B", "A\uff1b B"), "full-width semicolons separate"), (("A", "B", "A\u060c B"), "Arabic commas separate"),
])
def test_every_certain_form_is_split_and_said(texts, said, caplog):
    assert split(*texts) == AB
    assert caplog.messages[0].startswith("note: own.csv: ") and said in caplog.messages[0] and len(caplog.messages) == 1


@pytest.mark.parametrize("sign", [";", "|", ",", "\t"])
def test_labels_that_are_never_alone_are_recognised_by_their_other_combinations(sign):
    texts = [sign.join(pair) for pair in ("AB", "BC", "AC", "CD")]
    assert split(*texts) == [list(pair) for pair in ("AB", "BC", "AC", "CD")]


@pytest.mark.parametrize("texts, sign", [
    (("Bass/Low", "Bass/High", "Drum/Low"), "'/'"), (("Dog;small", "Dog;large", "Cat"), "';'"),
    (("A|B", "C|D"), "'|'"), (("Bass/Low", "Bass", "Drum"), "'/'"), (("A\nB", "C"), r"'\n'"),
    (("Bass/Low,Drum", "Bass", "Low", "Drum"), "'/'"),
])
def test_a_sign_within_names_is_kept_and_its_option_is_named(texts, sign, caplog):
    labels = split(*texts)
    assert any(sign.strip("'") in label for found in labels for label in found) or "n" in sign
    assert any(f"--label-separator {sign} splits them" in message and "labels contain" in message
               for message in caplog.messages)
    assert split(*texts, separator=sign.strip("'"))[0][:2] != labels[0][:2]


def test_names_with_commas_are_kept_whole_where_another_sign_separates(caplog):
    assert split("Chink, clink;Bark", "Bark", "Chink, clink") == [["Chink, clink", "Bark"], ["Bark"], ["Chink, clink"]]
    assert "semicolons separate" in caplog.messages[0] and "1 labels contain commas" in caplog.messages[1]
    assert split('"Chink, clink",Bark', "Bark") == [["Chink, clink", "Bark"], ["Bark"]]
    assert split('["Chink, clink", "Say \'ah\'"]', "['it\\'s']") == [["Chink, clink", "Say 'ah'"], ["it's"]]
    assert split('["M\\u00f6we \\ud83d\\udc15"]') == [["Möwe 🐕"]]        # json.dumps


def test_missing_labels_are_counted(caplog):
    assert split("A", "nan", "None", "", " NaN ", "<NA>", "B") == [["A"], [], [], [], [], [], ["B"]]
    assert caplog.messages == ["note: own.csv: 4 fields are nan or None or NaN or <NA>, which counts as a missing "
                               "label."]
    assert split("[]", "['A']", "nan", "") == [[], ["A"], [], []]


@pytest.mark.parametrize("texts, words", [
    (("A;B", "A,B", "A", "B"), ["semicolons, as in 'A;B'", "commas, as in 'A,B'", "--label-separator"]),
    (("A;B", "A|B", "A", "B"), ["semicolons", "vertical bars", "--label-separator"]),
    (("['A' 'B']", "['A']"), ["line 2", "['A' 'B']", "list", "commas"]),         # numpy writes no commas
    (("A", "['A', 'B']"), ["line 3", "['A', 'B']", "line 2"]), (("('A', 'B')", "", "C"), ["line 2", "line 4"]),
    (("A", "[A, B"), ["line 3", "[A, B"]),
    *((texts, ["line 2", texts[0], "brackets or quotes", "--label-separator"]) for texts in (
        ("{A,B}", "A", "B"), ("(A, B)", "A"), ("<A,B>", "A"), ("A (b, c)", "A"), ('{"A": 1}', '{"B": 1}'),
        ("array(['A', 'B'], dtype=object)", "array(['A'], dtype=object)"), ("Index(['A'])",), ("frozenset({'A'})",),
        ("'A','B'", "'A'"), ("'A,B'", "A"), ("\u201cA\u201d,\u201cB\u201d", "A"), ('"A"-"B"', "A"), ('"A', "B"))),
])
def test_mixed_forms_are_refused(texts, words):
    with pytest.raises(TaggingError) as caught:
        split(*texts)
    assert all(word in str(caught.value) for word in ["own.csv", *words]), caught.value


@pytest.mark.parametrize("separator, text, labels", [
    (";", "A;B", ["A", "B"]), ("|", 'A|"B|C"', ["A", "B|C"]), ("\\t", "A\tB", ["A", "B"]), ("\t", "A\tB", ["A", "B"]),
    ("::", "A::B", ["A", "B"]), (" and ", "A and B", ["A", "B"]), (" ", "A  B", ["A", "B"]),
    (",", "A;B,C", ["A;B", "C"]), ("/", "A/B,C", ["A", "B,C"]), ("none", "A,B;C", ["A,B;C"]),
    ("None", "['A']", ["['A']"]), ("\\n", "A\nB", ["A", "B"]), (";", "nan", []), (";", "", []),
])
def test_the_separator_can_be_chosen(separator, text, labels, caplog):
    assert split(text, "plain", separator=separator) == [labels, ["plain"]]
    assert f"note: own.csv: --label-separator '{separator}' splits {int(len(labels) > 1)} fields." in caplog.messages


@pytest.mark.parametrize("separator", ["", "x", "1", '"', 'a"'])
def test_an_impossible_separator_is_refused(separator):
    with pytest.raises(TaggingError, match="--label-separator"):
        split("A", separator=separator)


@pytest.mark.parametrize("sign", [";", "|", ",", "/"])
def test_quotes_around_a_label_that_contains_the_separator_are_read(sign):
    assert split(f'"a{sign}b"{sign}c', f'"a{sign}b"', "c") == [[f"a{sign}b", "c"], [f"a{sign}b"], ["c"]]
    assert split(f'"a{sign}b" {sign} c', f'd{sign}"e{sign}f"') == [[f"a{sign}b", "c"], ["d", f"e{sign}f"]]


@pytest.mark.parametrize("sign, option", [
    (" ", "' '"), ("  ", "' '"), ("\xa0", r"'\xa0'"), ("\u3000", r"'\u3000'"), ("-", "'-'"), (" - ", "'-'"),
    (":", "':'"), ("\xb7", "'\xb7'"), ("~", "'~'"), ("_", "'_'"), ("\\", "'\\'"), ("\\n", r"'\n'"), ("<br>", "'<br>'"),
    ("::", "'::'"), (" and ", "' and '"), ("'", '"\'"')])
def test_labels_that_consist_of_other_labels_are_said_with_the_option_that_splits_them(sign, option, caplog):
    texts = ["Bell", "Drum", "Siren", f"Bell{sign}Drum", f"Bell{sign}Drum{sign}Siren"]
    assert split(*texts) == [[text] for text in texts]
    assert len(caplog.messages) == 1 and "2 labels consist of other labels" in caplog.messages[0]
    assert f"--label-separator {option} splits them" in caplog.messages[0]
    assert split(*texts, separator=option[1:-1])[3:] == [["Bell", "Drum"], ["Bell", "Drum", "Siren"]]


@pytest.mark.parametrize("texts", [
    ("1", "5", "1.5"), ("Bass", "Bass drum", "Snare drum"), ("A", "B", "AB"), ("Hi-hat", "Hi"), ("it's", "rock 'n'")])
def test_names_of_several_words_are_not_said(texts, caplog):
    assert split(*texts) == [[text] for text in texts] and not caplog.messages


def test_another_separator_in_a_few_fields_is_said_with_that_of_the_others(caplog):
    split("Bell", "Drum,Siren", "Siren,Bell", "Drum Siren")
    assert "'Drum Siren'. If they are several labels, write commas between them" in caplog.messages[1]
