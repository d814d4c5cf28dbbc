"""The limits of a knob: a range or choices. They are read from a TOML file."""
import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from typeguard import TypeCheckError, check_type

from tagging.errors import TaggingError, did_you_mean, shorten
from tagging.recipe import STAGES, Recipe, Schedule
from tagging.settings import flatten

DEFAULT = Path(__file__).with_name("space.toml")
Limits = CategoricalDistribution | FloatDistribution | IntDistribution
RANGE_KEYS = {"low", "high", "log", "step"}


def read_tables(path: Path) -> dict[str, dict]:
    """Read the tables of a TOML file: knob, such as "curated.lrs", -> its table.

    Raises:
        TaggingError: the file is missing or no TOML, or a table is named after no knob.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaggingError(f"{path} could not be read: {error.strerror}. Check --space.") from error
    except ValueError as error:         # of TOML or of UTF-8
        raise TaggingError(f"{path} is no TOML file: {error}. Compare it with {DEFAULT}.") from error
    names = list(flatten(dataclasses.asdict(Recipe())))
    tables: dict[str, Any] = {}
    for name, value in content.items():
        inner = isinstance(value, dict) and name in STAGES
        tables |= {f"{name}.{key}": table for key, table in value.items()} if inner else {name: value}
    found = {}
    for name, table in tables.items():
        knob = name.replace("-", "_")
        if knob not in names:
            raise TaggingError(f"{path}: there is no knob '{name}'.{did_you_mean(knob, names)} `python "
                               "train_curated.py --help` lists all knobs.")
        if knob in found:
            raise TaggingError(f"{path}: {knob} has two tables. Remove one of them.")
        if not isinstance(table, dict):
            raise TaggingError(f"{path}: {name} must be a table with low and high, or with choices. To fix a knob, "
                               f"remove it here and use the option --{name.replace('_', '-')}.")
        found[knob] = table
    return found


def read_limits(where: str, own: Any, table: dict) -> Limits:
    """Return the limits in a table.

    Args:
        where: file and knob, for messages.
        own: the recipe's value of the knob.
    Raises:
        TaggingError: the table is wrong.
    """
    if "choices" in table:
        return read_choices(where, own, table)
    unknown = sorted(table.keys() - RANGE_KEYS)
    if unknown or not {"low", "high"} <= table.keys():
        raise TaggingError(f"{where}: " + (f"there is no key '{unknown[0]}'." if unknown else "low or high is missing.")
                           + " Give low and high, and log or step if you need them, or give choices.")
    scaled = where.endswith(".lrs")
    number = own[0] if isinstance(own, tuple) and (scaled or len(own) == 1) else own
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TaggingError(f"{where}: the recipe's value is {json.dumps(own)}, so a range does not suit it. Give "
                           "choices.")
    kinds = (int,) if isinstance(number, int) else (int, float)
    low, high, step, logarithmic = (table.get(key) for key in ("low", "high", "step", "log"))
    for key, value in (("low", low), ("high", high), ("step", step)):
        if value is not None and (type(value) not in kinds or not math.isfinite(value)):
            raise TaggingError(f"{where}: {key} = {value!r} must be {'an integer' if kinds == (int,) else 'a number'}.")
    if logarithmic not in (None, True, False):
        raise TaggingError(f"{where}: log must be true or false.")
    assert low is not None and high is not None
    if low >= high:
        raise TaggingError(f"{where}: low = {low} must be below high = {high}.")
    if logarithmic and (low <= 0 or step is not None):
        raise TaggingError(f"{where}: log = true needs low above 0, and no step.")
    if step is not None and (step <= 0 or not on_grid(high, low, step)):
        raise TaggingError(f"{where}: step must be above 0, and high must be low plus a multiple of it.")
    if kinds == (int,):
        return IntDistribution(int(low), int(high), log=bool(logarithmic), step=step or 1)
    return FloatDistribution(float(low), float(high), log=bool(logarithmic), step=step)


def on_grid(value: float, low: float, step: float) -> bool:
    """Whether a value is `low` plus a multiple of `step`."""
    count = (value - low) / step
    return abs(count - round(count)) < 1e-6


def read_choices(where: str, own: Any, table: dict) -> CategoricalDistribution:
    choices = table["choices"]
    if table.keys() != {"choices"} or not isinstance(choices, list) or len(choices) < 2:
        raise TaggingError(f"{where}: choices must be a list of two or more values, and the only key of the table.")
    name = where.rpartition(", ")[2]
    kind = {field.name: field.type for field in dataclasses.fields(Schedule if "." in name else Recipe)}[
        name.rpartition(".")[2]]
    values = []
    for choice in choices:
        value: Any = tuple(choice) if isinstance(choice, list) else choice
        if isinstance(own, tuple) and len(own) == 1 and not isinstance(value, tuple):
            value = (value,)        # one cycle
        if isinstance(own, float) and type(value) is int:
            value = float(value)
        try:
            check_type(value, kind)
        except TypeCheckError as error:
            raise TaggingError(f"{where}: {json.dumps(choice)} does not suit the knob, whose value in the recipe is "
                               f"{json.dumps(own)}.") from error
        if isinstance(value, bool) and not isinstance(own, bool):       # True is a number to Python
            raise TaggingError(f"{where}: {json.dumps(choice)} does not suit the knob, whose value in the recipe is "
                               f"{json.dumps(own)}.")
        values.append(to_param(value, choice=True))
    if len(set(values)) < len(values):
        raise TaggingError(f"{where}: two choices are equal. Remove one of them.")
    return CategoricalDistribution(values)


def to_param(value: Any, choice: bool) -> Any:
    """Return a value as Optuna stores it: a list as its JSON, or its first number if the knob has a range."""
    if not isinstance(value, tuple):
        return value
    return json.dumps(value) if choice else value[0]


def suggest(trial: Trial, name: str, limits: Limits) -> Any:
    """Let Optuna choose a parameter of a trial."""
    if isinstance(limits, CategoricalDistribution):
        return trial.suggest_categorical(name, limits.choices)
    if isinstance(limits, IntDistribution):
        return trial.suggest_int(name, limits.low, limits.high, step=limits.step, log=limits.log)
    return trial.suggest_float(name, limits.low, limits.high, step=limits.step, log=limits.log)


def widened(limits: Limits, param: Any) -> Limits:
    """Return limits that allow a parameter too. A range loses its step or its logarithmic scale if it must."""
    if isinstance(limits, CategoricalDistribution):
        return limits if param in limits.choices else CategoricalDistribution([*limits.choices, param])
    low, high = min(limits.low, param), max(limits.high, param)
    fits = limits.step is not None and on_grid(param, limits.low, limits.step)
    if isinstance(limits, IntDistribution):
        return IntDistribution(int(low), int(high), log=limits.log and low > 0, step=limits.step if fits else 1)
    return FloatDistribution(low, high, log=limits.log and low > 0, step=limits.step if fits else None)


def allows(limits: Limits, param: Any) -> bool:
    """Whether a parameter is within its limits."""
    if isinstance(limits, CategoricalDistribution):
        return param in limits.choices
    return not isinstance(param, str) and widened(limits, param) == limits


def ends(limits: Limits) -> tuple:
    """Return all choices, or both ends of a range."""
    return tuple(limits.choices) if isinstance(limits, CategoricalDistribution) else (limits.low, limits.high)


def describe(limits: Limits) -> str:
    """Return limits as text, such as "0.1 to 0.5 in steps of 0.1"."""
    if isinstance(limits, CategoricalDistribution):
        return shorten([choice if isinstance(choice, str) else json.dumps(choice) for choice in limits.choices])
    step = f" in steps of {limits.step:g}" if limits.step not in (None, 1) else ""
    return f"{limits.low:g} to {limits.high:g}{step}{', logarithmic' if limits.log else ''}"
