"""Recipes and other dataclasses from JSON, whose values can have any type, and the differences of two settings."""
import dataclasses
import re
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from typeguard import TypeCheckError, check_type

from tagging.errors import TaggingError, shorten
from tagging.provenance import show_date
from tagging.recipe import STAGES, Recipe, Schedule
from tagging.schema import upgrade_knobs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")

LONGEST = 100       # characters of a change that is shown as a whole


def recipe_from_dict(knobs: dict) -> Recipe:
    """Rebuild a recipe from the JSON of `dataclasses.asdict`.

    Raises:
        TaggingError: this version does not have a knob, or a value does not suit its knob.
    """
    knobs = upgrade_knobs(knobs)
    return build(Recipe, knobs | {stage: build(Schedule, knobs[stage]) for stage in STAGES})


def build(kind: type[Kind], values: dict) -> Kind:
    return checked(kind, {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def checked(kind: type[Kind], values: dict) -> Kind:
    """Build a dataclass from JSON.

    Raises:
        TaggingError: a value has another type than its field.
    """
    for field in dataclasses.fields(kind):
        value = values.get(field.name, field.default)
        try:
            check_type(value, field.type)
        except TypeCheckError as error:
            raise TaggingError(f"{field.name} has a wrong value: {error}.") from error
        if isinstance(value, bool) and field.type is not bool:      # True is a number to Python, but not to torch
            raise TaggingError(f"{field.name} has a wrong value: {value}.")
    return kind(**values)


def flatten(content: dict, prefix: str = "") -> dict:
    """Flatten nested dictionaries: {'a': {'b': 1}} -> {'a.b': 1}. Tuples become lists, to compare as equal."""
    flat: dict = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def differences(settings: dict, others: dict, with_origin: bool = False) -> list[str]:
    """Return the settings that differ, a line each. Of a long value, the line has only the parts that differ.

    Args:
        with_origin: also compare command, commit and versions.
    """
    old, new = flatten(settings), flatten(others)
    return [f"{name}: {describe_change(old.get(name), new.get(name))}" for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and (with_origin or not name.startswith("made_by."))]


def describe_change(old: object, new: object) -> str:
    """Return how a value changed: both values, or the items that differ if they are too long to read."""
    both = f"{show_value(old)} -> {show_value(new)}"
    if len(both) <= LONGEST:
        return both
    items, others = split_items(old), split_items(new)
    changes = [f"only {side}: {shorten(found, 5)}" for side, found in (
        ("left", list((Counter(items) - Counter(others)).elements())),
        ("right", list((Counter(others) - Counter(items)).elements()))) if found]
    return "; ".join(changes) or "the same in another order"


def show_value(value: object) -> object:
    """Return the first digits of a hash, a date as people write it, and other values as they are."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32,}", value):
        return f"{value[:10]}…"
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:+-]+", value):
        return show_date(value)
    return value


def split_items(value: object) -> list[str]:
    """Return the items of a list, or the words of a text. An option of a command line has its values with it."""
    if isinstance(value, list):
        return list(map(str, value))
    return re.split(r" (?=-)", str(value))
