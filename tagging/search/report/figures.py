"""Figures of a study: importance of the knobs, slices, parallel coordinates and learning curves."""
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from optuna.distributions import CategoricalDistribution

from tagging.reporting.style import BLUE, GREY, ORANGE, VERMILION, escape_name, new_figure, style_axes
from tagging.search.commands import show
from tagging.search.limits import Limits
from tagging.search.space import DIGITS

COLUMNS = 3             # of the slices
SCORE_COLOURS = "viridis"


def show_param(value: object) -> str:
    """Return one of Optuna's parameters as text. Lists are stored as JSON."""
    if isinstance(value, str) and value.startswith("["):
        return show(json.loads(value))
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else show(value)


def importance(shares: pd.Series) -> Figure:
    """Plot the importance of each knob, from 0 to 1, with the most important one at the top."""
    shares = shares.sort_values()
    figure = new_figure(0.9 + 0.3 * len(shares), "Importance of each knob")
    axes = style_axes(figure.subplots(), "Share of the variance of the score", grid="x")
    bars = axes.barh(range(len(shares)), shares, color=BLUE, height=0.7)
    axes.bar_label(bars, [f"{share:.2f}" for share in shares], fontsize=7, padding=2, color=GREY)
    axes.set_yticks(range(len(shares)), [escape_name(name) for name in shares.index])
    axes.set_xlim(0, 1.08 * max(shares.max(), 0.01))
    return figure


def places(values: Sequence[Any], limits: Limits) -> np.ndarray:
    """Return where parameters are within their limits, from 0 to 1, with the scale of the limits."""
    if isinstance(limits, CategoricalDistribution):
        return np.array([limits.to_internal_repr(value) for value in values]) / max(1, len(limits.choices) - 1)
    numbers = np.array(values, float)
    if limits.log:
        return np.log(numbers / limits.low) / np.log(limits.high / limits.low)
    return (numbers - limits.low) / (limits.high - limits.low)


def scale_axis(axes: Axes, limits: Limits) -> None:
    """Label the x-axis, from 0 to 1, with values of the knob."""
    if isinstance(limits, CategoricalDistribution):
        labels = [show_param(choice) for choice in limits.choices]
        rotation = 30 if sum(map(len, labels)) > 24 else 0
        axes.set_xticks(places(limits.choices, limits), [escape_name(label) for label in labels], rotation=rotation)
    else:
        ticks = (np.geomspace if limits.log else np.linspace)(limits.low, limits.high, 5)
        axes.set_xticks(np.linspace(0, 1, 5), [f"{tick:.3g}" for tick in ticks])
    axes.set_xlim(-0.06, 1.06)


