"""HTML pages from sections. A page is one file that needs no other file, no network and no script."""
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from tagging.data.competition import Competition
from tagging.reporting.sections import Section, run_sections
from tagging.run import StageFolder
from tagging.utils.files import atomic
from tagging_lite.pictures import png

DPI = 130       # of the figures. A page shows them a little smaller, so they are sharp.


def write_run_report(folder: StageFolder, competition: Competition) -> Path:
    """Write models/RUN/report.html about the finished folds of a stage, and return its path.

    Raises:
        TaggingError: no fold is finished, a file of the run is damaged, or the page cannot be written.
    """
    path = folder.path.parent / "report.html"
    with folder.lock():     # if several processes train folds, the last one writes the report of all folds
        write_page(path, f"Run {folder.run}", f"This is the {folder.path.name} stage. Scores and errors are "
                   "out-of-fold: no clip was predicted by a model that was trained on it.",
                   run_sections(folder, competition))
    return path


def write_page(path: Path, title: str, text: str, sections: Sequence[Section]) -> None:
    """Write sections as one HTML file. All names and texts are escaped.

    Raises:
        TaggingError: the file cannot be written.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": format_cell, "picture": encode_figure}
    environment.tests |= {"figure": lambda block: isinstance(block, Figure),
                          "frame": lambda block: isinstance(block, pd.DataFrame),
                          "section": lambda block: isinstance(block, Section)}
    page = environment.get_template("page.html").render(title=title, text=text, sections=sections)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")    # a path that is not UTF-8


def encode_figure(figure: Figure) -> str:
    """Return a figure as PNG in base64, for a data URL."""
    return base64.b64encode(png(figure, DPI)).decode()


def format_cell(value: Any) -> str:
    """Return a value of a table as text: "-" if it is missing, thousands with commas, and fractions rounded."""
    if pd.isna(value):
        return "-"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.{3 if abs(value) < 10 else 1}f}" if isinstance(value, float) else str(value)
