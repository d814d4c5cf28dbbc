"""Average the predictions of all folds of the named runs, optionally with test-time augmentation -> submissions/"""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd

from tagging.baselines.runs import load_fold, predict_fold
from tagging.cli import parse, run_script
from tagging.data.competition import open_competition
from tagging.data.folds import ClipDataset
from tagging.data.waveforms import open_store
from tagging.errors import TaggingError
from tagging.evaluation.ensemble import blend, class_means, fill_rows, fit_weights, nested_blend, write_submission
from tagging.metric import lwlrap
from tagging.modeling.model import CPU
from tagging.options import DataOptions, DeviceOption, Flat, ModelsOption, shown_default
from tagging.run import StageFolder, stage_folder
from tagging.utils.devices import choose_device
from tagging.utils.files import check_file
from tagging_lite.audio import make_trim


@dataclass(frozen=True, kw_only=True)
class RunOptions(ModelsOption, DeviceOption):
    """The runs to predict with."""
    run: tuple[str, ...]                    # Names of one or more runs.
    stage: Literal["noisy", "curated"] = "curated"      # Stage of the runs. noisy predicts with stage 1 alone.
    folds: Annotated[tuple[int, ...], shown_default("all finished ones")] = ()  # Folds whose models are used.
    # Number of views of each clip besides the plain one.
    tta: Annotated[int | None, shown_default("one for each view speed of the recipe", "INT")] = None


@dataclass(frozen=True, kw_only=True)
class EnsembleOptions:
    """How predictions become a submission."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"     # Kind of mean over folds and runs.
    weights: Literal["equal", "fitted"] = "equal"   # Weights of the runs. fitted uses their out-of-fold predictions.
    balance: Literal["recipe", "on", "off"] = "recipe"      # Divide each class by its mean over the clips.
    out: Annotated[Path | None, shown_default("submissions/RUN.csv", "PATH")] = None    # Csv to write.


@dataclass(frozen=True, kw_only=True)
class Predict:
    """predict.py."""
    data: Flat[DataOptions]
    run: Flat[RunOptions]
    ensemble: Flat[EnsembleOptions]


def main() -> None:
    args = parse(Predict, __doc__)
    run, ensemble = args.run, args.ensemble
    if (run.tta or 0) < 0 or not run.run:
        raise TaggingError("--tta must not be negative, and --run must name a run.")
    # Everything that can be wrong with the output, the data and the runs is found before the first clip is predicted.
    folders = [stage_folder(run.models, name, run.stage) for name in dict.fromkeys(run.run)]
    stage = "" if run.stage == "curated" else f"-{run.stage}"
    out = ensemble.out or Path("submissions") / f"{'+'.join(dict.fromkeys(run.run))}{stage}.csv"
    check_file(out, "--out")
    device = choose_device(run.device)
    competition = open_competition(args.data.data)
    test = competition.clips("test")

    recipes = {folder: folder.recipe() for folder in folders}
    folds_of = {folder: folder.choose_folds(run.folds) for folder in folders}
    for folder, folds in folds_of.items():
        for fold in folds:
            load_fold(folder, fold, competition.classes, CPU)
    truth = folders[0].truth()      # the labels to which a blend is fitted and by which it is scored
    weights, known = blend_out_of_fold(folds_of, truth, ensemble)
    if weights is not None:
        print("weights:", ", ".join(f"{folder} {weight:.3g}" for folder, weight in zip(folders, weights)), flush=True)
        folders = [folder for folder, weight in zip(folders, weights) if weight > 0]
        weights = weights[weights > 0]

    clips_of = {}
    for folder in folders:
        usable, store = open_store(test, make_trim(recipes[folder].trim_db), args.data.cache,
                                   skip_bad=args.data.skip_bad_clips, sample_rate=folder.settings()["sample_rate"])
        clips_of[folder] = ClipDataset(usable.fnames, store, usable.targets)

    predictions = []
    for folder in folders:
        recipe, folds, clips = recipes[folder], folds_of[folder], clips_of[folder]
        if len(folds) < recipe.fold_count:
            print(f"{folder}: {len(folds)} of {recipe.fold_count} folds")
        tta = recipe.views(run.tta)
        if tta and folder.settings()["baseline"]:
            print(f"{folder}: a baseline has the plain view only")
        elif tta:
            print(f"{folder}: {tta} views besides the plain one")
        models = []
        for fold in folds:
            model = load_fold(folder, fold, competition.classes, device)
            models.append(predict_fold(model, clips, tta=tta, progress=f"{folder} fold {fold}"))
            print(f"{folder.weights(fold)}  out-of-fold lwlrap {model.metadata.score:.4f}", flush=True)
        predictions.append(blend(models, ensemble.mean))

    submission = blend(predictions, ensemble.mean, weights)
    if ensemble.balance == "on" or (ensemble.balance == "recipe" and all(recipes[each].balance for each in folders)):
        means = class_means(submission, known)      # the means of a few test clips alone are not reliable
        submission, known = submission / means, known / means
    submission = fill_rows(submission, test.fnames)
    write_submission(out, submission, test.fnames, competition.classes)
    print_out_of_fold(known, truth)
    print(f"{len(submission)} clips x {len(competition.classes)} classes -> {out}")


def blend_out_of_fold(folds_of: dict[StageFolder, list[int]], truth: pd.DataFrame,
                      options: EnsembleOptions) -> tuple[np.ndarray | None, pd.DataFrame]:
    """Fit the weights of the runs, and blend their out-of-fold predictions.

    Returns:
        The weights, or None for equal ones; and the blend for the clips of which every run has an out-of-fold
        prediction, before any balancing.
    """
    frames = [folder.out_of_fold(folds) for folder, folds in folds_of.items()]
    shared = [fname for fname in frames[0].index if all(fname in frame.index for frame in frames)]
    frames = [frame.loc[shared] for frame in frames]
    if options.weights == "equal" or len(frames) == 1:
        return None, blend(frames, options.mean)
    truth = truth.loc[shared, frames[0].columns]
    fold_of = next(iter(folds_of)).clips()["fold"].loc[shared]
    nested = nested_blend(frames, truth, fold_of, options.mean)
    return fit_weights(frames, truth, options.mean), nested


def print_out_of_fold(scores: pd.DataFrame, truth: pd.DataFrame) -> None:
    if scores.empty:
        print("The runs share no out-of-fold clip, so the blend has no out-of-fold score.")
        return
    score = lwlrap(truth=truth.loc[scores.index, scores.columns].to_numpy(), scores=scores.to_numpy())
    print(f"out-of-fold lwlrap of the blend {score:.5f} ({len(scores)} clips, the plain view, one model of each run "
          "for each clip)")


if __name__ == "__main__":
    run_script(main, resumable=True)
