"""The charts of reports and page, and the numbers of tables."""
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tagging.reporting import plots
from tagging.reporting.report import format_cell
from tagging.reporting.sections import prediction_bars
from tagging.reporting.style import draw_chart
from tagging_lite.pictures import nice_ticks, png


def test_numbers_in_a_table():
    assert [format_cell(value) for value in (None, float("nan"), 12345, np.int64(7), 0.12345, 65.432, "<b>")] == [
        "-", "-", "12,345", "7", "0.123", "65.4", "<b>"]


def test_the_bars_of_a_clip_show_its_highest_classes_and_each_of_its_labels():
    scores = pd.Series([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], list("abcdefg"))
    bars = prediction_bars(pd.Series([0, 1, 0, 0, 0, 0, 1], scores.index), scores)
    assert bars.names == ["a", "b", "c", "d", "e", "g"] and bars.marked == {"b", "g"}
    assert bars.columns[0].widths == [90, 80, 70, 60, 50, 30]
    assert bars.columns[0].texts == ["0.90", "0.80", "0.70", "0.60", "0.50", "0.30"]


def test_the_worst_class_is_at_the_top_with_its_loss():
    table = pd.DataFrame({"lwlrap": [0.9, 0.5, None], "weight": [0.25, 0.75, 0], "clips": [1, 3, 0]},
                         ["good", "bad", "none"])
    bars = plots.score_by_class(table)
    assert bars.names == ["bad (3)", "good (1)", "none (0)"]
    assert bars.columns[0].widths == [50, 90, 0] and bars.columns[0].texts == ["0.500", "0.900", "-"]
    assert bars.columns[1].texts == ["0.3750", "0.0250", "-"] and "0.6000" in bars.title


def test_the_class_with_the_most_clips_is_at_the_top():
    bars = plots.labels_by_class(pd.DataFrame({"curated": [1, 5, 3], "noisy": [9, 2, 4]}, ["a", "b", "c$"]))
    assert bars.names == ["b", "c$", "a"] and list(bars.columns[1].values) == [2, 4, 9]
    assert [column.tones[0] for column in bars.columns] == ["blue", "orange"]


def test_a_heat_map_has_all_classes_and_the_most_frequent_pairs_come_first():
    names = [f"class{number}" for number in range(80)]
    counts = pd.DataFrame(np.zeros((80, 80), int), names, names)
    counts.loc["class70", "class60"], counts.loc["class3", "class50"] = 3, 8
    truth = pd.DataFrame(np.ones((10, 80), int), columns=names)
    matrix = plots.confusions(counts, truth)
    assert matrix.names[:4] == ["class3", "class50", "class70", "class60"] and len(matrix.names) == 80
    cells = {(row, column): cell for row, line in matrix.rows for column, cell in zip(matrix.names, line) if cell.count}
    assert {place: (cell.text, cell.level) for place, cell in cells.items()} == {
        ("class3", "class50"): ("80", 10), ("class70", "class60"): ("30", 4)}       # percent of ten labels
    assert cells["class3", "class50"].hint == "class50 outranks 8 of 10 labels class3"


def test_learning_curves_and_scores_of_many_runs():
    log = pd.DataFrame({"epoch": [1, 2], "train_loss": [2, 1], "valid_loss": [3, 2], "lwlrap": [0.4, 0.6]})
    later = log.assign(lwlrap=[0.6, 0.8])
    runs = {f"run{number}": {1: log, 2: later} for number in range(9)}
    score, losses = plots.learning_curves(runs, "Nine runs")
    assert [line.name for line in score.lines if line.name] == list(runs)
    assert [line.name for line in losses.lines if line.name][:2] == ["run0, training loss", "run0, validation loss"]
    mean = next(line for line in score.lines if line.name == "run8")
    assert mean.places[:, 0].tolist() == [0, 100]
    assert mean.places[:, 1] == pytest.approx(score.y.places([0.5, 0.7])) and mean.path.startswith("M0.0 ")
    dots = plots.fold_scores({run: pd.Series({1: 0.5, 2: 0.7}) for run in runs})
    assert (dots.rows[8].name, dots.rows[8].summary) == ("run8", "0.6000 ± 0.1414")
    assert dots.rows[8].text == "fold 1: 0.5000 · fold 2: 0.7000" and dots.rows[8].mean == 50


def test_charts_as_figures_for_programs_that_take_pictures():
    log = pd.DataFrame({"epoch": [1, 2], "train_loss": [2, 1], "valid_loss": [3, 2], "lwlrap": [0.4, 0.6]})
    counts = pd.DataFrame([[0, 2], [1, 0]], ["a$b", "c"], ["a$b", "c"])
    bars = plots.labels_by_class(pd.DataFrame({"curated": [1, 5]}, ["a", "$b$"]))
    figure = draw_chart(bars)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [5, 1]
    for chart in (*plots.learning_curves({"run": {1: log}}, "Curves"), plots.fold_scores({"run": pd.Series({1: 0.5})}),
                  plots.confusions(counts, pd.DataFrame(np.ones((3, 2), int), columns=counts.columns)), bars):
        assert Image.open(io.BytesIO(png(draw_chart(chart)))).width > 500


@pytest.mark.parametrize("low, high, count, expected", [
    (0, 1, 5, [0, 0.25, 0.5, 0.75, 1]), (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-100, 0, 5, [-100, -75, -50, -25, 0]),
    (0.948, 1, 3, [0.96, 0.98, 1]), (3, 3, 5, [3])])
def test_round_numbers_on_an_axis(low, high, count, expected):
    assert nice_ticks(low, high, count) == pytest.approx(expected)


def test_the_shares_of_a_histogram_are_exact_on_its_axis():
    """The highest share is 10 %, so the ticks are 2.5 % apart."""
    values = {"curated": pd.Series(np.arange(-95.0, 0, 10))}
    ticks = plots.histograms(values, np.linspace(-100, 0, 11), "Noise floor", plots.Axis("dBFS", -100, 0), str).y.ticks
    assert [tick.text for tick in ticks] == ["0%", "2.5%", "5%", "7.5%", "10%"]
