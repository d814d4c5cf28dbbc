"""The space of a search: which knobs vary around a recipe; and the plan of a study, which includes it."""
import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, MedianPruner
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from tagging.errors import TaggingError
from tagging.recipe import STAGES, Recipe
from tagging.search.limits import (
    DEFAULT,
    Limits,
    allows,
    describe,
    ends,
    read_limits,
    read_tables,
    suggest,
    to_param,
    widened,
)

log = logging.getLogger(__name__)

# Scores with other folds are not comparable, and the score of a search does not depend on the last two.
NO_KNOBS = ("fold_count", "fold_seed", "stratified", "source_column", "seed", "old_rounding", "single_crop",
            "view_speeds", "balance")
STRIDE = 100_000        # an epoch of a leg is Optuna's step STRIDE * leg + epoch
DIGITS = 4              # significant digits of a sampled number

Params = dict[str, Any]         # knob -> value as Optuna stores it


@dataclass(frozen=True)
class Knob:
    """A knob that varies.

    Attributes:
        name: as in "curated.lrs".
        own: the recipe's value.
    """
    name: str
    own: Any
    limits: Limits

    def value(self, param: Any) -> Any:
        """Return the knob's value for one of Optuna's."""
        if isinstance(param, str) and not isinstance(self.own, str):
            return tuple(json.loads(param))         # Optuna takes no list as a choice
        if param == self.param:
            return self.own
        if isinstance(self.limits, FloatDistribution):
            param = float(f"{param:.{DIGITS}g}")
        if not isinstance(self.own, tuple):
            return param
        return tuple(float(f"{param * own / self.own[0]:.{DIGITS}g}") for own in self.own) if self.scaled else (param,)

    @property
    def scaled(self) -> bool:
        """Whether the knob has a number for each cycle, and a trial scales all of them."""
        return self.name.endswith(".lrs")

    @property
    def param(self) -> Any:
        """The recipe's own value as one of Optuna's."""
        return to_param(self.own, isinstance(self.limits, CategoricalDistribution))


