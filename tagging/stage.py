"""One stage of the recipe, all its folds. Stage 2 differs from stage 1 by its data, its schedule and its start."""
import platform
import resource
import time
from pathlib import Path

import pandas as pd
import torch

from tagging.competition import Competition
from tagging.errors import TaggingError, shorten
from tagging.files import seed_for
from tagging.folds import assign_folds
from tagging.infer import probabilities
from tagging.metric import lwlrap
from tagging.model import About, Model
from tagging.recipe import Recipe
from tagging.run import StageFolder, made_by
from tagging.train import measure_normalisation, train_model
from tagging.waves import open_store


def train_stage(stage: str, competition: Competition, folder: StageFolder, recipe: Recipe, *, folds: tuple[int, ...],
                cache: Path, device: torch.device, skip_bad: bool = False, start: StageFolder | None = None) -> None:
    """Train the models of the given folds, each with its out-of-fold predictions, and score them.

    Folds that are finished already are kept.

    Args:
        stage: noisy or curated: the clips, and the schedule of the recipe.
        folds: from 1; all of them if empty.
        start: the stage whose weights of the same fold each model starts from; None starts from random weights.
    Raises:
        TaggingError: for all that is wrong with data, settings or earlier weights, before any training starts.
    """
    folds = folds or tuple(range(1, recipe.fold_count + 1))
    wrong = sorted(set(folds) - set(range(1, recipe.fold_count + 1)))
    if wrong:
        raise TaggingError(f"--folds {shorten(wrong)} is not among 1 to {recipe.fold_count} (--fold-count).")
    if start:
        check_folds(start, folds)
    clips = competition.clips(stage)
    fold_of = assign_folds(clips.targets, recipe.fold_count, recipe.fold_seed, recipe.stratified)
    fold_of = pd.Series(fold_of, clips.fnames)
    clips, store = open_store(clips, recipe.trim, cache, skip_bad=skip_bad)
    competition.check_every_class(clips)
    fold_of = fold_of[clips.fnames].to_numpy()                                      # (clips,)
    initial = load_initial(start, folds, competition.classes, store.rate, recipe) if start else {}
    source = start.path.parent.name if start else "scratch"
    folder.begin(recipe, competition.classes, store.rate, clips, fold_of, source)

    print(f"{stage} stage, run {folder.path.parent.name}: {len(clips)} clips of {len(competition.classes)} classes, "
          f"{store.hours:.1f} h at {store.rate} Hz after trimming, {recipe.network}\n"
          f"on {describe(device)}", flush=True)
    for fold in dict.fromkeys(folds):
        if fold in folder.finished_folds():
            print(f"fold {fold} is finished: {folder.weights(fold)}", flush=True)
            continue
        started = time.perf_counter()
        about = About(stage, fold, competition.classes, store.rate, recipe)
        torch.manual_seed(seed_for(recipe.seed, stage, fold, "weights"))
        model = Model(about).to(device)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.cuda.reset_peak_memory_stats(device)
            model.network.to(memory_format=torch.channels_last)
        if start:
            model.network.load_state_dict(initial[fold])

        seen, unseen = fold_of != fold, fold_of == fold
        train, valid = store.subset(seen), store.subset(unseen)
        if recipe.normalise:
            mean, deviation = measure_normalisation(model, train)
            model.describe(mean=mean, deviation=deviation)
        train_model(model, train, clips.targets[seen], valid, clips.targets[unseen], f"{stage} fold {fold}",
                    folder.log(fold))

        predicted = probabilities(model, valid, progress=f"{stage} fold {fold} out-of-fold")
        score = lwlrap(truth=clips.targets[unseen], scores=predicted)
        model.describe(score=score)
        folder.finish(fold, model, pd.DataFrame(predicted, clips.fnames[unseen], competition.classes), {
            "lwlrap": score, "clips": int(unseen.sum()), "seconds": round(time.perf_counter() - started, 1),
            "device": describe(device), "peak_memory_mb": peak_memory(device), **made_by()})
        print(f"{stage} fold {fold}  lwlrap {score:.4f}  {time.perf_counter() - started:.0f} s  "
              f"-> {folder.weights(fold)}", flush=True)
    print_scores(stage, folder)


def check_folds(start: StageFolder, folds: tuple[int, ...]) -> None:
    """
    Raises:
        TaggingError: a fold that stage 2 shall start from is not finished.
    """
    missing = sorted(set(folds) - set(start.finished_folds()))
    if missing:
        raise TaggingError(f"{start} lacks the weights of fold {shorten(missing)}. Run train_noisy.py for them, name "
                           "another run with --noisy-run, or start from random weights with --from-scratch.")


def load_initial(start: StageFolder, folds: tuple[int, ...], classes: tuple[str, ...], rate: int,
                 recipe: Recipe) -> dict[int, dict[str, torch.Tensor]]:
    """The stage-1 weights of each fold, checked before stage 2 begins.

    Raises:
        TaggingError: weights of another network, other classes or another sample rate.
    """
    initial = {}
    for fold in folds:
        model = start.load(fold, classes, torch.device("cpu"))
        about = model.about
        if (about.recipe.network, about.rate) != (recipe.network, rate):
            raise TaggingError(f"{start.weights(fold)} is {about.recipe.network} at {about.rate} Hz, and this stage is "
                               f"{recipe.network} at {rate} Hz. Choose the same --network and clips of the same rate.")
        initial[fold] = model.network.state_dict()
    return initial


def print_scores(stage: str, folder: StageFolder) -> None:
    scores = folder.write_scores()
    print(f"\n{stage} stage of {folder.path.parent.name}, out-of-fold lwlrap")
    for fold, score in scores["folds"].items():
        print(f"  fold {fold}   {score:.5f}")
    spread = "" if scores["spread"] is None else f" +- {scores['spread']:.5f}"
    print(f"  mean     {scores['mean']:.5f}{spread}\n  together {scores['out_of_fold']:.5f}  "
          f"({scores['clips']} clips)\n-> {folder.path / 'scores.json'}", flush=True)


def describe(device: torch.device) -> str:
    """Device and precision, for people."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, bf16 network and fp32 front end, channels last"
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads), fp32"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak megabytes of this process: of the host, and of the device."""
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak
