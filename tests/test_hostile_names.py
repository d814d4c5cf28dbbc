"""Hostile names of clips and columns of labels: each is read right, or refused with one error that names the file."""
import re
import time
from contextlib import suppress

import pandas as pd
import pytest
from hostile import CASES, csv_of, outcome, put, refused, run_cases
from hostile import watchdog as watchdog  # pytest runs it around every test of this file
from hypothesis import strategies as st

from tagging.data.competition import open_competition
from tagging.data.tables import is_missing
from tagging.errors import TaggingError
from tools.label_column import split_column

pytestmark = pytest.mark.slow       # thousands of generated cases

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


# --- labels of a user's csv ---

PIECES = ["A", "B", "Bass", "Low", ";", "|", ",", "/", "\n", "\t", "[", "]", "'", '"', "(", ")", "{", "}", " ", "nan",
          "None", "\\", "\\u", "A;B", "A,B", "['A', 'B']", "é", "\ud83d"]


def test_any_column_of_labels_is_split_without_loss_or_refused(tmp_path):
    """Each label is a part of its field, and all letters of a field are in its labels."""
    def check(texts):
        path = tmp_path / "own.csv"
        try:
            labels = split_column(path, pd.DataFrame({"labels": texts}, range(2, 2 + len(texts))))
        except TaggingError as error:
            assert str(path) in str(error)
            return
        for text, found in zip(texts, labels):
            assert all(label and label == label.strip() and not is_missing(label) for label in found)
            if "\\" not in text and "nan" not in text and "None" not in text:
                assert re.findall(r"\w", text) == re.findall(r"\w", "".join(found)), (text, found)
    run_cases(check, st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), min_size=1, max_size=8))


@pytest.mark.parametrize("text", [      # a field of a csv has at most 131,072 characters
    "['" + "a" * 130_000, "['a'," * 26_000, "[" * 130_000, "[" + "a," * 65_000 + "]", "['" + "\\" * 130_000 + "']",
    "a;" * 65_000, " \n" * 65_000, "[" + " " * 130_000])
def test_a_long_field_of_labels_takes_not_long(tmp_path, text):
    path = put(tmp_path / "own.csv", b"")
    begin = time.monotonic()
    with suppress(TaggingError):
        split_column(path, pd.DataFrame({"labels": [text, "a"]}, [2, 3]))
    assert time.monotonic() - begin < 5
