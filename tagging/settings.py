"""Recipes and other dataclasses from JSON, whose values can have any type, and the differences of two settings."""
import dataclasses
from typing import TYPE_CHECKING, TypeVar

from typeguard import TypeCheckError, check_type

from tagging.errors import TaggingError
from tagging.recipe import STAGES, Recipe, Schedule
from tagging.schema import upgrade_knobs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


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
    """Return the settings that differ, a line each.

    Args:
        with_origin: also compare command, commit and versions.
    """
    old, new = flatten(settings), flatten(others)
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and (with_origin or not name.startswith("made_by."))]
