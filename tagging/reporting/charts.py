"""Charts as data. `templates/blocks.html` turns them into HTML, whose text keeps its size on screens of any width.

The reports and the page show them. They need no script, and follow the light or dark mode of the browser.
"""
import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tagging_lite.pictures import frequency_ticks, nice_ticks, spectrogram_png

TONES = ("blue", "orange", "green", "purple", "red", "sky", "grey")     # classes of the style sheet
SPLIT_TONES = {"curated": "blue", "noisy": "orange", "test": "green"}
STEP = 10                   # levels of colour in a matrix


@dataclass(frozen=True)
class Column:
    """A column of bars.

    Attributes:
        label: heading.
        values: lengths; NaN has no bar, and a negative number has that of its absolute value.
        form: value -> text beside the bar.
        end: value of a full bar, by default the largest one.
    """
    label: str
    values: Sequence[float]
    form: Callable[[float], str] = "{:.2f}".format
    tone: str | Sequence[str] = "blue"      # of all bars, or of each
    end: float = 0.0

    @property
    def widths(self) -> list[float]:
        """The lengths of the bars in percent."""
        values = np.abs(np.nan_to_num(np.asarray(self.values, float)))
        end = self.end or max(values.max(initial=0), 1e-12)
        return [round(100 * float(value), 2) for value in np.clip(values / end, 0, 1)]

    @property
    def tones(self) -> list[str]:
        return [self.tone] * len(self.values) if isinstance(self.tone, str) else list(self.tone)

    @property
    def texts(self) -> list[str]:
        return ["-" if pd.isna(value) else self.form(value) for value in self.values]


@dataclass(frozen=True)
class Bars:
    """A table with a bar in each cell. The first name is at the top.

    Attributes:
        label: heading of the names.
        marked: names that are labels of the clip.
    """
    title: str
    label: str
    names: Sequence[str]
    columns: Sequence[Column]
    marked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""
    place: float        # percent of the length of the axis
    text: str


@dataclass(frozen=True)
class Axis:
    """An axis of a plot, linear unless `scale` is given."""
    label: str
    low: float
    high: float
    form: Callable[[float], str] = "{:g}".format
    count: int = 5                              # ticks, at most
    chosen: Sequence[float] = ()                # values of the ticks, by default round ones
    scale: Callable[[np.ndarray], np.ndarray] = field(default=np.asarray)

    def places(self, values: Sequence[float] | np.ndarray | pd.Series) -> np.ndarray:
        """Return the positions of values in percent."""
        low, high = self.scale(np.array([self.low, self.high], float))
        return 100 * (self.scale(np.asarray(values, float)) - low) / ((high - low) or 1)

    @property
    def ticks(self) -> list[Tick]:
        values = [value for value in self.chosen if self.low <= value <= self.high] if len(self.chosen) else (
            nice_ticks(self.low, self.high, self.count))
        return [Tick(round(float(place), 2), self.form(value)) for place, value in zip(self.places(values), values)]


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Attributes:
        places: (points, 2) of x and y in percent.
        name: text of the legend; "" leaves the line out of it.
        style: classes of the style sheet: thin, dashed, dotted.
    """
    places: np.ndarray
    name: str = ""
    tone: str = "blue"
    style: str = ""

    @property
    def path(self) -> str:
        """The line as the path of an svg, whose y axis goes down."""
        points = [(round(float(x), 2), round(100 - float(y), 2)) for x, y in self.places
                  if math.isfinite(x) and math.isfinite(y)]
        if "dotted" in self.style:
            return "".join(f"M{x} {y}h0" for x, y in points)
        return "M" + "L".join(f"{x} {y}" for x, y in points) if points else ""


@dataclass(frozen=True)
class Plot:
    """Lines over two axes. `description` tells readers who do not see them what they show."""
    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    description: str


@dataclass(frozen=True)
class DotRow:
    """A row of `Dots`: places in percent, and texts."""
    name: str
    summary: str
    places: Sequence[float]
    mean: float
    text: str


@dataclass(frozen=True)
class Dots:
    """The fold scores of runs: a row for each run, a dot for each fold. All rows share an axis from `low` to `high`."""
    title: str
    rows: Sequence[DotRow]
    low: str
    high: str


@dataclass(frozen=True)
class Cell:
    """A cell of a matrix."""
    count: int
    level: int          # of colour, from 0 to STEP
    text: str
    hint: str           # a sentence


@dataclass(frozen=True)
class Matrix:
    """A heat map of all classes. `kind` tells the page what a cell leads to."""
    title: str
    corner: str
    names: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    kind: str


@dataclass(frozen=True)
class Spectrogram:
    """The log-mel spectrogram of a clip, with the ticks of its axes."""
    title: str
    picture: str        # PNG in base64
    x: Sequence[Tick]
    y: Sequence[Tick]

    @classmethod
    def of(cls, wave: np.ndarray, sample_rate: int, title: str) -> "Spectrogram":
        """Draw (samples,) int16 at `sample_rate` Hz."""
        seconds = Axis("", 0, len(wave) / sample_rate, lambda value: f"{value:g} s")
        return cls(title, base64.b64encode(spectrogram_png(wave, sample_rate)).decode(), seconds.ticks,
                   [Tick(place, text) for place, text in frequency_ticks(sample_rate)])


Chart = Bars | Plot | Dots | Matrix | Spectrogram
