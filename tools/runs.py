"""List all runs with their scores, or compare the settings of two runs.

The runs are in groups with the same data set and the same recipe, the newest first. Compare scores only within a group.
The recipe is the named one with the fewest differences.

    python -m tools.runs [--models models]
    python -m tools.runs --compare RUN OTHER
"""
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Annotated

import pandas as pd

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.options import ModelsOption, shown_default
from tagging.provenance import show_date
from tagging.recipe import STAGES
from tagging.reporting.sections import closest_recipe
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
    for number, (data, recipe, rows) in enumerate(run_groups(table)):
        print("\n" * (number > 0) + f"data set {data}, recipe {recipe}")
        print(indent(rows.to_string(index=False, na_rep="-"), "  "))
    for error in errors:
        print(f"not listed: {error}")
    if not len(table) and not errors:
        raise TaggingError(f"{args.models} contains no run. Train one, or choose another folder with --models.")


def list_runs(models: Path) -> tuple[pd.DataFrame, list[TaggingError]]:
    """List the stages of all runs, the newest first.

    Returns:
        A row for each stage, and an error for each stage that cannot be listed. The columns data and recipe are those
        of `run_groups`.
    """
    rows, errors = [], []
    for path in sorted(models.glob("*/*/settings.json")):
        try:
            rows.append(summarise(StageFolder(path.parent)))
        except TaggingError as error:       # one damaged run must not hide the others
            errors.append(error)
    name_versions(rows)
    table = pd.DataFrame(sorted(rows, key=lambda row: row["at"], reverse=True))
    return table.drop(columns=["at", "files"], errors="ignore"), errors


def run_groups(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the data set, the recipe and the rows of each group of `list_runs`, the group of the newest run first."""
    if len(table):
        for (data, recipe), rows in table.groupby(["data", "recipe"], sort=False):
            yield data, recipe, rows.drop(columns=["data", "recipe"])


def summarise(folder: StageFolder) -> dict:
    """Return the row of a stage."""
    settings, recipe, scores_path = folder.settings(), folder.recipe(), folder.path / "scores.json"
    scores = read_json(scores_path, "Train a fold again.") if scores_path.exists() else {}
    score = "-" if not scores else f"{scores['mean']:.4f}"
    spread = f" +- {scores['spread']:.4f}" if scores.get("spread") is not None else ""
    made = settings["made_by"]
    return {"data": data_name(made["command"]),
            "recipe": "baseline" if settings["baseline"] else closest_recipe(recipe)[0],
            "run": folder.run, "stage": folder.path.name, "date": show_date(made["date"]),
            "folds": f"{len(scores.get('folds', ()))}/{recipe.fold_count}", "lwlrap": score + spread,
            "together": f"{scores['out_of_fold']:.4f}" if scores else "-", "network": recipe.network,
            "minutes": round(scores["seconds"] / 60, 1) if scores.get("seconds") else None,    # not before 18b5648
            "commit": (made["commit"] or "-")[:7] + ("" if made["clean"] else "*"),
            "at": sort_key(made["date"]), "files": made["files"]}


def data_name(command: str) -> str:
    """Return the name of the data set in a recorded command: that of its folder."""
    words = shlex.split(command)
    values = [word.removeprefix("--data=") for word in words if word.startswith("--data=")]
    values += [value for word, value in pairwise(words) if word == "--data"]
    name = Path(values[-1]).name if values else ""
    return name if name not in ("", "PATH") else "unknown"      # tools.publish removes paths


def name_versions(rows: list[dict]) -> None:
    """Add a checksum to the name of a data set whose csv file differs between the runs, or whose name is unknown."""
    versions: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for file, checksum in row["files"].items():
            versions.setdefault((row["data"], file), set()).add(checksum)
    for row in rows:
        shown = [f"{file} {checksum[:7]}" for file, checksum in row["files"].items()
                 if row["data"] == "unknown" or len(versions[row["data"], file]) > 1]
        if shown:
            row["data"] = f"{row['data']} ({', '.join(shown)})"


def sort_key(date: str) -> float:
    """Return the seconds since 1970 of a recorded date, for any time zone. Runs before 18b5648 have no date: 0."""
    return datetime.fromisoformat(date).timestamp() if date else 0.0


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
