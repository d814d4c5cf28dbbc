"""The report of a study: sections for a page, report.html and trials.csv."""
import shlex
from pathlib import Path
from statistics import NormalDist
from typing import cast

import numpy as np
import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from tagging.errors import TaggingError, shorten
from tagging.evaluation.error_analysis import out_of_fold
from tagging.metric import lwlrap
from tagging.recipe import RECIPES
from tagging.reporting.report import write_page
from tagging.reporting.sections import Section
from tagging.run import stage_folder
from tagging.search.commands import knob_words
from tagging.search.journal import PLAN, open_study
from tagging.search.limits import Limits
from tagging.search.report import figures
from tagging.search.space import STRIDE, run_name
from tagging.search.study import ORIGIN
from tagging.utils.files import atomic
from tagging.utils.locks import file_lock

BEST, FEW = 10, 20      # trials in the table of the best ones; and below which the importance is very uncertain
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
          TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}


def write_study_report(folder: Path, busy: str = "") -> Path:
    """Write report.html and trials.csv into the folder of a study, and return the path of the report.

    Args:
        busy: as for `file_lock`, if another process writes them.
    Raises:
        TaggingError: the study is damaged, or a file cannot be written.
    """
    path = folder / "report.html"
    with file_lock(folder / ".report.lock", busy):
        study = open_study(folder)
        with atomic(folder / "trials.csv") as temporary:
            trial_table(study).to_csv(temporary, index=False, lineterminator="\n")
        write_page(path, f"Search {folder.name}", "Each trial is a run of its own. All scores are out-of-fold: no clip "
                   "was predicted by a model that was trained on it.", study_sections(folder))
    return path


def study_sections(folder: Path) -> list[Section]:
    """Describe a study: its best trials, what each knob does, learning curves, and how to train the winner.

    Raises:
        TaggingError: the folder has no study, or its journal is damaged.
    """
    study = open_study(folder)
    table, trials = trial_table(study), study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    counts = table.state.value_counts()
    progress = f"Trials: {', '.join(f'{count} {state}' for state, count in counts.items()) or 'none'}."
    if not complete:
        return [Section("Trials", f"No trial is complete yet. {progress}"), *curve_sections(study, table),
                *failed_sections(table)]
    best = study.best_trial
    errors = standard_errors(folder, study)
    return [best_section(study, table, errors, progress), importance_section(study, complete),
            *knob_sections(study, table), *curve_sections(study, table), *failed_sections(table),
            winner_section(folder, study, best, len(complete), errors.get(best.number))]


def legs_of(study: optuna.Study) -> list[str]:
    """Return the names of the legs, each a fold of a competition."""
    plan = study.user_attrs[PLAN]
    return [f"{name} fold {fold}" for name in plan["data"] for fold in plan["folds"]]


def space_of(study: optuna.Study) -> dict[str, Limits]:
    """Return the limits of each knob that trials of the study have."""
    return {name: cast(Limits, limits) for trial in study.get_trials(deepcopy=False)
            for name, limits in trial.distributions.items()}


def trial_table(study: optuna.Study) -> pd.DataFrame:
    """Return a row for each trial: number, state, score, best, score of each leg, epochs, minutes, reason, and knobs.

    A pruned trial has no score, because its epochs are fewer than those of the others.
    """
    rows, space, legs = [], space_of(study), legs_of(study)
    for trial in study.get_trials(deepcopy=False):
        scores = trial.user_attrs.get("scores", {})
        minutes = trial.duration.total_seconds() / 60 if trial.duration else None
        rows.append({"number": trial.number, "state": STATES[trial.state],
                     "score": trial.value if trial.state == TrialState.COMPLETE else np.nan,
                     **(dict.fromkeys(legs) | scores if len(legs) > 1 else {}),
                     "epochs": len(trial.intermediate_values), "minutes": minutes,
                     "reason": trial.user_attrs.get("reason", ""),
                     **{name: trial.params.get(name, np.nan) for name in space}})
    table = pd.DataFrame(rows, columns=None if rows else ["number", "state", "score", "reason"])
    return table.assign(best=table.score.eq(table.score.max()) & ~table.score.duplicated())


