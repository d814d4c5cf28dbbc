"""List all runs with their scores, newest first; and what differs in the settings of two.

    python -m tools.runs [--models models]
    python -m tools.runs --compare RUN OTHER
"""
import argparse
from pathlib import Path

import pandas as pd

from tagging.cli import run_script
from tagging.errors import TaggingError
from tagging.recipe import STAGES
from tagging.run import StageFolder, stage_folder
from tagging.settings import differences
from tagging.utils.files import read_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the runs lie")
    parser.add_argument("--compare", nargs=2, metavar=("RUN", "OTHER"), help="show what differs in their settings")
    args = parser.parse_args()
    if args.compare:
        compare(*([stage_folder(args.models, run, stage) for stage in STAGES] for run in args.compare))
        return
    table, odd = list_runs(args.models)
    if len(table):
        print(table.to_string(index=False, na_rep="-"))
    for error in odd:
        print(f"not listed: {error}")
    if not len(table) and not odd:
        raise TaggingError(f"{args.models} holds no run. Train one, or name its folder with --models.")


def list_runs(models: Path) -> tuple[pd.DataFrame, list[TaggingError]]:
    """A row for each stage of each run, the newest first; and what is wrong with those that cannot be listed."""
    rows, odd = [], []
    for path in sorted(models.glob("*/*/settings.json")):
        try:
            rows.append(summarise(StageFolder(path.parent)))
        except TaggingError as error:       # one odd run must not hide the others
            odd.append(error)
    return pd.DataFrame(sorted(rows, key=lambda row: row["date"], reverse=True)), odd


def summarise(folder: StageFolder) -> dict:
    """One row of the list."""
    settings, recipe, scores_path = folder.settings(), folder.recipe(), folder.path / "scores.json"
    scores = read_json(scores_path, "Train a fold again.") if scores_path.exists() else {}
    score = "-" if not scores else f"{scores['mean']:.4f}"
    spread = f" +- {scores['spread']:.4f}" if scores.get("spread") is not None else ""
    made = settings["made_by"]
    return {"run": folder.run, "stage": folder.path.name, "date": made["date"],
            "folds": f"{len(scores.get('folds', ()))}/{recipe.fold_count}", "lwlrap": score + spread,
            "together": f"{scores['out_of_fold']:.4f}" if scores else "-", "network": recipe.network,
            "minutes": round(scores["seconds"] / 60, 1) if scores else None,
            "commit": (made["commit"] or "-")[:7] + ("" if made["clean"] else "*")}


def compare(run: list[StageFolder], other: list[StageFolder]) -> None:
    """Print the settings that differ, for each stage that both have."""
    for ours, theirs in zip(run, other):
        both = ours.settings_path.exists(), theirs.settings_path.exists()
        if all(both):
            found = differences(ours.settings(), theirs.settings(), with_origin=True)
            print(f"{ours} and {theirs}:", *(found or ["the same settings"]), sep="\n  ")
        elif any(both):
            print(f"only {(ours if both[0] else theirs)} exists")
    if not any(folder.settings_path.exists() for folder in (*run, *other)):
        raise TaggingError(f"neither {run[0].path.parent} nor {other[0].path.parent} is a run.")


if __name__ == "__main__":
    run_script(main)