@dataclass(frozen=True)
class Space:
    """The knobs that vary around a recipe."""
    recipe: Recipe
    knobs: tuple[Knob, ...]

    @property
    def first(self) -> Params:
        """The parameters of the recipe itself."""
        return {knob.name: knob.param for knob in self.knobs}

    def suggest(self, trial: Trial) -> Params:
        """Let Optuna choose the parameters of a trial. Those that it chose before an interruption are kept."""
        return {knob.name: suggest(trial, knob.name, knob.limits) for knob in self.knobs}

    def recipe_of(self, params: Params) -> Recipe:
        """Return the recipe of a trial.

        Raises:
            TaggingError: the knobs contradict each other.
        """
        changes: dict[str, Any] = {}
        for knob in self.knobs:
            stage, _, name = knob.name.rpartition(".")
            value = knob.value(params[knob.name])
            if stage:
                changes[stage] = replace(changes.get(stage, self.recipe.schedule(stage)), **{name: value})
            else:
                changes[name] = value
        return replace(self.recipe, **changes)

    def fitted(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a finished trial of another space, with the parameters that this one allows."""
        kept = {knob.name: trial.params[knob.name] for knob in self.knobs if knob.name in trial.params
                and allows(knob.limits, trial.params[knob.name])}
        return create_trial(state=trial.state, values=trial.values, params=kept,
                            distributions={knob.name: knob.limits for knob in self.knobs if knob.name in kept},
                            user_attrs=trial.user_attrs, intermediate_values=trial.intermediate_values)

    def as_dict(self) -> dict[str, dict]:
        """Return the limits of all knobs for JSON."""
        return {knob.name: {name.strip("_"): value for name, value in vars(knob.limits).items()}
                for knob in self.knobs}


def read_space(path: Path | None, recipe: Recipe, stages: Collection[str], noisy_set: bool,
               fixed: Collection[str] = ()) -> Space:
    """Read the space around a recipe, and log where it had to be widened.

    Args:
        path: None for the default space. Its knobs that the search does not need are left out.
        stages: those that a trial trains.
        noisy_set: whether all data have a noisy set.
        fixed: knobs that this search cannot vary.
    Raises:
        TaggingError: the file cannot be read, or a table in it is wrong.
    """
    where = path or DEFAULT
    knobs = []
    for name, table in read_tables(where).items():
        useless = reason_against(name, stages, noisy_set, fixed)
        if useless and path is None:
            continue
        if useless:
            raise TaggingError(f"{where}: {name} cannot be searched: {useless}. Remove its table.")
        limits = read_limits(f"{where}, {name}", own_value(recipe, name), table)
        knobs.append(widen(Knob(name, own_value(recipe, name), limits), where))
    if not knobs:
        raise TaggingError(f"{where} names no knob. Add a table for each knob, as in {DEFAULT}.")
    space = Space(recipe, tuple(knobs))
    check_ends(space, where)
    return space


def reason_against(name: str, stages: Collection[str], noisy_set: bool, fixed: Collection[str]) -> str:
    """Return why a search cannot vary a knob, or ""."""
    stage = name.partition(".")[0]
    if name in NO_KNOBS:
        return "the scores of the trials would not be comparable, or would not depend on it"
    if stage in STAGES and stage not in stages:
        return f"the trials do not train the {stage} stage"
    if name == "noisy_share" and not noisy_set:
        return "the data have no noisy set"
    return "the weights of --noisy-run belong to one value of it" if name in fixed else ""


def own_value(recipe: Recipe, name: str) -> Any:
    """Return the value of a knob such as "curated.lrs"."""
    stage, _, knob = name.rpartition(".")
    return getattr(recipe.schedule(stage) if stage else recipe, knob)


def widen(knob: Knob, where: Path) -> Knob:
    """Add the recipe's own value to the limits of a knob, because the recipe is the first trial."""
    limits = widened(knob.limits, knob.param)
    if limits != knob.limits:
        log.info("note: %s: the recipe has %s = %s, so the space is widened to %s.", where, knob.name,
                 json.dumps(knob.own), describe(limits))
    return replace(knob, limits=limits)


def check_ends(space: Space, where: Path) -> None:
    """Log which ends and choices do not work with the recipe. They may work with other values of the other knobs."""
    for knob in space.knobs:
        for end in ends(knob.limits):
            try:
                space.recipe_of(space.first | {knob.name: end})
            except TaggingError as error:
                log.info("note: %s: %s = %s does not work with the recipe's other knobs, and such trials fail: %s",
                         where, knob.name, end, error)


@dataclass(frozen=True)
class Plan:
    """What all trials of a study have in common.

    Attributes:
        recipe_name: the named recipe, whose values the commands leave out.
        folds: that each trial trains on each competition.
        data: name of each competition -> hash of its training csv files.
        folders: name of each competition -> its folder on this machine.
        initial_weights: "this run" for those of the trial's own noisy stage, "scratch", or a run.
        startup: finished trials before the first one is pruned.
        warmup: epochs of each fold before a trial can be pruned.
    """
    recipe_name: str
    space: Space
    folds: tuple[int, ...]
    data: dict[str, str]
    folders: dict[str, Path]
    initial_weights: str
    startup: int
    warmup: int

    @property
    def legs(self) -> list[tuple[str, int]]:
        """Competition and fold of each training of a trial, in their order."""
        return [(name, fold) for name in self.data for fold in self.folds]

    def settings(self) -> dict:
        """Return what must not change within a study, as JSON gives it back."""
        return json.loads(json.dumps({
            "recipe": asdict(self.space.recipe), "space": self.space.as_dict(), "folds": self.folds, "data": self.data,
            "initial_weights": self.initial_weights}))

    def origin(self) -> dict:
        """Return the named recipe and the folders of the data, which may change within a study."""
        return {"recipe": self.recipe_name, "data": {name: str(path) for name, path in self.folders.items()}}


class LegPruner(BasePruner):
    """Optuna's median pruner, which compares epochs of one leg only.

    Args:
        startup, warmup: of `Plan`.
    """

    def __init__(self, startup: int, warmup: int):
        self.startup, self.warmup = startup, warmup

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        first = (trial.last_step or 0) // STRIDE * STRIDE
        leg = create_trial(state=TrialState.RUNNING, intermediate_values={
            step: value for step, value in trial.intermediate_values.items() if step >= first})
        return MedianPruner(self.startup, n_warmup_steps=first + self.warmup + 1).prune(study, leg)


def run_name(number: int, competition: str = "") -> str:
    """Return the name of the run of a trial. Several competitions have a run each."""
    return f"trial-{number:03d}" + (f"-{competition}" if competition else "")
