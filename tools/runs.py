"""List all runs with their scores, newest first, or compare the settings of two runs.

    python -m tools.runs [--models models]
    python -m tools.runs --compare RUN OTHER
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.options import ModelsOption, shown_default
from tagging.recipe import STAGES
from tagging.run import StageFolder, stage_folder
from tagging.settings import differences
from tagging.utils.files import read_json


@dataclass(frozen=True, kw_only=True)
class Runs(ModelsOption):
    """tools.runs."""
    # Names of two runs. Print the settings in which they differ, instead of the list.
    compare: Annotated[tuple[str, str] | None, shown_default("", "RUN OTHER")] = None


def main() -> None:
    args = parse(Runs, __doc__)
    if args.compare:
        run, other = ([stage_folder(args.models, name, stage) for stage in STAGES] for name in args.compare)
        compare(run, other)
        return
    table, errors = list_runs(args.models)
    if len(table):
        print(table.to_string(index=False, na_rep="-"))
    for error in errors:
        print(f"not listed: {error}")
    if not len(table) and not errors:
        raise TaggingError(f"{args.models} contains no run. Train one, or choose another folder with --models.")


def list_runs(models: Path) -> tuple[pd.DataFrame, list[TaggingError]]:
    """List the stages of all runs, the newest first.

    Returns:
        A row for each stage, and an error for each stage that cannot be listed.
    """
    rows, errors = [], []
    for path in sorted(models.glob("*/*/settings.json")):
        try:
            rows.append(summarise(StageFolder(path.parent)))
        except TaggingError as error:       # one damaged run must not hide the others
            errors.append(error)
    return pd.DataFrame(sorted(rows, key=lambda row: row["date"], reverse=True)), errors


def summarise(folder: StageFolder) -> dict:
    """Return the row of a stage."""
    settings, recipe, scores_path = folder.settings(), folder.recipe(), folder.path / "scores.json"
    scores = read_json(scores_path, "Train a fold again.") if scores_path.exists() else {}
    score = "-" if not scores else f"{scores['mean']:.4f}"
    spread = f" +- {scores['spread']:.4f}" if scores.get("spread") is not None else ""
    made = settings["made_by"]
    return {"run": folder.run, "stage": folder.path.name, "date": made["date"],
            "folds": f"{len(scores.get('folds', ()))}/{recipe.fold_count}", "lwlrap": score + spread,
            "together": f"{scores['out_of_fold']:.4f}" if scores else "-", "network": recipe.network,
            "minutes": round(scores["seconds"] / 60, 1) if scores.get("seconds") else None,    # not before 18b5648
            "commit": (made["commit"] or "-")[:7] + ("" if made["clean"] else "*")}


def compare(run: list[StageFolder], other: list[StageFolder]) -> None:
    """Print the settings that differ, for each stage that both runs have."""
    for ours, theirs in zip(run, other):
        existing = [folder for folder in (ours, theirs) if folder.settings_path.exists()]
        if len(existing) == 2:
            found = differences(ours.settings(), theirs.settings(), with_origin=True)
            print(f"{ours} and {theirs}:", *(found or ["the same settings"]), sep="\n  ")
        elif existing:
            print(f"only {existing[0]} exists")
    if not any(folder.settings_path.exists() for folder in (*run, *other)):
        raise TaggingError(f"Neither {run[0].path.parent} nor {other[0].path.parent} is a run. Check the names with "
                           "`python -m tools.runs`.")


if __name__ == "__main__":
    run_script(main)
