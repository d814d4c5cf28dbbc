"""One function a picture, from the tables of `explore` and `mistakes` and from logs, to a matplotlib Figure.

Never pyplot, and never rcParams: both are global, and a page draws in several threads. The colours are Okabe and Ito's,
which colour-blind people can tell apart.
"""
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from tagging.reporting.eda import join_splits, usable
from tagging_lite.pictures import short

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
SPLIT_COLOURS = {"curated": BLUE, "noisy": ORANGE, "test": GREEN}
GREY = "#666666"
WIDTH = 9.0             # inches of every picture
MATRIX_CLASSES = 24     # in a heat map: with more, nobody can read the numbers


def plain(name: str) -> str:
    """A name as matplotlib can draw it: not too long, and no dollar that would begin a formula."""
    return short(name, 36).replace("$", r"\$")


def new_figure(height: float, title: str) -> Figure:
    """A picture of so many inches."""
    figure = Figure((WIDTH, height), layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def dress(axes: Axes, x: str, y: str = "", grid: str = "both") -> Axes:
    """Name the axes, and take away what is not data."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def labels_by_class(counts: pd.DataFrame) -> Figure:
    """`eda.labels_by_class`, the class with the most clips first."""
    counts = counts.sort_values(list(counts), ascending=False, kind="stable").rename(index=plain)
    return class_bars(counts, "Clips that have each label",
                      {split: (f"{split} clips", SPLIT_COLOURS[split], "{:.0f}") for split in counts})


def score_by_class(table: pd.DataFrame) -> Figure:
    """`error_analysis.score_by_class`, the worst class first: its score, and what it costs the score of all."""
    table = table.sort_values("lwlrap", kind="stable")
    table = table.assign(cost=table.weight * (1 - table.lwlrap)).set_axis(
        [f"{plain(name)} ({clips:,})" for name, clips in table.clips.items()])
    total = (table.lwlrap * table.weight).sum()
    figure = class_bars(table, f"Score by class (and its clips); all labels together {total:.4f}",
                        {"lwlrap": ("lwlrap", BLUE, "{:.3f}"),
                         "cost": (f"its share of the {1 - total:.4f} that are lost", SKY, "{:.4f}")})
    figure.axes[0].axvline(total, color=VERMILION, linewidth=1.2)
    return figure


def class_bars(table: pd.DataFrame, title: str, panels: dict[str, tuple[str, str, str]]) -> Figure:
    """Horizontal bars, the classes from top to bottom as in the table.

    Args:
        panels: for each column that is shown, the name of its axis, its colour, and how its numbers are written.
    """
    rows = np.arange(len(table))
    figure = new_figure(1.0 + 0.18 * len(table), title)
    for axes, (column, (label, colour, form)) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0],
                                                     panels.items()):
        bars = dress(axes, label, grid="x").barh(rows, table[column].fillna(0), color=colour, height=0.75)
        axes.bar_label(bars, ["-" if pd.isna(value) else form.format(value) for value in table[column]],
                       fontsize=7, padding=2, color=GREY,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4})
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=pd.api.types.is_integer_dtype(table[column])))
        axes.margins(x=0.12)
    figure.axes[0].set_yticks(rows, table.index)
    figure.axes[0].set_ylim(len(table) - 0.4, -0.6)
    return figure


def labels_a_clip(counts: pd.DataFrame) -> Figure:
    """`eda.labels_a_clip`, each split by itself, because one may have many more clips."""
    counts = counts[counts.any(axis=1)]
    figure = new_figure(3.0, "Labels a clip")
    axes = dress(figure.subplots(), "labels of a clip", "share of the clips", grid="y")
    width = 0.8 / len(counts.columns)
    for place, (split, clips) in enumerate(counts.items()):
        bars = axes.bar(counts.index + (place + 0.5) * width - 0.4, clips / clips.sum(), width,
                        color=SPLIT_COLOURS[split], label=f"{split}, {clips.sum():,} clips")
        axes.bar_label(bars, [f"{count:,}" if count else "" for count in clips], fontsize=7, padding=2, color=GREY)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.margins(y=0.1)
    axes.set_xticks(counts.index)
    axes.legend(fontsize=8, frameon=False)
    return figure


def co_occurrence(counts: pd.DataFrame, split: str) -> Figure:
    """`eda.co_occurrence` of a split, as the share of the row's clips that have the column's label too."""
    clips = np.diag(counts)
    return matrix(counts - np.diag(clips), clips, f"Labels that occur together, {split}",
                  "% of the clips of the row's class that have this label too", "clips of this class")


def confusions(counts: pd.DataFrame, truth: pd.DataFrame) -> Figure:
    """`error_analysis.confusions`, as the share of the row's labels that the column's class beats."""
    return matrix(counts, truth.sum().to_numpy(), "Labels and the classes that beat them",
                  "% of the labels of the row's class that this class beats", "true labels of this class")


def matrix(counts: pd.DataFrame, totals: np.ndarray, title: str, x: str, y: str) -> Figure:
    """A heat map of `counts`, each row in per cent of its total. The classes of the most frequent pairs come first, and
    of more classes than can be read they are the ones that are shown."""
    values = counts.to_numpy()
    ranked = np.argsort(-values, axis=None, kind="stable")[:np.count_nonzero(values)]
    pairs = np.stack(np.unravel_index(ranked, values.shape), 1)                         # (pairs, 2)
    order = list(dict.fromkeys([*pairs.ravel().tolist(), *range(len(values))]))[:MATRIX_CLASSES]
    shares = (100 * values / np.maximum(totals, 1)[:, None])[np.ix_(order, order)]      # (shown, shown)
    names = [plain(counts.index[number]) for number in order]
    if len(order) < len(values):
        title += f": {len(order)} of {len(values)} classes, those of the most frequent pairs"
    figure = new_figure(2.6 + 0.25 * len(order), title)
    axes = dress(figure.subplots(), x, y)
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
    """`seconds` of `eda.measure_sounds`."""
    seconds = usable(join_splits(sounds)).seconds
    figure = histograms({split: usable(table).seconds for split, table in sounds.items()},
                        np.geomspace(0.95 * seconds.min(), 1.05 * seconds.max(), 61),
                        "Length of the clips before trimming", "seconds, on a logarithmic scale")
    axes = figure.axes[-1]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def noise_floors(sounds: dict[str, pd.DataFrame]) -> Figure:
    """`noise_floor` of `eda.measure_sounds`."""
    return histograms({split: usable(table).noise_floor for split, table in sounds.items()}, np.linspace(-100, 0, 51),
                      "Noise floor", "dBFS: how loud a clip is where it is quietest")


def histograms(values: dict[str, pd.Series], edges: np.ndarray, title: str, x: str) -> Figure:
    """Share of each split's clips in each bin, one split above the other, with lines at the medians."""
    figure = new_figure(0.9 + 1.1 * len(values), title)
    for axes, (split, column) in zip(figure.subplots(len(values), sharex=True, squeeze=False)[:, 0], values.items()):
        dress(axes, "")
        axes.stairs(np.histogram(column, edges)[0] / len(column), edges, fill=True, color=SPLIT_COLOURS[split])
        axes.axvline(column.median(), color="black", linewidth=1.2, linestyle=":")
        axes.set_title(f"{split}, {len(column):,} clips, median {column.median():.3g}", fontsize=8, loc="left")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(x, fontsize=9)
    figure.supylabel("share of the clips", fontsize=9)
    return figure


def silence(sounds: dict[str, pd.DataFrame]) -> Figure:
    """How many clips lose how much of their length where the silence at both ends is trimmed off."""
    figure = new_figure(3.0, "Silence trimmed off both ends")
    axes = dress(figure.subplots(), "% of a clip", "share of clips that lose so much or more")
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
    """`error_analysis.calibration`, and its expected calibration error."""
    figure = new_figure(5.0, f"Calibration; expected calibration error {error:.4f}")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    dress(upper, "", "share that is true")
    upper.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", label="as they should be")
    upper.plot(table.predicted, table.observed, color=BLUE, marker="o", markersize=5, label="as they are")
    upper.legend(fontsize=8, frameon=False)
    dress(lower, "predicted probability", "clips x classes", grid="y")
    lower.bar(table.low, table["count"], table.high - table.low, align="edge", color=SKY, edgecolor="white")
    lower.set_yscale("log")
    return figure


def learning_curves(logs: dict[str, dict[int, pd.DataFrame]], title: str) -> Figure:
    """Scores and losses after each epoch: each fold as a thin line, their mean as a thick one.

    Args:
        logs: by run, by fold: a row an epoch.
    """
    figure = new_figure(3.4, title)
    left, right = figure.subplots(1, 2)
    dress(left, "epoch", "lwlrap")
    dress(right, "epoch", "loss")
    for (run, folds), colour in zip(logs.items(), cycle(COLOURS)):
        mean = pd.concat(folds.values()).groupby("epoch").mean()
        for axes, column, line in ((left, "lwlrap", "-"), (right, "train_loss", ":"), (right, "valid_loss", "-")):
            for log in folds.values():
                axes.plot(log.epoch, log[column], color=colour, linewidth=0.7, alpha=0.4, linestyle=line)
            label = plain(run) if axes is left else f"{plain(run)}, {column.split('_')[0]}"
            axes.plot(mean.index, mean[column], color=colour, linewidth=2, linestyle=line, marker=".", label=label)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8, frameon=False)
    return figure


def fold_scores(scores: dict[str, pd.Series]) -> Figure:
    """The score of each fold of each run, with the mean as a line.

    Args:
        scores: by run: lwlrap, index fold.
    """
    figure = new_figure(1.0 + 0.45 * len(scores), "Fold scores")
    axes = dress(figure.subplots(), "lwlrap", grid="x")
    for row, (values, colour) in enumerate(zip(scores.values(), cycle(COLOURS))):
        axes.plot(values, np.full(len(values), row), "o", color=colour, markersize=6, alpha=0.7)
        axes.vlines(values.mean(), row - 0.3, row + 0.3, color=colour, linewidth=2)
        for fold, value in values.items():
            axes.annotate(str(fold), (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=7)
    axes.set_yticks(range(len(scores)), [f"{plain(run)}\n{values.mean():.4f}" for run, values in scores.items()])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    return figure
