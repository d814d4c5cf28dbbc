"""Fit classical models on features of the clips: in seconds, they say what a data set is worth.

    python -m tools.baseline --data DIR --run tab                           # LightGBM     -> models/tab/
    python -m tools.baseline --data DIR --run tab --model all               # every model  -> models/tab-MODEL/
    python predict.py --data DIR --run net tab                              # blends a network with LightGBM

Each model is an ordinary run. The comparison of the models is in models/RUN/baselines.csv and .md. If the labels of the
test clips are known, it has the score of the test clips.
"""
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro

from tagging.baselines.fitting import STAGE, fit_run
from tagging.baselines.models import BASELINES
from tagging.baselines.runs import load_fold, predict_fold
from tagging.cli import parse, run_script
from tagging.data.competition import Competition, open_competition
from tagging.data.folds import ClipDataset
from tagging.errors import TaggingError, did_you_mean
from tagging.evaluation.ensemble import blend
from tagging.evaluation.error_analysis import out_of_fold
from tagging.evaluation.truth import open_truth, strongest_tag
from tagging.metric import lwlrap
from tagging.modeling.model import CPU
from tagging.options import DataOptions, Flat, ModelsOption, TruthOptions, shown_default
from tagging.recipe import PODIUM, FoldKnobs, Recipe
from tagging.reporting.report import write_run_report
from tagging.run import StageFolder, stage_folder
from tagging.training.stage import StageOptions
from tagging.utils.files import atomic, check_run_folder, read_json
from tools.learning_curve import CurveOptions, add_curve

MODEL_HELP = "\n".join(["Names of one or more models, or all. With several, models/RUN-MODEL is the run of each.",
                        *(f"{name}: {baseline.summary}." for name, baseline in BASELINES.items())])


@dataclass(frozen=True, kw_only=True)
class BaselineOptions(ModelsOption):
    """The run and its models."""
    run: str                                # Name of the run. Its folder is models/NAME.
    model: Annotated[tuple[str, ...], tyro.conf.arg(help=MODEL_HELP)] = ("lightgbm",)
    # Sets whose clips train the models. Scores are always those of curated clips.
    sets: Annotated[Literal["both", "curated"] | None,
                    shown_default("both, if there is a noisy set", "{both,curated}")] = None
    folds: Annotated[tuple[int, ...], shown_default("all")] = ()    # Numbers of the folds to fit, from 1.
    seed: int = 0                           # Seed of the models.
    learning_curve: bool = False            # Also fit one fold on parts of its clips, for the report.
    trim_db: float = 20.0                   # Trim ends that are this many dB below the loudest frame. 0 keeps them.


@dataclass(frozen=True, kw_only=True)
class BaselineTool:
    """tools.baseline."""
    data: Flat[DataOptions]
    run: Flat[BaselineOptions]
    folds: Flat[FoldKnobs]
    truth: Flat[TruthOptions]


def main() -> None:
    args = parse(BaselineTool, __doc__)
    run = args.run
    names = choose_models(run.model)
    folders = {name: stage_folder(run.models, run.run if len(names) == 1 else f"{run.run}-{name}", STAGE)
               for name in names}
    home = stage_folder(run.models, run.run, STAGE).path.parent         # of the comparison
    for folder in folders.values():
        check_run_folder(folder.path)
    competition = open_competition(args.data.data)
    recipe = baseline_recipe(competition, run, args.folds)
    options = StageOptions(cache=args.data.cache, devices=[CPU], folds=run.folds, skip_bad=args.data.skip_bad_clips)
    test, rows = None, []
    for name, folder in folders.items():
        fit_run(name, competition, folder, recipe, options)
        test = test or open_truth(competition, args.data.cache, trim_db=recipe.trim_db, path=args.truth.truth,
                                  sample_rate=folder.settings()["sample_rate"], skip_bad=args.data.skip_bad_clips,
                                  usage=args.truth.usage)
        rows.append(compare(folder, test))
        if run.learning_curve:
            fold = (run.folds or (1,))[0]
            add_curve(folder, competition, CurveOptions(run=folder.run, fold=fold), args.data, test, CPU)
        try:
            print(f"-> {write_run_report(folder, competition)}", flush=True)
        except TaggingError as error:       # models and scores are written; a missing report must not fail the run
            print(f"note: no report was written: {error}", file=sys.stderr)
    table = pd.DataFrame(rows)
    write_table(home, table)
    print("\n" + table.drop(columns="settings").to_string(index=False, na_rep="-", float_format="%.4g"))
    print(f"Accuracy and kappa are those of the strongest tag of {'the test' if test else 'the out-of-fold'} clips.\n"
          f"-> {home / 'baselines.csv'}, {home / 'baselines.md'}")


