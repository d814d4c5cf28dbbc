"""Charts of the tables of `eda` and of `tagging.evaluation.error_analysis`, and of logs."""
from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np
import pandas as pd

from tagging.reporting.charts import (
    SPLIT_TONES,
    STEP,
    TONES,
    Axis,
    Bars,
    Cell,
    Column,
    DotRow,
    Dots,
    Line,
    Matrix,
    Plot,
)
from tagging.reporting.eda import join_splits, usable

LOSSES = {"train_loss": ("training loss", "dashed"), "valid_loss": ("validation loss", "")}     # legend and style


def labels_by_class(counts: pd.DataFrame) -> Bars:
    """Chart `eda.labels_by_class`, the class with the most clips at the top."""
    counts = counts.sort_values(list(counts), ascending=False, kind="stable")
    return Bars("Number of clips with each label", "class", list(counts.index),
                [Column(f"{split} clips", counts[split], "{:,.0f}".format, SPLIT_TONES[split]) for split in counts])


def score_by_class(table: pd.DataFrame) -> Bars:
    """Chart `error_analysis.score_by_class`, the worst class at the top: its score, and its loss of the total score."""
    table = table.sort_values("lwlrap", kind="stable")
    total = (table.lwlrap * table.weight).sum()
    return Bars(f"Score by class. Score of all labels: {total:.4f}", "class, and its number of clips",
                [f"{name} ({clips:,})" for name, clips in zip(table.index, table.clips)],
                [Column("lwlrap", table.lwlrap, "{:.3f}".format, end=1),
                 Column(f"loss of lwlrap, {1 - total:.4f} in total", table.weight * (1 - table.lwlrap), "{:.4f}".format,
                        "orange")])


def labels_per_clip(counts: pd.DataFrame) -> Bars:
    """Chart `eda.labels_per_clip` as shares of each split, because a split can have many more clips than another."""
    counts = counts[counts.any(axis=1)]
    return Bars("Labels per clip", "labels", [f"{number}" for number in counts.index],
                [Column(f"share of {counts[split].sum():,} {split} clips", counts[split] / max(counts[split].sum(), 1),
                        "{:.1%}".format, SPLIT_TONES[split], 1) for split in counts])


def co_occurrence(counts: pd.DataFrame, split: str) -> Matrix:
    """Chart `eda.co_occurrence` of a split: the share of the row's clips that also have the column's label."""
    clips = np.diag(counts)
    return matrix(counts - np.diag(clips), clips, f"Labels that occur together, {split} clips",
                  "% of the row's clips that also have the column's label",
                  "{count:,} of {total:,} clips of {row} also have the label {column}", "labels")


def confusions(counts: pd.DataFrame, truth: pd.DataFrame) -> Matrix:
    """Chart `error_analysis.confusions`: the share of the row's labels that the column's class outranks."""
    return matrix(counts, truth.sum().to_numpy(), "Labels and the classes that outrank them",
                  "% of the row's labels that the column's class outranks",
                  "{column} outranks {count:,} of {total:,} labels {row}", "confusions")


