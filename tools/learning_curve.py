"""Compute the learning curve of a run over the number of training clips, which tells bias from variance.

    python -m tools.learning_curve --data DIR --run NAME [--shares 0.125 0.25 0.5]

One fold of the run is trained again on parts of its training clips, with the settings of the run. The curve ends with
the run's own model. It is in models/RUN/STAGE/learning_curve.csv and in the report. The models of the parts are in
models/RUN/STAGE/parts/.
"""
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch

from tagging.baselines.fitting import fit_fold
from tagging.baselines.runs import BaselineModel, load_baseline, load_fold, predict_fold
from tagging.cli import parse, run_script
from tagging.data.competition import Competition, open_competition
from tagging.data.folds import ClipDataset, open_folds
from tagging.errors import TaggingError, shorten
from tagging.evaluation import learning_curve
from tagging.evaluation.truth import open_truth
from tagging.metric import lwlrap
from tagging.modeling.model import Model, load_model
from tagging.options import DataOptions, DeviceOption, Flat, RunOptions, TruthOptions
from tagging.recipe import require
from tagging.reporting.report import write_run_report
from tagging.run import StageFolder, stage_folder
from tagging.training import distributed
from tagging.training.stage import load_initial, train_fold
from tagging.utils.devices import choose_device


@dataclass(frozen=True, kw_only=True)
class CurveOptions(DeviceOption, RunOptions):
    """The run and the points of its curve."""
    fold: int = 1                                       # Number of the fold whose model is trained on parts, from 1.
    shares: tuple[float, ...] = (0.125, 0.25, 0.5)      # Parts of the training clips, above 0 and below 1.


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """tools.learning_curve."""
    data: Flat[DataOptions]
    run: Flat[CurveOptions]
    truth: Flat[TruthOptions]


def main() -> None:
    args = parse(LearningCurve, __doc__)
    run = args.run
    folder, device = stage_folder(run.models, run.run, run.stage), choose_device(run.device)
    competition = open_competition(args.data.data)
    settings = folder.settings()
    test = open_truth(competition, args.data.cache, trim_db=folder.recipe().trim_db, path=args.truth.truth,
                      sample_rate=settings["sample_rate"], skip_bad=args.data.skip_bad_clips, usage=args.truth.usage)
    add_curve(folder, competition, run, args.data, test, device)
    if run.stage == "curated":
        print(f"-> {write_run_report(folder, competition)}")


def add_curve(folder: StageFolder, competition: Competition, options: CurveOptions, data: DataOptions,
              test: ClipDataset | None, device: torch.device) -> None:
    """Compute the learning curve of a run, print it, and write it into the folder of the run.

    Args:
        test: the test clips with their labels, if these are known.
    Raises:
        TaggingError: an option is out of its range, the fold is not finished, or the data are not those of the run.
    """
    require(options.shares and all(0 < share < 1 for share in options.shares), "--shares must be above 0 and below 1")
    fold, settings, recipe, stage = options.fold, folder.settings(), folder.recipe(), folder.path.name
    if fold not in folder.finished_folds():
        raise TaggingError(f"{folder} has no finished fold {fold}. Train it first, or choose another --fold: "
                           f"{shorten(folder.finished_folds())}.")
    folded = open_folds(stage, competition, recipe, data.cache, data.skip_bad_clips, settings["sample_rate"])
    labels = folder.path / "noisy_labels.csv" if settings["noisy_labels"] else None
    noisy = None
    if recipe.mixes_sets(stage):
        noisy = open_folds("noisy", competition, recipe, data.cache, data.skip_bad_clips, settings["sample_rate"])
    # For a run that exists, this checks that the data are those of the run.
    folder.begin(recipe, competition.classes, folded.clips, folded.store, folded.fold_of, settings["initial_weights"],
                 noisy.fingerprint() if noisy else None, labels, settings["baseline"])
    if noisy and labels:
        noisy = noisy.relabelled(labels, competition.classes)
    last = load_fold(folder, fold, competition.classes, device)
    train, valid, rows = folded.train(fold), folded.valid(fold), []
    fit = part_trainer(folder, last, valid, device)
    for share in (*sorted(set(options.shares)), 1.0):
        part, beside = (clips and (clips if share == 1 else learning_curve.draw_part(clips, share, recipe.seed))
                        for clips in (train, noisy.train(fold) if noisy else None))
        assert part is not None
        model = last if share == 1 else fit(part, beside, StageFolder(folder.path / "parts" / f"{share:g}"))
        rows.append({"clips": len(part) + (len(beside) if beside else 0), "training": score(model, part),
                     "out_of_fold": score(model, valid), "test": score(model, test) if test else None})
        print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items() if value is not None), flush=True)
    table = pd.DataFrame(rows)
    learning_curve.write_curve(folder.path / learning_curve.NAME, table)
    print(f"{learning_curve.explain_curve(table)}\n-> {folder.path / learning_curve.NAME}", flush=True)


AnyModel = Model | BaselineModel


def part_trainer(folder: StageFolder, last: AnyModel, valid: ClipDataset, device: torch.device,
                 ) -> Callable[[ClipDataset, ClipDataset | None, StageFolder], AnyModel]:
    """Return a function that trains a model like `last` on a part of its training clips, and of its noisy clips.

    The function keeps a model that is finished, and resumes one that was interrupted.
    """
    recipe, settings, metadata = folder.recipe(), folder.settings(), last.metadata
    fold, start, initial = metadata.fold, settings["initial_weights"], None
    if start != "scratch":
        stage = stage_folder(folder.path.parents[1], start, "noisy")
        initial = load_initial(stage, (fold,), metadata.classes, metadata.sample_rate, recipe)[fold]

    def fit(train: ClipDataset, noisy: ClipDataset | None, part: StageFolder) -> AnyModel:
        with part.fold_lock(fold), distributed.defer_signals():
            if fold not in part.finished_folds():
                if isinstance(last, BaselineModel):
                    fit_fold(part, replace(last.metadata, score=None), train, valid, recipe.seed, noisy)
                else:
                    train_fold(part, replace(last.metadata, mean=0.0, std=1.0, score=None), train, valid, device,
                               initial=initial, noisy=noisy)
        path = part.weights(fold)
        return load_baseline(path) if isinstance(last, BaselineModel) else load_model(path, device)
    return fit


def score(model: AnyModel, clips: ClipDataset) -> float:
    """Return the lwlrap of a model on clips with their labels."""
    return lwlrap(truth=clips.targets > 0, scores=predict_fold(model, clips).to_numpy())


if __name__ == "__main__":
    run_script(main, resumable=True)
