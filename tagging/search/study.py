"""A study: its plan, and the trials that several processes and machines reserve, judge and finish together.

    models/RUN/journal.log           the study, in Optuna's format
               trial-007/            the run of a trial, one for each competition if there are several
               trials.csv            a row for each trial
               report.html           the report of the study
"""
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from tagging.errors import TaggingError
from tagging.recipe import Recipe
from tagging.schema import upgrade_knobs
from tagging.search.journal import PLAN, Journal, current
from tagging.search.space import STRIDE, LegPruner, Plan, run_name
from tagging.settings import differences
from tagging.utils.locks import LockedError, file_lock
from tagging.utils.seeds import seed_for

log = logging.getLogger(__name__)

RANDOM_TRIALS = 10      # before TPE has enough trials to learn from
FAILURES = 10           # in a row, after which something else is wrong
ORIGIN = "origin"       # attribute with what the report needs to show a command
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Reserved:
    """A trial that this process alone trains."""
    number: int
    recipe: Recipe
    resumed: bool


class Sweep:
    """A study that this process takes part in.

    Args:
        folder: of the study.
        plan: of this process's command.
        trials: number of finished trials to reach.
        change: continue with another plan than before.
    Raises:
        TaggingError: the study has another plan, or its journal is damaged.
    """

    def __init__(self, folder: Path, plan: Plan, trials: int, change: bool = False):
        self.folder, self.plan, self.trials, self.journal = folder, plan, trials, Journal(folder)
        with self.journal.transaction() as storage:
            study, found = current(storage), []
            if study:
                found = changes(study, plan)
            if found and not change:
                raise TaggingError(f"{folder} is a study with other settings:\n  " + "\n  ".join(found) + "\nRepeat "
                                   "the options of that study, choose another --run, or continue with --change-study.")
            if found or not study:
                study = self.begin(storage, study)
            if study.user_attrs.get(ORIGIN) != (origin := plan.origin()):
                study.set_user_attr(ORIGIN, origin)

    def begin(self, storage: JournalStorage, before: optuna.Study | None) -> optuna.Study:
        """Begin the study. With another plan before, copy its trials, so that numbers stay and the sampler learns from
        them. The plan is written last: a study without one was interrupted here, and does not count."""
        number = len(optuna.get_all_study_names(storage)) + 1
        study = optuna.create_study(storage=storage, study_name=f"study {number}", direction="maximize")
        for trial in before.get_trials() if before else ():
            if trial.state == TrialState.RUNNING:
                with self.hold(trial.number):       # refused if another process trains it
                    trial = abandoned(trial)
            if trial.state != TrialState.WAITING:
                study.add_trial(self.plan.space.fitted(trial))
        study.set_user_attr(PLAN, self.plan.settings())
        return study

    @contextmanager
    def study(self) -> Iterator[optuna.Study]:
        """Yield the study within a transaction.

        Raises:
            TaggingError: another process has continued the study with another plan.
        """
        with self.journal.transaction() as storage:
            study = current(storage)
            if not study or changes(study, self.plan):
                raise TaggingError(f"{self.folder} was changed by another process. Start this one again with the same "
                                   "options as that one.")
            study.pruner = LegPruner(self.plan.startup, self.plan.warmup)
            yield study

    def hold(self, number: int) -> AbstractContextManager:
        """Hold the lock of a trial.

        Raises:
            LockedError: another process trains the trial.
        """
        return file_lock(self.folder / f".trial-{number:03d}.lock", f"another process trains trial {number} of "
                         f"{self.folder}. Stop it first.")

    def reserve(self, held: ExitStack) -> Reserved | list[int]:
        """Reserve a trial: one that a killed process has left, or a new one. A trial whose knobs contradict each other
        fails at once, and the next one is drawn.

        Args:
            held: receives the lock of the trial.
        Returns:
            the trial; or, if no further one is needed, the numbers of those that other processes are still training.
        Raises:
            TaggingError: many trials in a row have failed, or there are folders of trials that the journal does not
                have.
        """
        for _ in range(FAILURES):
            with self.study() as study:
                trials = study.get_trials(deepcopy=False)
                done = sum(trial.state in DONE for trial in trials)
                running = [trial for trial in trials if trial.state == TrialState.RUNNING]
                if done >= self.trials:
                    return []
                trial = self.take_up(study, running, held)
                if not trial and done + len(running) >= self.trials:
                    return [trial.number for trial in running]
                resumed = trial is not None
                trial = trial or self.ask(study, trials)
                params = self.plan.space.suggest(trial)
                try:
                    recipe = self.plan.space.recipe_of(params)
                except TaggingError as error:
                    reason = str(error)
                    finish(study, trial.number, TrialState.FAIL, reason=f"invalid: {reason}")
                    held.close()
                    log.info("trial %d is invalid and does not count: %s", trial.number, reason)
                    continue
                if not resumed:
                    held.enter_context(self.hold(trial.number))
                return Reserved(trial.number, recipe, resumed)
        raise TaggingError(f"{FAILURES} trials in a row were invalid, the last one because of this: {reason} Narrow "
                           "the space, and continue with --change-study.")

    def take_up(self, study: optuna.Study, running: list[FrozenTrial], held: ExitStack) -> Trial | None:
        """Return the first running trial whose process has ended, or None."""
        for trial in running:
            try:
                held.enter_context(self.hold(trial.number))
            except LockedError:
                continue
            study.sampler = self.sampler(trial.number)
            return handle(study, trial.number)
        return None

    def ask(self, study: optuna.Study, trials: list[FrozenTrial]) -> Trial:
        """Return a new trial. The first one is the recipe itself.

        Raises:
            TaggingError: the folder of the trial exists.
        """
        if not trials:
            study.enqueue_trial(self.plan.space.first)
        number = sum(trial.state != TrialState.WAITING for trial in trials)
        for run in self.runs(number).values():
            if (self.folder / run).exists():
                raise TaggingError(f"{self.folder / run} exists, but {self.journal.path} has no trial {number}. "
                                   "Restore the journal from a backup, or remove the folders trial-*.")
        study.sampler = self.sampler(number)
        return study.ask()

    def sampler(self, number: int) -> TPESampler:
        """Return the sampler of a trial. Its seed makes a search repeatable, whichever process draws the trial."""
        return TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed_for(self.plan.space.recipe.seed, "search", number)
                          % 2**32)

    def runs(self, number: int) -> dict[str, str]:
        """Return the name of the run of a trial on each competition."""
        names = list(self.plan.data)
        return {name: run_name(number, name if len(names) > 1 else "") for name in names}

    def report(self, number: int, leg: int, scores: dict[int, float]) -> bool:
        """Report the scores of epochs, and return whether to prune the trial.

        Args:
            leg: place in the plan's legs.
            scores: epoch, from 1 -> lwlrap.
        """
        with self.study() as study:
            known, trial = study.get_trials(deepcopy=False)[number].intermediate_values, handle(study, number)
            for epoch, score in scores.items():
                if (step := STRIDE * leg + epoch) not in known:
                    trial.report(score, step)
            return trial.should_prune()

    def complete(self, number: int, scores: dict[str, float]) -> tuple[float, bool]:
        """Finish a trial with the score of each leg. Return their mean, and whether it is the best one so far."""
        value = float(np.mean(list(scores.values())))
        with self.study() as study:
            complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            finish(study, number, TrialState.COMPLETE, value, scores=scores)
        return value, all(value > (trial.value or 0) for trial in complete)

    def prune(self, number: int) -> None:
        """Finish a trial as pruned."""
        with self.study() as study:
            finish(study, number, TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """Finish a trial as failed. It does not count."""
        with self.study() as study:
            finish(study, number, TrialState.FAIL, reason=reason)

    def has_scores(self) -> bool:
        """Whether an epoch of a trial has been scored, so data and options work."""
        with self.study() as study:
            return any(trial.intermediate_values for trial in study.get_trials(deepcopy=False))


def handle(study: optuna.Study, number: int) -> Trial:
    """Return Optuna's handle of a trial, which any process may have begun."""
    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def finish(study: optuna.Study, number: int, state: TrialState, value: float | None = None, **attributes: Any) -> None:
    for name, content in attributes.items():
        handle(study, number).set_user_attr(name, content)
    study.tell(number, value, state)


def abandoned(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial that was interrupted, as a failed one."""
    return create_trial(state=TrialState.FAIL, params=trial.params, distributions=trial.distributions,
                        intermediate_values=trial.intermediate_values,
                        user_attrs={"reason": "not finished when the study was continued with other settings"})


def changes(study: optuna.Study, plan: Plan) -> list[str]:
    """Return the differences of a plan from that of the study, a line each."""
    before = study.user_attrs[PLAN]
    return differences(before | {"recipe": upgrade_knobs(before["recipe"])}, plan.settings())
