"""Recipes as words of a command line, their differences as text, and the commands that train a trial."""
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tagging.recipe import RECIPES, Recipe
from tagging.settings import flatten


def knob_words(recipe: Recipe, base: str) -> list[str]:
    """Return the options that turn the named recipe `base` into `recipe`."""
    words = []
    for name, value in changed(recipe, RECIPES[base]).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    return words


def changed(recipe: Recipe, other: Recipe) -> dict[str, Any]:
    """Return the knobs whose values differ from another recipe, such as {"curated.lrs": [0.001]}."""
    before = flatten(asdict(other))
    return {name: value for name, value in flatten(asdict(recipe)).items() if value != before[name]}


def show(value: Any) -> str:
    """Return the value of a knob as text: numbers of a list are separated by blanks, as on the command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(show, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def show_changes(recipe: Recipe, other: Recipe) -> str:
    """Return the knobs that differ from another recipe as text."""
    return ", ".join(f"{name} {show(value)}" for name, value in changed(recipe, other).items()) or "the recipe itself"


@dataclass(frozen=True)
class Trainings:
    """How trials are trained, apart from their recipes.

    Attributes:
        data: name of each competition -> its folder.
        stages: in the order of training.
        words: options that all trainings have.
        last_words: options of the curated stage, such as --from-scratch.
    """
    data: dict[str, Path]
    stages: tuple[str, ...]
    words: tuple[str, ...]
    last_words: tuple[str, ...]

    def commands(self, recipe: Recipe, name: str, base: str) -> Iterator[tuple[str, list[str]]]:
        """Yield stage and words of each training of a recipe on a competition.

        Args:
            base: the named recipe, whose values are left out.
        """
        for stage in self.stages:
            last = self.last_words if stage == "curated" else ()
            yield stage, [f"train_{stage}.py", "--data", str(self.data[name]), "--recipe", base, *self.words, *last,
                          *knob_words(recipe, base)]
