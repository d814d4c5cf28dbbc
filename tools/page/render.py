"""Sections of reports, and the page, as HTML."""
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from tagging.reporting.report import make_environment
from tagging.reporting.sections import Block, Section

HERE = Path(__file__).parent


@cache
def environment() -> Environment:
    return make_environment(HERE / "templates")


def render(template: str, **values: Any) -> str:
    """Fill a template. All names and texts are escaped."""
    return environment().get_template(template).render(**values)


def show(block: Block, title: str, level: int = 3) -> str:
    """Return a block of a section as HTML."""
    return str(environment().get_template("blocks.html").module.show(block, title, level))  # type: ignore[attr-defined]


def show_sections(sections: list[Section], prefix: str) -> str:
    """Return sections as HTML, with headings of the third level."""
    return str(environment().get_template("blocks.html").module.sections(sections, 3, prefix))  # type: ignore[attr-defined]
