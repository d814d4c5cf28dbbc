"""Plots: tables of `eda` and of `tagging.evaluation.error_analysis`, and logs, to matplotlib figures."""
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from tagging.reporting.eda import join_splits, usable
from tagging.reporting.style import (
    BLUE,
    COLOURS,
    GREY,
    SKY,
    SPLIT_COLOURS,
    VERMILION,
    escape_name,
    new_figure,
    style_axes,
)

MATRIX_CLASSES = 24     # of a heat map, at most: with more classes, the numbers are too small to read
LOSSES = {"train_loss": ("training", ":"), "valid_loss": ("validation", "-")}      # column -> legend and line style


def labels_by_class(counts: pd.DataFrame) -> Figure:
    """Plot `eda.labels_by_class`, the class with the most clips at the top."""
    splits = list(counts.columns)
    counts = counts.sort_values(splits, ascending=False, kind="stable").rename(index=escape_name)
    return class_bars(counts, "Number of clips with each label",
                      {split: (f"{split} clips", SPLIT_COLOURS[split], "{:.0f}") for split in splits})


def score_by_class(table: pd.DataFrame) -> Figure:
    """Plot `error_analysis.score_by_class`, the worst class at the top: its score, and its loss of the total score."""
    table = table.sort_values("lwlrap", kind="stable")
    table = table.assign(cost=table.weight * (1 - table.lwlrap)).set_axis(
        [f"{escape_name(name)} ({clips:,})" for name, clips in zip(table.index, table.clips)])
    total = (table.lwlrap * table.weight).sum()
    figure = class_bars(table, f"Score by class, with the number of clips. Score of all labels: {total:.4f}",
                        {"lwlrap": ("lwlrap", BLUE, "{:.3f}"),
                         "cost": (f"Loss of lwlrap, {1 - total:.4f} in total", SKY, "{:.4f}")})
    figure.axes[0].axvline(total, color=VERMILION, linewidth=1.2)
    return figure


def class_bars(table: pd.DataFrame, title: str, panels: dict[str, tuple[str, str, str]]) -> Figure:
    """Plot horizontal bars, with the classes from top to bottom in the order of the table.

    Args:
        table: index class.
        panels: column -> label of its axis, colour, and format of its numbers.
    """
    rows = np.arange(len(table))
    figure = new_figure(1.0 + 0.18 * len(table), title)
    for axes, (column, (label, colour, form)) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0],
                                                     panels.items()):
        bars = style_axes(axes, label, grid="x").barh(rows, table[column].fillna(0), color=colour, height=0.75)
        axes.bar_label(bars, ["-" if pd.isna(value) else form.format(value) for value in table[column]],
                       fontsize=7, padding=2, color=GREY,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4})
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=pd.api.types.is_integer_dtype(table[column])))
        axes.margins(x=0.12)
    figure.axes[0].set_yticks(rows, table.index)
    figure.axes[0].set_ylim(len(table) - 0.4, -0.6)
    return figure


def labels_per_clip(counts: pd.DataFrame) -> Figure:
    """Plot `eda.labels_per_clip` as shares of each split, because a split can have many more clips than another."""
    counts = counts[counts.any(axis=1)]
    figure = new_figure(3.0, "Labels per clip")
    axes = style_axes(figure.subplots(), "Number of labels", "Share of the clips", grid="y")
    width = 0.8 / len(counts.columns)
    for place, split in enumerate(counts.columns):
        clips = counts[split]
        bars = axes.bar(counts.index + (place + 0.5) * width - 0.4, clips / clips.sum(), width,
                        color=SPLIT_COLOURS[split], label=f"{split}, {clips.sum():,} clips")
        axes.bar_label(bars, [f"{count:,}" if count else "" for count in clips], fontsize=7, padding=2, color=GREY)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.margins(y=0.1)
    axes.set_xticks(counts.index)
    axes.legend(fontsize=8, frameon=False)
    return figure


def co_occurrence(counts: pd.DataFrame, split: str) -> Figure:
    """Plot `eda.co_occurrence` of a split: the share of the row's clips that also have the column's label."""
    clips = np.diag(counts)
    return matrix(counts - np.diag(clips), clips, f"Labels that occur together, {split} clips",
                  "% of the row's clips that also have this label", "Clips with this label")


def confusions(counts: pd.DataFrame, truth: pd.DataFrame) -> Figure:
    """Plot `error_analysis.confusions`: the share of the row's labels that the column's class outranks."""
    return matrix(counts, truth.sum().to_numpy(), "Labels and the classes that outrank them",
                  "% of the row's labels that this class outranks", "True label")


def matrix(counts: pd.DataFrame, totals: np.ndarray, title: str, x: str, y: str) -> Figure:
    """Plot a heat map with each row in percent of its total. The classes of the most frequent pairs come first.

    Args:
        counts: (classes, classes). At most `MATRIX_CLASSES` classes are shown.
        totals: (classes,).
    """
    values = counts.to_numpy()
    ranked = np.argsort(-values, axis=None, kind="stable")[:np.count_nonzero(values)]
    pairs = np.stack(np.unravel_index(ranked, values.shape), 1)                         # (pairs, 2)
    order = list(dict.fromkeys([*pairs.ravel().tolist(), *range(len(values))]))[:MATRIX_CLASSES]
    shares = (100 * values / np.maximum(totals, 1)[:, None])[np.ix_(order, order)]      # (shown, shown)
    names = [escape_name(counts.index[number]) for number in order]
    if len(order) < len(values):
        title += f": {len(order)} of {len(values)} classes, from the most frequent pairs"
    figure = new_figure(2.6 + 0.25 * len(order), title)
    axes = style_axes(figure.subplots(), x, y)
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=max(shares.max(), 10), aspect="auto")
    axes.set_xticks(range(len(order)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(order)), names)
    dark = shares > 0.6 * max(shares.max(), 10)
    for row, column in np.argwhere(shares >= 0.5):
        axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=7,
                  color="white" if dark[row, column] else "black")
    return figure


