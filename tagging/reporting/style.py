"""Figures of matplotlib: their common style, and charts as figures for programs that take only pictures.

The functions do not use pyplot or rcParams: both are global, and servers draw in several threads.
"""
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tagging.reporting.charts import Bars, Dots, Matrix, Plot
from tagging_lite.pictures import shorten_name

# Okabe and Ito, "Color Universal Design", 2008. Colour-blind people can distinguish these colours.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
GREY = "#666666"
TONES = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "red": VERMILION, "sky": SKY, "purple": PURPLE, "grey": GREY}
WIDTH = 9.0             # inches of every figure


def escape_name(name: str) -> str:
    """Return a name that matplotlib can draw: not too long, and without dollar signs that would start a formula."""
    return escape_formula(shorten_name(name, 36))


def new_figure(height: float, title: str) -> Figure:
    """Create an empty figure with a title. `height` is in inches."""
    figure = Figure((WIDTH, height), layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def style_axes(axes: Axes, x: str, y: str = "", grid: Literal["both", "x", "y"] = "both") -> Axes:
    """Label the axes with `x` and `y`, draw a light grid, and remove the upper and right border."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def draw_chart(chart: Bars | Plot | Dots | Matrix) -> Figure:
    """Draw a chart as a figure, for example for a tracker of runs."""
    if isinstance(chart, Bars):
        return draw_bars(chart)
    if isinstance(chart, Plot):
        return draw_plot(chart)
    return draw_dots(chart) if isinstance(chart, Dots) else draw_matrix(chart)


def draw_bars(chart: Bars) -> Figure:
    figure = new_figure(1.0 + 0.18 * len(chart.names), escape_formula(chart.title))
    rows = np.arange(len(chart.names))
    panels = figure.subplots(1, len(chart.columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, chart.columns):
        bars = style_axes(axes, column.label, grid="x").barh(rows, np.nan_to_num(column.values),
                                                            color=[TONES[tone] for tone in column.tones], height=0.75)
        axes.bar_label(bars, column.texts, fontsize=7, padding=2, color=GREY)
        axes.margins(x=0.12)
    panels[0].set_yticks(rows, [escape_name(name) for name in chart.names])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def draw_plot(chart: Plot) -> Figure:
    figure = new_figure(3.4, escape_formula(chart.title))
    axes = style_axes(figure.subplots(), chart.x.label, chart.y.label)
    for line in chart.lines:
        axes.plot(*line.places.T, color=TONES[line.tone], label=escape_name(line.name) if line.name else None,
                  linewidth=0 if "dotted" in line.style else 0.7 if "thin" in line.style else 1.6,
                  linestyle="--" if "dashed" in line.style else "-", marker="o" if "dotted" in line.style else "",
                  markersize=4)
    axes.set_xticks([tick.place for tick in chart.x.ticks], [tick.text for tick in chart.x.ticks])
    axes.set_yticks([tick.place for tick in chart.y.ticks], [tick.text for tick in chart.y.ticks])
    if any(line.name for line in chart.lines):
        axes.legend(fontsize=8, frameon=False)
    return figure


def draw_dots(chart: Dots) -> Figure:
    figure = new_figure(1.0 + 0.45 * len(chart.rows), escape_formula(chart.title))
    axes = style_axes(figure.subplots(), "lwlrap", grid="x")
    for number, row in enumerate(chart.rows):
        axes.plot(row.places, np.full(len(row.places), number), "o", color=BLUE, alpha=0.7)
        axes.vlines(row.mean, number - 0.3, number + 0.3, color=BLUE, linewidth=2)
    axes.set_yticks(range(len(chart.rows)), [f"{escape_name(row.name)}\n{row.summary}" for row in chart.rows])
    axes.set_xticks([0, 100], [chart.low, chart.high])
    axes.set_ylim(len(chart.rows) - 0.5, -0.5)
    return figure


def draw_matrix(chart: Matrix) -> Figure:
    size = len(chart.names)
    figure = new_figure(2.6 + 0.16 * size, escape_formula(chart.title))
    axes = style_axes(figure.subplots(), escape_formula(chart.corner))
    axes.grid(False)
    axes.imshow([[cell.level for cell in cells] for _, cells in chart.rows], cmap="Blues", aspect="auto")
    names = [escape_name(name) for name in chart.names]
    axes.set_xticks(range(size), names, rotation=90)
    axes.set_yticks(range(size), names)
    axes.tick_params(labelsize=8 if size <= 24 else 5)
    return figure


def escape_formula(text: str) -> str:
    """Return a text whose dollar signs do not start a formula."""
    return text.replace("$", r"\$")
