"""Average all folds of the named runs, with or without test-time augmentation -> submissions/"""
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from tagging.cli import Common, parse
from tagging.competition import open_competition
from tagging.ensemble import blend, class_means, fill_rows, fit_weights, nested_blend, write_submission
from tagging.errors import TaggingError, run_script
from tagging.infer import probabilities
from tagging.metric import lwlrap
from tagging.model import choose_device, explain_memory
from tagging.run import StageFolder, stage_folder
from tagging.waves import open_store


@dataclass(frozen=True, kw_only=True)
class Predict(Common):
    run: tuple[str, ...]                    # one or more runs
    out: Path | None = None                 # the csv to write; default is submissions/RUN.csv, or RUN-noisy.csv
    tta: int | None = None                  # views beside the plain one; default: as many as the recipe has view speeds
    mean: Literal["arithmetic", "geometric"] = "arithmetic"     # over folds and runs
    weights: Literal["equal", "fitted"] = "equal"               # of the runs; fitted to their out-of-fold predictions
    balance: Literal["recipe", "on", "off"] = "recipe"          # divide each class by its mean over the clips
    stage: Literal["noisy", "curated"] = "curated"              # noisy shows what stage 1 alone is worth
    folds: tuple[int, ...] = ()             # which folds' models; all that are finished, if none is named


def main() -> None:
    args = parse(Predict, __doc__)
    if (args.tta or 0) < 0 or not args.run:
        raise TaggingError("--tta must not be negative, and --run must name a run.")
    device = choose_device(args.device)
    competition = open_competition(args.data)
    test = competition.clips("test")

    # All that can be wrong with a run is found before the first clip is predicted.
    folders = [stage_folder(args.models, run, args.stage) for run in dict.fromkeys(args.run)]
    recipes = {folder: folder.recipe() for folder in folders}
    folds_of = {folder: folder.choose_folds(args.folds) for folder in folders}
    for folder, folds in folds_of.items():
        for fold in folds:
            folder.load(fold, competition.classes, torch.device("cpu"))
    truth = folders[0].truth()      # the labels that a blend is fitted to and scored by
    weights, known = blend_out_of_fold(folds_of, truth, args)
    if weights is not None:
        print("weights:", ", ".join(f"{folder} {weight:.3g}" for folder, weight in zip(folders, weights)), flush=True)
        folders = [folder for folder, weight in zip(folders, weights) if weight > 0]
        weights = weights[weights > 0]

    predictions = []
    for folder in folders:
        recipe, folds = recipes[folder], folds_of[folder]
        clips, store = open_store(test, recipe.trim, args.cache, skip_bad=args.skip_bad_clips,
                                  sample_rate=folder.settings()["sample_rate"])
        if len(folds) < recipe.fold_count:
            print(f"{folder}: {len(folds)} of {recipe.fold_count} folds")
        tta = recipe.views(args.tta)
        if tta:
            print(f"{folder}: {tta} views beside the plain one")
        models = []
        for fold in folds:
            model = folder.load(fold, competition.classes, device)
            with explain_memory("Choose --device cpu, or a GPU with more memory."):
                scores = probabilities(model, store, tta=tta, progress=f"{folder} fold {fold}")
            models.append(pd.DataFrame(scores, clips.fnames, competition.classes))
            print(f"{folder.weights(fold)}  out-of-fold lwlrap {model.about.score:.4f}", flush=True)
        predictions.append(blend(models, args.mean))

    submission = blend(predictions, args.mean, weights)
    if args.balance == "on" or (args.balance == "recipe" and all(recipes[folder].balance for folder in folders)):
        means = class_means(submission, known)      # a few test clips alone have no mean to trust
        submission, known = submission / means, known / means
    submission = fill_rows(submission, test.fnames)
    stage = "" if args.stage == "curated" else f"-{args.stage}"
    out = args.out or Path("submissions") / f"{'+'.join(dict.fromkeys(args.run))}{stage}.csv"
    write_submission(out, submission, test.fnames, competition.classes)
    print_out_of_fold(known, truth)
    print(f"{len(submission)} clips x {len(competition.classes)} classes -> {out}")


def blend_out_of_fold(folds_of: dict[StageFolder, list[int]], truth: pd.DataFrame,
                      args: Predict) -> tuple[np.ndarray | None, pd.DataFrame]:
    """Weights of the runs, fitted before any balancing, or None for equal ones; and the blend for the clips that every
    run has out-of-fold predictions of, one model of each run a clip."""
    frames = [folder.out_of_fold(folds) for folder, folds in folds_of.items()]
    shared = [fname for fname in frames[0].index if all(fname in frame.index for frame in frames)]
    frames = [frame.loc[shared] for frame in frames]
    if args.weights == "equal" or len(frames) == 1:
        return None, blend(frames, args.mean)
    truth = truth.loc[shared, frames[0].columns]
    folds = next(iter(folds_of)).clips()["fold"].loc[shared]
    nested = nested_blend(frames, truth, folds, args.mean)
    return fit_weights(frames, truth, args.mean), nested


def print_out_of_fold(scores: pd.DataFrame, truth: pd.DataFrame) -> None:
    if scores.empty:
        return print("The runs share no out-of-fold clip, so the blend has no out-of-fold score.")
    score = lwlrap(truth=truth.loc[scores.index, scores.columns].to_numpy(), scores=scores.to_numpy())
    print(f"out-of-fold lwlrap of the blend {score:.5f} ({len(scores)} clips, the plain view, one model of each run a "
          "clip)")


if __name__ == "__main__":
    run_script(main, goes_on=True)