def durations(sounds: dict[str, pd.DataFrame]) -> Figure:
    """Plot `seconds` of `eda.measure_sounds`."""
    seconds = usable(join_splits(sounds)).seconds
    figure = histograms({split: usable(table).seconds for split, table in sounds.items()},
                        np.geomspace(0.95 * seconds.min(), 1.05 * seconds.max(), 61),
                        "Length of the clips before trimming", "Seconds (logarithmic scale)")
    axes = figure.axes[-1]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def noise_floors(sounds: dict[str, pd.DataFrame]) -> Figure:
    """Plot `noise_floor` of `eda.measure_sounds`."""
    return histograms({split: usable(table).noise_floor for split, table in sounds.items()}, np.linspace(-100, 0, 51),
                      "Noise floor", "10th percentile of the frame levels of a clip (dBFS)")


def histograms(values: dict[str, pd.Series], edges: np.ndarray, title: str, x: str) -> Figure:
    """Plot the share of the clips in each bin, one split above the other, with a dotted line at the median.

    Args:
        values: split -> a value for each clip.
        edges: (bins + 1,).
    """
    figure = new_figure(0.9 + 1.1 * len(values), title)
    for axes, (split, column) in zip(figure.subplots(len(values), sharex=True, squeeze=False)[:, 0], values.items()):
        style_axes(axes, "")
        axes.stairs(np.histogram(column, edges)[0] / len(column), edges, fill=True, color=SPLIT_COLOURS[split])
        axes.axvline(column.median(), color="black", linewidth=1.2, linestyle=":")
        axes.set_title(f"{split}, {len(column):,} clips, median {column.median():.3g}", fontsize=8, loc="left")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(x, fontsize=9)
    figure.supylabel("Share of the clips", fontsize=9)
    return figure


def silence(sounds: dict[str, pd.DataFrame]) -> Figure:
    """Plot the share of the clips that lose at least a given part of their length to trimming."""
    figure = new_figure(3.0, "Silence trimmed from both ends")
    axes = style_axes(figure.subplots(), "Trimmed part of a clip (%)", "Share of the clips with this or more")
    for split, table in sounds.items():
        good = usable(table)
        lost = np.sort(100 * (good.silence_start + good.silence_end) / good.seconds)
        axes.step([*lost, 100], [*np.arange(len(lost), 0, -1) / len(lost), 0], where="pre", color=SPLIT_COLOURS[split],
                  linewidth=1.6, label=f"{split}, {len(lost):,} clips, mean {lost.mean():.1f} %")
    axes.set(xlim=(0, 100), ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(fontsize=8, frameon=False)
    return figure


def calibration(table: pd.DataFrame, error: float) -> Figure:
    """Plot `error_analysis.calibration`, with the expected calibration error in the title."""
    figure = new_figure(5.0, f"Calibration. Expected calibration error: {error:.4f}")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    style_axes(upper, "", "Observed frequency")
    upper.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", label="perfect calibration")
    upper.plot(table.predicted, table.observed, color=BLUE, marker="o", markersize=5, label="this run")
    upper.legend(fontsize=8, frameon=False)
    style_axes(lower, "Predicted probability", "Clips x classes", grid="y")
    lower.bar(table.low, table["count"], table.high - table.low, align="edge", color=SKY, edgecolor="white")
    lower.set_yscale("log")
    return figure


def learning_curves(logs: dict[str, dict[int, pd.DataFrame]], title: str) -> Figure:
    """Plot the score and the losses after each epoch: a thin line for each fold, and a thick one for their mean.

    Args:
        logs: run -> fold -> a row for each epoch: epoch, train_loss, valid_loss and lwlrap.
    """
    figure = new_figure(3.4, title)
    left, right = figure.subplots(1, 2)
    style_axes(left, "Epoch", "lwlrap")
    style_axes(right, "Epoch", "Loss")
    for (run, folds), colour in zip(logs.items(), cycle(COLOURS)):
        mean = pd.concat(folds.values()).groupby("epoch").mean()
        name = escape_name(run)
        lines = [(left, "lwlrap", name, "-")]
        lines += [(right, loss, f"{name}, {label}", line) for loss, (label, line) in LOSSES.items()]
        for axes, column, label, line in lines:
            for log in folds.values():
                axes.plot(log.epoch, log[column], color=colour, linewidth=0.7, alpha=0.4, linestyle=line)
            axes.plot(mean.index, mean[column], color=colour, linewidth=2, linestyle=line, marker=".", label=label)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8, frameon=False)
    return figure


def fold_scores(scores: dict[str, pd.Series]) -> Figure:
    """Plot the score of each fold of each run, with a vertical line at the mean.

    Args:
        scores: run -> lwlrap of each fold, index fold.
    """
    figure = new_figure(1.0 + 0.45 * len(scores), "Fold scores")
    axes = style_axes(figure.subplots(), "lwlrap", grid="x")
    for row, (values, colour) in enumerate(zip(scores.values(), cycle(COLOURS))):
        axes.plot(values, np.full(len(values), row), "o", color=colour, markersize=6, alpha=0.7)
        axes.vlines(values.mean(), row - 0.3, row + 0.3, color=colour, linewidth=2)
        for fold, value in values.items():
            axes.annotate(str(fold), (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=7)
    axes.set_yticks(range(len(scores)), [f"{escape_name(run)}\n{values.mean():.4f}" for run, values in scores.items()])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    return figure
