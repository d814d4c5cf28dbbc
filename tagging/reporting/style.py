"""The common style of the plots: colours, figures and axes.

The functions do not use pyplot or rcParams: both are global, and servers draw in several threads.
"""
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tagging_lite.pictures import shorten_name

# Okabe and Ito, "Color Universal Design", 2008. Colour-blind people can distinguish these colours.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
YELLOW = "#F0E442"
GREY = "#666666"
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW)
SPLIT_COLOURS = {"curated": BLUE, "noisy": ORANGE, "test": GREEN}
WIDTH = 9.0             # inches of every figure


def escape_name(name: str) -> str:
    """Return a name that matplotlib can draw: not too long, and without dollar signs that would start a formula."""
    return shorten_name(name, 36).replace("$", r"\$")


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