def matrix(counts: pd.DataFrame, totals: np.ndarray, title: str, corner: str, hint: str, kind: str) -> Matrix:
    """Build a heat map of all classes with each row in percent of its total. The most frequent pairs come first.

    Args:
        counts: (classes, classes).
        totals: (classes,).
        hint: sentence about a cell, with the fields count, total, row and column.
    """
    values = counts.to_numpy()
    ranked = np.argsort(-values, axis=None, kind="stable")[:np.count_nonzero(values)]
    pairs = np.stack(np.unravel_index(ranked, values.shape), 1)                         # (pairs, 2)
    order = list(dict.fromkeys([*pairs.ravel().tolist(), *range(len(values))]))
    shares = 100 * values / np.maximum(totals, 1)[:, None]                              # (classes, classes)
    top = max(shares.max(initial=0), 10)
    names = [str(counts.index[number]) for number in order]

    def cell(row: int, column: int) -> Cell:
        count, share = int(values[row, column]), shares[row, column]
        return Cell(count, min(STEP, -int(-STEP * share // top)), f"{share:.0f}" if share >= 0.5 else "",
                    hint.format(count=count, total=int(totals[row]), row=counts.index[row],
                                column=counts.columns[column]))

    return Matrix(title, corner, names,
                  [(name, [cell(row, column) for column in order]) for name, row in zip(names, order)], kind)


def durations(sounds: dict[str, pd.DataFrame]) -> Plot:
    """Chart `seconds` of `eda.measure_sounds`."""
    seconds = usable(join_splits(sounds)).seconds
    low, high = 0.95 * seconds.min(), 1.05 * seconds.max()
    axis = Axis("seconds (logarithmic scale)", low, high, scale=np.log,
                chosen=spread_ticks([step * 10.0 ** power for power in range(-3, 5) for step in (1, 2, 5)], low, high))
    return histograms({split: usable(table).seconds for split, table in sounds.items()}, np.geomspace(low, high, 61),
                      "Length of the clips before trimming", axis, "{:.3g} s".format)


def spread_ticks(values: Sequence[float], low: float, high: float, count: int = 6) -> list[float]:
    """Return at most `count` of the values from `low` to `high`, evenly chosen."""
    inside = [value for value in values if low <= value <= high]
    return inside[::-(-len(inside) // count) or 1]


def noise_floors(sounds: dict[str, pd.DataFrame]) -> Plot:
    """Chart `noise_floor` of `eda.measure_sounds`."""
    return histograms({split: usable(table).noise_floor for split, table in sounds.items()}, np.linspace(-100, 0, 51),
                      "Noise floor", Axis("10th percentile of the frame levels of a clip (dBFS)", -100, 0),
                      "{:.3g} dBFS".format)


def histograms(values: dict[str, pd.Series], edges: np.ndarray, title: str, x: Axis,
               form: Callable[[float], str]) -> Plot:
    """Chart the share of the clips in each bin as a line of steps for each split.

    Args:
        values: split -> a value for each clip.
        edges: (bins + 1,).
        form: writes the median.
    """
    shares = {split: np.histogram(column, edges)[0] / len(column) for split, column in values.items()}
    y = Axis("share of the clips", 0, max(share.max() for share in shares.values()),
             lambda share: f"{100 * share:g}%")      # ticks such as 2.5%
    names = {split: f"{split}, {len(column):,} clips, median {form(column.median())}"
             for split, column in values.items()}
    lines = []
    for split, share in shares.items():
        steps = np.repeat(share, 2)
        lines.append(line(x, y, [edges[0], *np.repeat(edges, 2)[1:-1], edges[-1]], [0, *steps, 0], names[split],
                          SPLIT_TONES[split]))
    return Plot(title, x, y, lines, "; ".join(names.values()))


def silence(sounds: dict[str, pd.DataFrame]) -> Plot:
    """Chart the share of the clips that lose at least a given part of their length to trimming."""
    x, y = Axis("trimmed part of a clip (%)", 0, 100), share_axis("share of the clips with this or more")
    lines = []
    for split, table in sounds.items():
        good = usable(table)
        lost = np.sort((100 * (good.silence_start + good.silence_end) / good.seconds).to_numpy(float))
        shares = np.arange(len(lost), 0, -1) / len(lost)
        lines.append(line(x, y, np.repeat([0, *lost, 100], 2)[1:-1],
                          np.repeat([*shares, 0], 2), f"{split}, {len(lost):,} clips, mean {lost.mean():.1f} %",
                          SPLIT_TONES[split]))
    return Plot("Silence trimmed from both ends", x, y, lines, "; ".join(each.name for each in lines))


def share_axis(label: str) -> Axis:
    return Axis(label, 0, 1, "{:.0%}".format)


def calibration(table: pd.DataFrame, error: float) -> Plot:
    """Chart `error_analysis.calibration`, with the expected calibration error in the title."""
    x, y = (Axis(label, 0, 1, "{:.1f}".format, 6) for label in ("predicted probability", "observed frequency"))
    return Plot(f"Calibration. Expected calibration error: {error:.4f}", x, y, [
        line(x, y, [0, 1], [0, 1], "perfect calibration", "grey", "thin dashed"),
        line(x, y, table.predicted, table.observed, "this run"),
        line(x, y, table.predicted, table.observed, style="dotted")],
        "The table below has the values")


def learning_curves(logs: dict[str, dict[int, pd.DataFrame]], title: str) -> list[Plot]:
    """Chart the score, and the losses, after each epoch: a thin line for each fold, and a thick one for their mean.

    Args:
        logs: run -> fold -> a row for each epoch: epoch, train_loss, valid_loss and lwlrap.
    """
    means = {run: pd.concat(folds.values()).groupby("epoch").mean() for run, folds in logs.items()}
    table = pd.concat([log for folds in logs.values() for log in folds.values()])
    last = int(table.epoch.max())
    x = Axis("epoch", min(1, last - 1), last, chosen=spread_ticks(range(1, last + 1), 1, last))
    charts = []
    for kind, columns in (("score", {"lwlrap": ("", "")}), ("losses", LOSSES)):
        values = table[list(columns)].to_numpy(float)
        low, high = np.nanmin(values), np.nanmax(values)
        y = Axis("lwlrap" if kind == "score" else "loss", low - 0.05 * (high - low), high + 0.05 * (high - low) or 1)
        thin, thick = [], []
        for (run, folds), tone in zip(logs.items(), cycle(TONES)):
            for column, (label, style) in columns.items():
                thin += [line(x, y, log.epoch, log[column], "", tone, f"thin {style}") for log in folds.values()]
                mean = means[run]
                name = ", ".join(filter(None, [run if len(logs) > 1 else "mean of the folds", label]))
                thick.append(line(x, y, mean.index, mean[column], name, tone, style))
                thick.append(line(x, y, mean.index, mean[column], "", tone, "dotted"))
        ends = "; ".join(f"{run} ends at {means[run].iloc[-1][column]:.4f}{f' {label}' if label else ''}"
                         for run in logs for column, (label, _) in columns.items())
        charts.append(Plot(f"{title}, {kind}", x, y, [*thin, *thick], ends))
    return charts


def clip_curve(table: pd.DataFrame) -> Plot:
    """Chart a learning curve over the number of training clips, of `evaluation.learning_curve`."""
    x = Axis("training clips (logarithmic scale)", table.clips.min(), table.clips.max(), "{:,.0f}".format,
             chosen=list(table.clips), scale=np.log)
    scores = table[["training", "out_of_fold", "test"]].dropna(axis="columns")
    low, high = scores.to_numpy().min(), scores.to_numpy().max()
    y = Axis("lwlrap", low - 0.05 * (high - low), high + 0.05 * (high - low))
    lines = []
    for name, tone in zip(scores, TONES):
        lines.append(line(x, y, table.clips, scores[name], f"{name.replace('_', '-')} clips", tone))
        lines.append(line(x, y, table.clips, scores[name], "", tone, "dotted"))
    return Plot("Score by the number of training clips", x, y, lines, "The table below has the values")


def line(x: Axis, y: Axis, across: Sequence[float] | np.ndarray | pd.Series, up: Sequence[float] | np.ndarray
         | pd.Series, name: str = "", tone: str = "blue", style: str = "") -> Line:
    """Place the points of a line on its axes."""
    return Line(np.stack([x.places(across), y.places(up)], 1), name, tone, style)


def fold_scores(scores: dict[str, pd.Series], title: str = "Fold scores") -> Dots:
    """Chart the score of each fold of each run, with a line at the mean.

    Args:
        scores: run -> lwlrap of each fold, index fold.
    """
    values = pd.concat(list(scores.values()))
    room = max(0.1 * (values.max() - values.min()), 0.005)
    low, high = max(0.0, values.min() - room), min(1.0, values.max() + room)
    axis = Axis("", low, high)
    rows = []
    for run, folds in scores.items():
        summary = f"{folds.mean():.4f}" + (f" ± {folds.std():.4f}" if len(folds) > 1 else "")
        rows.append(DotRow(run, summary, [round(float(place), 2) for place in axis.places(folds)],
                           round(float(axis.places([folds.mean()])[0]), 2),
                           " · ".join(f"fold {fold}: {value:.4f}" for fold, value in folds.items())))
    return Dots(title, rows, f"{low:.3f}", f"{high:.3f}")