def standard_errors(folder: Path, study: optuna.Study) -> dict[int, float]:
    """Return the standard error of the scores of the best trials and of the first one, over the validation clips.

    A trial whose run was removed is left out.
    """
    plan, errors = study.user_attrs[PLAN], {}
    for number in shown_trials(trial_table(study)):
        parts: list[float] = []
        try:
            for run in runs_of(plan, number).values():
                for fold in plan["folds"]:
                    truth, predictions = out_of_fold(stage_folder(folder, run, "curated"), [fold])
                    parts.append(score_error(truth.to_numpy(), predictions.to_numpy()))
        except TaggingError:
            continue
        errors[number] = float(np.sqrt(np.square(parts).sum()) / len(parts))
    return errors


def score_error(truth: np.ndarray, predictions: np.ndarray) -> float:
    """Return the standard error of lwlrap, a ratio of two sums over clips. Both arrays are (clips, classes)."""
    labels = truth.sum(1)
    kept = labels > 0
    precision = np.array([lwlrap(truth=row[None], scores=scores[None])
                          for row, scores in zip(truth[kept], predictions[kept])])          # (clips,)
    total = np.average(precision, weights=labels[kept])
    return float(np.sqrt(np.square(labels[kept] * (precision - total)).sum()) / labels.sum())


def shown_trials(table: pd.DataFrame) -> list[int]:
    """Return the numbers of the best trials, and 0, which is the recipe itself."""
    numbers = table[table.state == "complete"].sort_values("score", ascending=False, kind="stable").number
    return list(dict.fromkeys([*numbers[:BEST], *numbers[numbers == 0]]))


def runs_of(plan: dict, number: int) -> dict[str, str]:
    """Return the name of the run of a trial on each competition."""
    return {name: run_name(number, name if len(plan["data"]) > 1 else "") for name in plan["data"]}


def best_section(study: optuna.Study, table: pd.DataFrame, errors: dict[int, float], progress: str) -> Section:
    """Show the best trials with their spread."""
    legs, rows = legs_of(study), []
    for number in shown_trials(table):
        row = table[table.number == number].iloc[0]
        spread = {"spread": f"{row[legs].astype(float).std():.4f}"} if len(legs) > 1 else {}
        rows.append({"trial": f"{number}, the recipe" if number == 0 else str(number), "lwlrap": f"{row.score:.4f}",
                     "standard error": f"{errors[number]:.4f}" if number in errors else "-", **spread,
                     **{name: "-" if pd.isna(row[name]) else figures.show_param(row[name])
                        for name in space_of(study)}})
    text = ("The standard error shows how far a score depends on the choice of the validation clips. Two trials whose "
            "scores differ by less can be equally good. ")
    if len(legs) > 1:
        text += f"The score is the mean over {shorten(legs)}, and the spread is the deviation between them. "
    return Section("Best trials", f"{text}{progress}", [pd.DataFrame(rows)])


def importance_section(study: optuna.Study, complete: list[FrozenTrial]) -> Section:
    """Show the importance of each knob: functional ANOVA over the complete trials."""
    title = "Importance of each knob"
    shares: dict[str, float] = {}
    if len(complete) > 2 and np.ptp([trial.value or 0 for trial in complete]) > 0:
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    if not shares:      # the trials have no knob in common either, if the space was changed
        return Section(title, "There are too few complete trials, or all of them have the same score.")
    caution = f" With {len(complete)} complete trials it is very uncertain." if len(complete) < FEW else ""
    return Section(title, "The share of the variance of the scores that each knob explains alone (functional ANOVA, on "
                   f"complete trials).{caution} A knob of low importance can stay at the recipe's value.",
                   [figures.importance(pd.Series(shares))])


