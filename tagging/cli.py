"""Command lines, generated from dataclasses with tyro. The groups that scripts share are in `tagging.options`."""
import contextlib
import faulthandler
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NoReturn, TextIO, TypeVar, get_type_hints

import tyro

from tagging.errors import TaggingError, did_you_mean, visible
from tagging.options import DataOptions, DeviceOption, Flat, ModelsOption, shown_default
from tagging.recipe import (
    NAMED_RECIPES,
    RECIPES,
    AudioKnobs,
    AugmentationKnobs,
    EvaluationKnobs,
    NetworkKnobs,
    Recipe,
    Schedule,
    TrainingKnobs,
)
from tagging.schema import require_trainable
from tagging.utils import interrupts
from tagging.utils.logs import show_logs, write_event
from tagging_lite.console import flush_stdout, prepare_streams

Arguments = TypeVar("Arguments")
Training = TypeVar("Training", bound="TrainOptions")

RENAMED = {"--accumulate": "--micro-batches"}      # old options, which keep working in this version
GROUPS: dict[str, type] = {"network": NetworkKnobs, "audio": AudioKnobs, "augmentation": AugmentationKnobs,
                           "training": TrainingKnobs, "evaluation": EvaluationKnobs}
RECIPE_HELP = "\n".join(["Named recipe that sets the defaults of all knobs below.",
                         *(f"{name}: {named.summary}" for name, named in NAMED_RECIPES.items())])


@dataclass(frozen=True, kw_only=True)
class NewRunOptions:
    """A run to train."""
    run: str                                # Name of the run. Its folder is models/NAME.
    recipe: Annotated[str, tyro.conf.arg(help=RECIPE_HELP)] = "capstone"


@dataclass(frozen=True, kw_only=True)
class TrainingRunOptions(DeviceOption, ModelsOption, NewRunOptions):
    """The run and how it is computed."""
    folds: Annotated[tuple[int, ...], shown_default("all")] = ()    # Numbers of the folds to train, from 1.
    devices: Annotated[tuple[str, ...], shown_default("one, --device")] = ()    # Devices that train a fold each: 0 1 2.
    micro_batches: int = 1                  # Number of parts of each batch, trained one after the other to save memory.


@dataclass(frozen=True, kw_only=True)
class CuratedRunOptions(TrainingRunOptions):
    """The run and how it is computed."""
    noisy_run: Annotated[str, shown_default("this run")] = ""   # Run whose noisy stage gives the initial weights.
    from_scratch: bool = False              # Start from random weights.
    noisy_labels: Annotated[Path | None, shown_default("", "PATH")] = None  # Csv of soft labels from tools.relabel.


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of both training scripts."""
    data: Flat[DataOptions]
    run: Flat[TrainingRunOptions]
    network: Flat[NetworkKnobs]
    audio: Flat[AudioKnobs]
    augmentation: Flat[AugmentationKnobs]
    training: Flat[TrainingKnobs]
    evaluation: Flat[EvaluationKnobs]
    noisy: Schedule
    curated: Schedule

    @property
    def knobs(self) -> Recipe:
        """The recipe: the named one with the changes of the command line."""
        flat = {knob.name: getattr(getattr(self, group), knob.name)
                for group, kind in GROUPS.items() for knob in fields(kind)}
        return Recipe(**flat, noisy=self.noisy, curated=self.curated)


@dataclass(frozen=True, kw_only=True)
class TrainNoisy(TrainOptions):
    """train_noisy.py."""


@dataclass(frozen=True, kw_only=True)
class TrainCurated(TrainOptions):
    """train_curated.py. Without --recipe it takes the settings of the run's noisy stage."""
    run: Flat[CuratedRunOptions]


@dataclass(frozen=True, kw_only=True)
class TrainNoisyHelp(TrainNoisy):
    """The same without the options of the other stage, which --help hides and the script accepts."""
    curated: tyro.conf.Suppress[Schedule]


@dataclass(frozen=True, kw_only=True)
class TrainCuratedHelp(TrainCurated):
    """The same without the options of the other stage."""
    noisy: tyro.conf.Suppress[Schedule]


HELP_KINDS: dict[type, type] = {TrainNoisy: TrainNoisyHelp, TrainCurated: TrainCuratedHelp}


def parse(kind: type[Arguments], description: str) -> Arguments:
    """Parse the command line into a dataclass.

    Args:
        description: text above the options in --help.
    Raises:
        SystemExit: the command line is wrong, or asks for help.
    """
    return tyro.cli(kind, description=description, args=words(), prog=program(),
                    config=(tyro.conf.FlagCreatePairsOff,))