def choose_models(given: Sequence[str]) -> list[str]:
    """Return the names of the models.

    Raises:
        TaggingError: a model is unknown, or none is named.
    """
    for name in given:
        if name not in (*BASELINES, "all"):
            raise TaggingError(f"--model '{name}' is unknown.{did_you_mean(name, list(BASELINES))} Choose "
                               f"{', '.join(BASELINES)} or all.")
    if not given:
        raise TaggingError(f"--model needs a name. Choose {', '.join(BASELINES)} or all.")
    return list(BASELINES) if "all" in given else list(dict.fromkeys(given))


def baseline_recipe(competition: Competition, run: BaselineOptions, folds: FoldKnobs) -> Recipe:
    """Return the knobs of the runs: folds, trimming and sets. Baselines use no others.

    Raises:
        TaggingError: --sets both, and there is no noisy set; or a knob is out of its range.
    """
    has_noisy = competition.has("noisy")
    if run.sets == "both" and not has_noisy:
        raise TaggingError(f"--sets both needs noisy clips, and {competition.root} has none. Choose --sets curated.")
    sets = run.sets or ("both" if has_noisy else "curated")
    print(f"models of {'both sets' if sets == 'both' else 'the curated set'}, {competition.layout.name} layout in "
          f"{competition.root}", flush=True)
    share = PODIUM.noisy_share if sets == "both" else 0.0
    return dataclasses.replace(PODIUM, trim_db=run.trim_db, seed=run.seed, view_speeds=(), noisy_share=share,
                               balance=sets == "both", **dataclasses.asdict(folds))


def compare(folder: StageFolder, test: ClipDataset | None) -> dict:
    """Return the row of a run in the comparison: scores, times in seconds, and size in megabytes."""
    baseline, folds = folder.settings()["baseline"], folder.finished_folds()
    truth, predictions = out_of_fold(folder)
    labels, scores = truth.to_numpy(), predictions.to_numpy()
    row = {"model": baseline["model"], "settings": json.dumps(baseline["settings"]),
           "out_of_fold": lwlrap(truth=labels, scores=scores), "test": None}
    seconds = None
    if test:
        classes = tuple(folder.settings()["classes"])
        models = [load_fold(folder, fold, classes, CPU) for fold in folds]
        predict_fold(models[0], test)       # computes the features, whose time is not that of the models
        started = time.perf_counter()
        found = blend([predict_fold(model, test) for model in models])
        seconds = time.perf_counter() - started
        labels, scores = test.targets, found.to_numpy()
        row["test"] = lwlrap(truth=labels, scores=scores)
    row["accuracy"], row["kappa"] = strongest_tag(truth=labels, scores=scores)
    records = [read_json(folder.record(fold), "Fit the fold again.") for fold in folds]
    return row | {"fit_seconds": sum(record["fit_seconds"] for record in records), "predict_seconds": seconds,
                  "megabytes": sum(folder.weights(fold).stat().st_size for fold in folds) / 1e6}


def write_table(home: Path, table: pd.DataFrame) -> None:
    """Write the comparison as baselines.csv and as a Markdown table in baselines.md."""
    with atomic(home / "baselines.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    cells = [list(table), ["---"] * len(table.columns),
             *([f"{value:.4g}" if isinstance(value, float) else str(value) for value in row]
               for row in table.astype(object).where(table.notna(), "-").itertuples(index=False))]
    with atomic(home / "baselines.md") as temporary:
        temporary.write_text("".join(f"| {' | '.join(row)} |\n" for row in cells), encoding="utf-8")


if __name__ == "__main__":
    run_script(main, resumable=True)
