"""HTML pages from sections. A page is one file that needs no other file and no network.

Its one script sorts the tables. The page can be read without it.
"""
import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from tagging.data.competition import Competition
from tagging.reporting.sections import Section, run_sections
from tagging.run import StageFolder
from tagging.utils.files import atomic
from tagging_lite.pictures import png, printable, shorten_name

TEMPLATES = Path(__file__).parent / "templates"
DPI = 130           # of figures. A page shows them a little smaller, so they are sharp.
NAME_WIDTH = 26     # Latin letters of a name beside a matrix


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
    script = Markup((TEMPLATES / "sort.js").read_text(encoding="utf-8"))
    # Of all scripts, the browser runs only the one with this hash: a name in the data cannot add another.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = make_environment().get_template("page.html").render(title=title, text=text, sections=sections,
                                                               script=script, script_hash=digest)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")    # a path that is not UTF-8


def make_environment(*folders: Path) -> Environment:
    """Return jinja2's environment with the templates of this package, and of more folders. It escapes all texts."""
    environment = Environment(loader=FileSystemLoader([TEMPLATES, *folders]),
                              autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": format_cell, "printable": printable, "picture": encode_figure,
                            "breakable": breakable, "short": lambda name: shorten_name(name, NAME_WIDTH)}
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment


def breakable(text: str) -> Markup:
    """Escape a text, and let long names break after their underscores on narrow screens."""
    return Markup(str(escape(printable(text))).replace("_", "_<wbr>"))


def encode_figure(figure: Figure) -> str:
    """Return a figure as PNG in base64, for a data URL."""
    return base64.b64encode(png(figure, DPI)).decode()


def format_cell(value: Any) -> str:
    """Return a value of a table as text: "-" if it is missing, thousands with commas, and fractions rounded."""
    if pd.isna(value):
        return "-"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.{3 if abs(value) < 10 else 1}f}" if isinstance(value, float) else printable(str(value))