def parse_training(kind: type[Training], description: str) -> Training:
    """Parse a command line with all knobs. Their defaults are those of the chosen recipe.

    Args:
        kind: its field `run` has the options of the program itself.
    Raises:
        TaggingError: the recipe is unknown, or a knob is out of its range.
        SystemExit: the command line is wrong, or asks for help.
    """
    given = words()
    name, recipe = choose_recipe(kind, given)
    asks_help = {"-h", "--help"} & set(given)
    shown: type = HELP_KINDS.get(kind, kind) if asks_help else kind
    data, run = (get_type_hints(kind)[group] for group in ("data", "run"))
    required = {field.name: tyro.MISSING for field in fields(run) if field.default is MISSING}
    default = shown(
        data=data(data=tyro.MISSING), run=run(**required, recipe=name), noisy=recipe.noisy,
        curated=recipe.curated,
        **{group: knobs(**{knob.name: getattr(recipe, knob.name) for knob in fields(knobs)})
           for group, knobs in GROUPS.items()})
    return tyro.cli(shown, description=description, default=default, args=given, prog=program())


def choose_recipe(kind: type, given: list[str]) -> tuple[str, Recipe]:
    """Return the recipe whose knobs are the defaults, and its name. It must be known before the knobs are parsed.

    Raises:
        TaggingError: the recipe is unknown.
    """
    run, recipe, noisy_run = (option(given, name) for name in ("--run", "--recipe", "--noisy-run"))
    if recipe is None and kind is TrainCurated and run and "--from-scratch" not in given:
        from tagging.run import stage_folder  # imports torch, which --help does not need
        noisy = stage_folder(Path(option(given, "--models") or "models"), noisy_run or run, "noisy")
        if noisy.settings_path.exists():
            require_trainable(noisy.settings(), noisy)
            return f"that of {noisy}", noisy.recipe()
    name = recipe or "capstone"
    return name, named_recipe(name)


def named_recipe(name: str) -> Recipe:
    """
    Raises:
        TaggingError: the recipe is unknown.
    """
    if name not in RECIPES:
        raise TaggingError(f"--recipe '{name}' is unknown.{did_you_mean(name, list(RECIPES))} "
                           f"Choose {', '.join(RECIPES)}.")
    return RECIPES[name]


def option(given: list[str], name: str) -> str | None:
    """Return the value of an option on the command line, the last one if it is given several times."""
    values = [word.removeprefix(f"{name}=") for word in given if word.startswith(f"{name}=")]
    values += [value for word, value in pairwise(given) if word == name]
    return values[-1] if values else None


def words() -> list[str]:
    """Return the words of the command line, with old and underscored names of options replaced by today's."""
    given = []
    for word in sys.argv[1:]:
        match = re.match(r"--[\w-]+", word)
        if match:
            name = match[0].replace("_", "-")
            if name in RENAMED:
                print(f"note: {name} is now called {RENAMED[name]}. The old name will be removed.", file=sys.stderr)
            word = RENAMED.get(name, name) + word[match.end():]
        given.append(word)
    return given


def program() -> str:
    """Return how the user started this program: python predict.py, or python -m tools.NAME."""
    path = Path(sys.argv[0])
    if path.stem == "__main__" or path.parent.name == "tools":
        return f"python -m tools.{path.parent.name if path.stem == '__main__' else path.stem}"
    return f"python {path.name}"


def run_script(main: Callable[[], object], resumable: bool = False) -> None:
    """Run `main`, and print its errors without a traceback.

    The exit code is 2 after a `TaggingError`, 143 after SIGTERM and 130 after Ctrl-C.

    Args:
        resumable: whether the same command resumes after an interruption.
    """
    prepare_streams()
    interrupts.install_handlers()
    if sys.__stderr__:
        with contextlib.suppress(ValueError, OSError):      # a stderr without a file
            faulthandler.enable(sys.__stderr__)     # if a disk vanishes under a memory map, this tells where
    with show_logs() as events:
        try:
            main()
            sys.stdout.flush()          # output that cannot be written is an error
        except TaggingError as error:
            fail(str(error), 2, events)
        except BrokenPipeError:         # `| head` has enough lines
            flush_stdout()
            sys.exit(141)
        except OSError as error:        # a disk that is gone, for example; expected errors are TaggingErrors
            flush_stdout()
            fail(f"{error.filename or 'a file or the output'} could not be used: {error.strerror or error}. Check the "
                 "disk and the permissions, and run the same command again.", 2, events)
        except interrupts.Stopped as stop:
            print(f"{stop}." + (" Run the same command again to resume." if resumable else ""), file=sys.stderr)
            sys.exit(stop.exit_code)


def fail(message: str, code: int, events: TextIO | None) -> NoReturn:
    """Print an error, or send it to the process that started this one, and exit."""
    if events:
        write_event(events, error=message)
    else:
        with contextlib.suppress(OSError):      # the exit code stays right if stderr cannot be written
            print(f"error: {visible(message)}", file=sys.stderr)
    sys.exit(code)
