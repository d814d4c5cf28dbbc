"""Search for the best knobs with Optuna. Each trial is an ordinary run -> models/RUN/trial-000, ..., and report.html

    python -m tools.search --data DIR --recipe podium --run sweep --trials 40 [--space space.toml] [--devices 0 1]

Start the same command again, also on other machines with the same --models, to let more processes work on the study, to
resume it, or to add trials with a larger --trials. Only complete and pruned trials count. The first trial is the recipe
itself, with the knobs of the command line. The knobs of the space replace them in the other trials. See docs/search.md.
"""
import hashlib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch

from tagging.cli import NewRunOptions, TrainOptions, named_recipe, parse_training, run_script
from tagging.data.competition import Competition, open_competition
from tagging.errors import TaggingError
from tagging.options import DeviceOption, Flat, ModelsOption, shown_default
from tagging.recipe import STAGES, Recipe
from tagging.run import stage_folder
from tagging.search.commands import Trainings
from tagging.search.report.sections import write_study_report
from tagging.search.space import Plan, read_space
from tagging.search.study import Sweep
from tagging.search.worker import Workers
from tagging.utils import interrupts
from tagging.utils.devices import choose_devices
from tagging.utils.files import check_run_folder
from tagging.utils.locks import LockedError

REFRESH = 60        # seconds between two reports during a search


@dataclass(frozen=True, kw_only=True)
class SearchDataOptions:
    """Competitions and cache."""
    data: tuple[Path, ...]                  # Competition folders. The score of a trial is the mean over them.
    cache: Path = Path("data/cache")        # Folder for the decoded clips. They take as much space as the clips.
    skip_bad_clips: bool = False            # Drop clips that cannot be used, and list their names.


@dataclass(frozen=True, kw_only=True)
class SearchOptions(DeviceOption, ModelsOption, NewRunOptions):
    """The study and how it is computed."""
    trials: int = 40                        # Number of complete and pruned trials to reach.
    # TOML file with the knobs to search and their limits.
    space: Annotated[Path | None, shown_default("tagging/search/space.toml", "PATH")] = None
    folds: tuple[int, ...] = (1,)           # Numbers of the folds that each trial trains, from 1.
    devices: Annotated[tuple[str, ...], shown_default("one, --device")] = ()    # Devices that train a trial each: 0 1.
    micro_batches: int = 1                  # Number of parts of each batch, trained one after the other to save memory.
    noisy_run: Annotated[str, shown_default("the trial itself")] = ""   # Run whose noisy stage starts all trials.
    from_scratch: bool = False              # Start the curated stage from random weights, without a noisy stage.
    startup: int = 5                        # Number of complete trials before the first one can be pruned.
    # Number of epochs of a fold before a trial can be pruned.
    warmup: Annotated[int | None, shown_default("a fifth of the epochs", "INT")] = None
    change_study: bool = False              # Continue a study with another recipe, space, data or other folds.


@dataclass(frozen=True, kw_only=True)
class Search(TrainOptions):
    """tools.search."""
    # several competitions instead of one
    data: Flat[SearchDataOptions]  # type: ignore[assignment]
    """Competitions and cache."""
    run: Flat[SearchOptions]  # type: ignore[assignment]
    """The study and how it is computed."""


