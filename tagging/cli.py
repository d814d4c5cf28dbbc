"""The command lines of what works on clips, made from dataclasses."""
import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from tagging.errors import TaggingError
from tagging.recipe import RECIPES, Recipe
from tagging.run import stage_folder

Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class Common:
    """What all three scripts on clips take."""
    data: Path                              # competition folder, as Kaggle or Zenodo give it
    models: Path = Path("models")           # where the runs lie
    cache: Path = Path("data/cache")        # where decoded clips are kept; as large as the clips themselves
    device: str = "auto"                    # auto is the GPU where there is one
    skip_bad_clips: bool = False            # leave out clips that cannot be used, by name


@dataclass(frozen=True, kw_only=True)
class Train(Common):
    """What both stages take."""
    run: str                                # name of the run: models/RUN
    recipe: str                             # the named recipe whose knobs, below, are the defaults
    accumulate: int = 1                     # parts of a batch, for little memory; batch norm then sees the parts
    folds: tuple[int, ...] = ()             # which folds to train; all, if none is named
    devices: tuple[str, ...] = ()           # train a fold on each of several devices: 0 1 2 3 for four GPUs
    knobs: Annotated[Recipe, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class TrainCurated(Train):
    """Stage 2 also says what it starts from. Without --recipe it takes stage 1's settings."""
    noisy_run: str = ""                     # the run whose stage 1 it starts from; default is the run itself
    from_scratch: bool = False              # start from random weights
    noisy_labels: Path | None = None        # csv of soft labels for the noisy clips (tools.relabel)


def parse(kind: type[Arguments], description: str) -> Arguments:
    """Parse the command line, without a knob's default being written twice: it is the chosen recipe's.

    Raises:
        TaggingError: an unknown recipe, or a knob out of its range.
    """
    if not issubclass(kind, Train):
        return tyro.cli(kind, description=description)
    # The recipe has to be known before the knobs can be parsed, so the words that choose it are looked at first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe")
    first.add_argument("--run")
    first.add_argument("--noisy-run")
    first.add_argument("--models", default="models")
    first.add_argument("--from-scratch", action="store_true")
    # tyro takes --noisy_run for --noisy-run too.
    words, _ = first.parse_known_args([re.sub(r"^--[\w-]+", lambda option: option[0].replace("_", "-"), word)
                                       for word in sys.argv[1:]])
    name, knobs = words.recipe or "capstone", None
    if words.recipe is None and kind is TrainCurated and words.run and not words.from_scratch:
        stage1 = stage_folder(words.models, words.noisy_run or words.run, "noisy")
        if stage1.settings_path.exists():
            name, knobs = f"that of {stage1}", stage1.recipe()
    if knobs is None and name not in RECIPES:
        raise TaggingError(f"--recipe '{name}' is unknown. Choose {', '.join(RECIPES)}.")
    default = kind(data=tyro.MISSING, run=tyro.MISSING, recipe=name, knobs=knobs or RECIPES[name])
    return tyro.cli(kind, description=description, default=default)