def knob_sections(study: optuna.Study, table: pd.DataFrame) -> list[Section]:
    """Show slices and parallel coordinates."""
    space = space_of(study)
    together = table[table.state == "complete"].dropna(subset=list(space))
    lines = [figures.parallel_coordinates(table, space)] if len(together) > 1 else []
    return [Section("Score by knob", "Each point is a complete trial, and the orange one is the best. A red mark at "
                    "the bottom is a pruned trial. If the best points are at an end of the range, widen it.",
                    [figures.slices(table, space)]),
            Section("Parallel coordinates", "Each line is a complete trial, from knob to knob, and bright lines have "
                    "high scores. The thick line is the best trial." if lines else "There are fewer than two complete "
                    "trials with all knobs.", lines)]


def curve_sections(study: optuna.Study, table: pd.DataFrame) -> list[Section]:
    """Show the learning curves of all trials, if an epoch is finished."""
    legs: dict[str, dict[int, pd.Series]] = {}
    for trial in study.get_trials(deepcopy=False):
        for place, name in enumerate(legs_of(study)):
            scores = {step % STRIDE: value for step, value in sorted(trial.intermediate_values.items())
                      if step // STRIDE == place}
            if scores:
                legs.setdefault(name, {})[trial.number] = pd.Series(scores)
    if not legs:
        return []
    best = table.number[table.best]
    return [Section("Learning curves", "The quick score after each epoch. A trial is pruned if its best epoch so far "
                    "is below the median of the complete trials at the same epoch.",
                    [figures.curves(legs, table.set_index("number").state, int(best.iloc[0]) if len(best) else None)])]


def failed_sections(table: pd.DataFrame) -> list[Section]:
    """List the trials that failed, if there are any."""
    failed = table[table.state == "failed"]
    return [Section("Failed trials", "They do not count.", [failed[["number", "reason"]]])] if len(failed) else []


def winner_section(folder: Path, study: optuna.Study, best: FrozenTrial, count: int, error: float | None) -> Section:
    """Show the commands that train the best trial with all folds, and a warning about its score."""
    warning = "Only one trial is complete, so there is no winner yet."
    if count > 1:
        warning = (f"The score {best.value:.4f} was picked from {count} complete trials of {len(study.trials)}, so "
                   "it is too high.")
        if error:
            warning += (f" Among {count} equally good trials, chance alone can lift the best one by up to "
                        f"{expected_maximum(count) * error:.4f}.")
    warning += (" Judge the winner by its other folds, by other seeds, or by clips that no trial has seen, and compare "
                "it with the recipe itself under the same conditions.")
    return Section("Train the winner", f"Trial {best.number} is the best one. These commands train it with all folds:",
                   [*winner_commands(folder, study, best.number), warning])


def expected_maximum(count: int) -> float:
    """Return the expected maximum of `count` standard normal numbers (Blom's approximation)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def winner_commands(folder: Path, study: optuna.Study, number: int) -> list[str]:
    """Return the commands that train a trial with all folds, one for each stage and competition."""
    plan, origin = study.user_attrs[PLAN], study.user_attrs[ORIGIN]
    commands = []
    for name, run in runs_of(plan, number).items():
        try:
            recipe = stage_folder(folder, run, "curated").recipe()
        except TaggingError as error:
            return [f"The run of trial {number} is missing: {error}"]
        target = f"{folder.name}-best" + (f"-{name}" if len(plan["data"]) > 1 else "")
        models = [] if str(folder.parent) == "models" else ["--models", str(folder.parent)]
        base = origin["recipe"] if origin["recipe"] in RECIPES else "capstone"
        weights = plan["initial_weights"]
        last = {"this run": [], "scratch": ["--from-scratch"]}.get(weights, ["--noisy-run", weights])
        for stage in ("noisy", "curated") if weights == "this run" else ("curated",):
            words = ["python", f"train_{stage}.py", "--data", origin["data"][name], *models, "--run", target,
                     "--recipe", base, *(last if stage == "curated" else []), *knob_words(recipe, base)]
            commands.append(shlex.join(words))
    return commands