def slices(trials: pd.DataFrame, space: dict[str, Limits]) -> Figure:
    """Plot the score against each knob.

    Args:
        trials: a row for each complete or pruned trial: number, state, score, best, and a column for each knob. NaN is
            a knob that the trial did not have.
        space: knob -> its limits.
    """
    rows = -(-len(space) // COLUMNS)
    figure = new_figure(0.9 + 2.2 * rows, "Score by knob")
    panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel()
    complete, pruned = trials[trials.state == "complete"], trials[trials.state == "pruned"]
    for axes, (name, limits) in zip(panels, space.items()):
        style_axes(axes, escape_name(name))
        scale_axis(axes, limits)
        for table, style in ((complete[~complete.best], {"color": BLUE, "alpha": 0.6}),
                             (complete[complete.best], {"color": ORANGE, "markersize": 9, "markeredgecolor": "black"})):
            table = table[table[name].notna()]
            axes.plot(places(list(table[name]), limits), table.score, "o", **style)
        known = pruned[name].dropna()
        axes.plot(places(list(known), limits), np.full(len(known), 0.02), "|", color=VERMILION, markersize=8,
                  transform=axes.get_xaxis_transform())
    for axes in panels[len(space):]:
        axes.set_visible(False)
    figure.supylabel("lwlrap", fontsize=9)
    return figure


def parallel_coordinates(trials: pd.DataFrame, space: dict[str, Limits]) -> Figure:
    """Plot each complete trial as a line through its knobs. The colour is its score, and the best one is thick.

    Args:
        trials, space: as for `slices`.
    """
    table = trials[trials.state == "complete"].dropna(subset=list(space)).sort_values("score")
    figure = new_figure(4.6, "Parallel coordinates")
    axes = figure.subplots()
    columns = [places(list(table[name]), limits) for name, limits in space.items()]
    span = np.ptp(table.score) or 1.0
    heights = np.column_stack([*columns, (table.score - table.score.min()) / span])      # (trials, knobs + 1)
    norm = Normalize(table.score.min(), table.score.max())
    axes.add_collection(LineCollection(
        [np.column_stack([np.arange(heights.shape[1]), line]) for line in heights], cmap=SCORE_COLOURS, norm=norm,
        array=table.score.to_numpy(), linewidths=[3.0 if best else 1.2 for best in table.best], alpha=0.8))
    for place, limits in enumerate(space.values()):
        for height, label in axis_labels(limits):
            axes.text(place - 0.03, height, escape_name(label), fontsize=7, ha="right", va="center", color=GREY)
    for height, score in ((0.0, table.score.min()), (1.0, table.score.max())):
        axes.text(heights.shape[1] - 1 + 0.03, height, f"{score:.4f}", fontsize=7, va="center", color=GREY)
    axes.set_xticks(range(heights.shape[1]), [*map(escape_name, space), "lwlrap"], rotation=20, fontsize=8)
    axes.vlines(range(heights.shape[1]), 0, 1, color="#bbbbbb", linewidth=0.8)
    axes.set(xlim=(-0.6, heights.shape[1] - 0.5), ylim=(-0.05, 1.05), yticks=[])
    axes.spines[:].set_visible(False)
    return figure


def axis_labels(limits: Limits) -> list[tuple[float, str]]:
    """Return heights from 0 to 1 on the axis of a knob, and the values there: all choices, or both ends."""
    if isinstance(limits, CategoricalDistribution):
        return list(zip(places(limits.choices, limits), map(show_param, limits.choices)))
    return [(0.0, f"{limits.low:.3g}"), (1.0, f"{limits.high:.3g}")]


def curves(legs: dict[str, dict[int, pd.Series]], states: pd.Series, best: int | None) -> Figure:
    """Plot the score after each epoch of all trials. A cross marks where a trial was pruned.

    Args:
        legs: competition and fold -> number of a trial -> score, index epoch.
        states: number of a trial -> complete, pruned, failed or running.
    """
    figure = new_figure(0.9 + 2.8 * len(legs), "Learning curves")
    for axes, (title, trials) in zip(figure.subplots(len(legs), squeeze=False)[:, 0], legs.items()):
        style_axes(axes, "Epoch", "lwlrap")
        axes.set_title(escape_name(title), fontsize=8, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, 0.5 + max(scores.index[-1] for scores in trials.values()))
        for number, scores in trials.items():
            colour, width, order = curve_style(states[number], number == best)
            axes.plot(scores.index, scores, ".-", color=colour, markersize=3, linewidth=width, alpha=0.8, zorder=order)
            if states[number] == "pruned":
                axes.plot(scores.index[-1], scores.iloc[-1], "x", color=VERMILION, markersize=6, zorder=order)
    entries = {"best": Line2D([], [], color=ORANGE, linewidth=2.5), "complete": Line2D([], [], color=BLUE),
               "pruned": Line2D([], [], color=VERMILION, marker="x", linewidth=0.8),
               "failed or running": Line2D([], [], color=GREY, linewidth=0.8)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def curve_style(state: str, best: bool) -> tuple[str, float, int]:
    """Return colour, width and order of the curve of a trial."""
    if best:
        return ORANGE, 2.5, 4
    return {"complete": (BLUE, 1.0, 3), "pruned": (VERMILION, 0.8, 2)}.get(state, (GREY, 0.8, 1))

