"""Labels for Audacity and Raven."""
import csv
import io
from pathlib import Path

import numpy as np
import pytest

from tagging_lite.formats import RAVEN_COLUMNS, audacity_labels, find_regions, raven_table
from tagging_lite.tagger import ModelInfo, Tagger, TagResult

TAGGER = Tagger(ModelInfo(("Bark", "Chirp_and_tweet", "Hiss"), 16_000, 8000, 0.5, 0.0), None)
TIMELINE = np.array([[0.9, 0.1, 0.2], [0.7, 0.1, 0.6], [0.1, 0.1, 0.8], [0.6, 0.1, 0.1]])
TIMED = TagResult(np.array([0.8, 0.1, 0.5]), 3.25, TIMELINE)
WHOLE = TagResult(np.array([0.8, 0.1, 0.5]), 3.25, None)


def test_neighbouring_seconds_with_the_same_tag_are_one_region():
    assert find_regions(TIMED, TAGGER, 5, 0.5) == [
        (0.0, 2.0, "Bark", 0.9), (1.0, 3.0, "Hiss", 0.8), (3.0, 3.25, "Bark", 0.6)]


def test_without_a_timeline_each_tag_is_as_long_as_the_sound():
    assert find_regions(WHOLE, TAGGER, 5, 0.5) == [(0.0, 3.25, "Bark", 0.8), (0.0, 3.25, "Hiss", 0.5)]
    assert find_regions(WHOLE, TAGGER, 1, np.array([1.0, 0.0, 1.0])) == [(0.0, 3.25, "Chirp_and_tweet", 0.1)]


@pytest.mark.parametrize("seed", range(10))
def test_regions_cover_exactly_the_seconds_of_the_timeline(seed):
    timeline = np.random.default_rng(seed).random((30, 3))
    regions = find_regions(TagResult(timeline.mean(0), 29.5, timeline), TAGGER, 2, 0.3)
    found = {(name, second) for start, end, name, _ in regions for second in range(int(start), int(np.ceil(end)))}
    assert found == {(name, second) for second, row in enumerate(timeline) for name, _ in TAGGER.top_tags(row, 2, 0.3)}
    assert sum(np.ceil(end) - start for start, end, *_ in regions) == len(found)        # no second is in two regions
    assert max(end for _, end, *_ in regions) <= 29.5


def test_audacity_labels_are_start_end_and_tag():
    assert audacity_labels(Path("a.wav"), TIMED, TAGGER, 5, 0.5) == (
        "0.000000\t2.000000\tBark\n1.000000\t3.000000\tHiss\n3.000000\t3.250000\tBark\n")
    assert audacity_labels(Path("a.wav"), TIMED, TAGGER, 5, 0.95) == ""


def test_a_raven_table_has_the_columns_of_raven():
    text = raven_table(Path("some folder/a\tb.wav"), TIMED, TAGGER, 5, 0.5)
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    assert tuple(rows[0]) == RAVEN_COLUMNS
    assert [row["Selection"] for row in rows] == ["1", "2", "3"]
    assert rows[1] == {
        "Selection": "2", "View": "Spectrogram 1", "Channel": "1", "Begin Time (s)": "1.000000",
        "End Time (s)": "3.000000", "Low Freq (Hz)": "0.0", "High Freq (Hz)": "8000.0",
        "Begin Path": str(Path("some folder/a\\tb.wav").absolute()), "Begin File": "a\\tb.wav", "Tag": "Hiss",
        "Probability": "0.800000"}
    assert raven_table(Path("a.wav"), TIMED, TAGGER, 5, 0.95) == "\t".join(RAVEN_COLUMNS) + "\n"