def main() -> None:
    args = parse_training(Search, __doc__)
    run, recipe = args.run, args.knobs
    check_options(run, recipe)
    folder = stage_folder(run.models, run.run, "").path
    check_run_folder(folder)
    if any((folder / stage / "settings.json").exists() for stage in STAGES):
        raise TaggingError(f"{folder} is a run. Choose another --run for the study.")
    devices = search_devices(run.device, run.devices)
    competitions = open_competitions(args.data.data)
    stages = ("curated",) if run.noisy_run or run.from_scratch else recipe.stages
    space = read_space(run.space, recipe, stages, all(each.has("noisy") for each in competitions.values()),
                       ("network",) if run.noisy_run else ())
    if run.noisy_run:
        share_noisy_run(run.models, run.noisy_run, folder)
    folders = {name: each.root for name, each in competitions.items()}
    plan = Plan(run.recipe, space, run.folds, {name: hash_tables(each) for name, each in competitions.items()}, folders,
                run.noisy_run or ("this run" if "noisy" in stages else "scratch"), run.startup,
                sum(recipe.curated.epochs) // 5 if run.warmup is None else run.warmup)
    sweep = Sweep(folder, plan, run.trials, run.change_study)
    trainings = Trainings(
        folders, stages,
        ("--models", str(folder), "--cache", str(args.data.cache), "--folds", *map(str, run.folds), "--micro-batches",
         str(run.micro_batches), *(["--skip-bad-clips"] if args.data.skip_bad_clips else [])),
        ("--noisy-run", run.noisy_run) if run.noisy_run else () if "noisy" in stages else ("--from-scratch",))
    try:
        Workers(sweep, trainings, devices, partial(refresh_report, folder, REFRESH)).run()
    finally:
        if not interrupts.pending_signal():     # then there may be little time left
            refresh_report(folder)
    print(f"-> {folder / 'report.html'}")


def refresh_report(folder: Path, seconds: float = 0.0) -> None:
    """Write the report again if it is older than some seconds. The search must not fail because of it."""
    path = folder / "report.html"
    try:
        if not path.exists() or time.time() - path.stat().st_mtime >= seconds:
            write_study_report(folder, busy="another process writes it" if seconds else "")
    except LockedError:
        pass            # it is being written
    except Exception as error:
        print(f"note: no report was written: {error}", file=sys.stderr)


def check_options(run: SearchOptions, recipe: Recipe) -> None:
    """
    Raises:
        TaggingError: an option is out of its range, or two exclude each other.
    """
    named_recipe(run.recipe)
    if run.trials < 1 or run.startup < 0 or (run.warmup or 0) < 0:
        raise TaggingError("--trials must be 1 or more, and --startup and --warmup must not be negative.")
    if run.noisy_run and run.from_scratch:
        raise TaggingError("--noisy-run and --from-scratch exclude each other. Remove one of them.")
    wrong = sorted(set(run.folds) - set(range(1, recipe.fold_count + 1)))
    if wrong or not run.folds or len(set(run.folds)) < len(run.folds):
        raise TaggingError(f"--folds must be different numbers from 1 to {recipe.fold_count} (--fold-count).")
    if not 1 <= run.micro_batches <= recipe.batch_size // 2:
        raise TaggingError(f"--micro-batches must be 1 to {recipe.batch_size // 2}, half of --batch-size.")


def search_devices(device: str, devices: Sequence[str]) -> list[torch.device]:
    """Return the devices that train a trial each. A GPU is not touched here, so that it is free for the trials.

    Raises:
        TaggingError: this machine has no such device, or both options are given.
    """
    if len(devices) > 1 or (devices and device != "auto"):
        return choose_devices(device, devices)
    name, gpus = devices[0] if devices else device, torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    name = f"cuda:{name}" if name.isdecimal() else name
    if name not in ("cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))):
        raise TaggingError(f"--device {name} cannot be used here: there are {gpus} GPUs. Choose auto, cpu or cuda.")
    return [torch.device(name)]


def open_competitions(folders: Sequence[Path]) -> dict[str, Competition]:
    """Open the competitions, and check their curated clips.

    Returns:
        name of the folder -> competition.
    Raises:
        TaggingError: no or an equal folder is given, or as `open_competition` and `Competition.clips`.
    """
    found: dict[str, Competition] = {}
    for folder in folders:
        name = re.sub(r"[^\w.-]+", "-", folder.resolve().name)
        if name in found:
            raise TaggingError(f"--data has two folders called {name}, and runs are named after them. Rename one.")
        found[name] = open_competition(folder)
        found[name].clips("curated")
    if not found:
        raise TaggingError("--data needs a competition folder.")
    return found


def hash_tables(competition: Competition) -> str:
    """Return a hash of the training csv files of a competition, and of its classes."""
    tables = [competition.root / competition.layout.splits[split][0] for split in ("curated", "noisy")]
    parts = [path.read_bytes() for path in tables if path.exists()]
    return hashlib.sha256(b"\0".join([repr(competition.classes).encode(), *parts])).hexdigest()[:16]


def share_noisy_run(models: Path, name: str, folder: Path) -> None:
    """Link a run into the folder of the study, where its trials find it.

    Raises:
        TaggingError: the run has no noisy stage, or the link cannot be created.
    """
    noisy, link = stage_folder(models, name, "noisy").path, folder / name
    if not (noisy / "settings.json").exists() and not (link / "noisy/settings.json").exists():
        raise TaggingError(f"{noisy} is no noisy stage. Train it with train_noisy.py --run {name}, or choose another "
                           "--noisy-run.")
    if not link.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path("..", name), target_is_directory=True)
        except FileExistsError:
            pass            # another worker was faster
        except OSError as error:
            raise TaggingError(f"{link} could not be created as a link: {error.strerror}. Copy {noisy.parent} "
                               "there.") from error


if __name__ == "__main__":
    run_script(main, resumable=True)
