"""One stage of the recipe, all its folds. Stage 2 differs from stage 1 by its data, its schedule and its start."""
import platform
import resource
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tagging import distributed
from tagging.batches import Examples
from tagging.competition import Clips, Competition
from tagging.errors import TaggingError, shorten
from tagging.files import fingerprint, seed_for
from tagging.folds import assign_folds
from tagging.infer import probabilities
from tagging.metric import lwlrap
from tagging.model import About, Model, explain_memory, network_shapes
from tagging.network import has_bf16
from tagging.recipe import Recipe
from tagging.run import StageFolder, made_by
from tagging.side_by_side import train_side_by_side
from tagging.tables import read_soft_labels
from tagging.train import train_model
from tagging.waves import WaveStore, open_store
from tagging.weights import checksum


@dataclass(frozen=True)
class FoldedClips:
    """A set of clips, and the fold of each."""
    clips: Clips
    store: WaveStore
    fold_of: np.ndarray         # (clips,) from 1

    def of(self, fold: int) -> Examples:
        return self.examples(self.fold_of == fold)

    def but(self, fold: int) -> Examples:
        return self.examples(self.fold_of != fold)

    def examples(self, mask: np.ndarray) -> Examples:
        return Examples(self.clips.fnames[mask], self.store.subset(mask), self.clips.targets[mask])

    def relabelled(self, path: Path, classes: tuple[str, ...]) -> "FoldedClips":
        """Those of the clips that a csv of soft labels names, with its labels.

        Raises:
            TaggingError: as `read_soft_labels`; or a clip that is none of these, or clips of a single fold.
        """
        labels = read_soft_labels(path, classes)
        unknown = labels.index.difference(self.clips.fnames)
        if len(unknown):
            raise TaggingError(f"{path} names {len(unknown)} clips that are not among the usable ones of "
                               f"{self.clips.csv}: {shorten(list(unknown), 3)}. Remove these rows, or take the data "
                               "that it is made of.")
        keep = self.clips.fnames.isin(labels.index)
        clips, fold_of = self.clips.subset(keep), self.fold_of[keep]
        if len(np.unique(fold_of)) < 2:
            raise TaggingError(f"{path} has clips of fold {fold_of[0]} only, and that fold's model may see none of "
                               "them. Keep more rows.")
        clips = replace(clips, targets=labels.loc[clips.fnames].to_numpy(np.float32))
        return FoldedClips(clips, self.store.subset(keep), fold_of)

    def fingerprint(self) -> str:
        """What tells names, labels, samples or folds apart from others."""
        return fingerprint(*(part.tolist() for part in (self.clips.fnames, self.clips.targets, self.store.checksums,
                                                        self.fold_of)))


def open_folds(part: str, competition: Competition, recipe: Recipe, cache: Path, skip_bad: bool = False,
               sample_rate: int | None = None) -> FoldedClips:
    """The clips of the curated or of the noisy set. A clip has the same fold in both stages, so that no model of a
    fold has seen the noisy clips of that fold either.

    Args:
        skip_bad, sample_rate: as for `open_store`.
    """
    clips = competition.clips(part)
    fold_of = pd.Series(assign_folds(clips.targets, recipe.fold_count, recipe.fold_seed, recipe.stratified),
                        clips.fnames)
    clips, store = open_store(clips, recipe.trim, cache, skip_bad=skip_bad, sample_rate=sample_rate)
    competition.check_every_class(clips)
    return FoldedClips(clips, store, fold_of[clips.fnames].to_numpy())


def train_stage(stage: str, competition: Competition, folder: StageFolder, recipe: Recipe, *, folds: tuple[int, ...],
                cache: Path, devices: list[torch.device], skip_bad: bool = False, start: StageFolder | None = None,
                parts: int = 1, noisy_labels: Path | None = None) -> None:
    """Train the models of the given folds, each with its out-of-fold predictions, and score them.

    Folds that are finished are kept; one that was cut short goes on where it was.

    Args:
        stage: noisy or curated: the clips, and the schedule of the recipe.
        folds: from 1; all of them if empty.
        devices: one, or several to train on side by side, a fold on each.
        start: the stage whose weights of the same fold each model starts from; None starts from random weights.
        parts: of each batch, one after the other.
        noisy_labels: csv of soft labels for the noisy clips that go along; without it they have their own.
    Raises:
        TaggingError: for all that is wrong with data, settings or earlier weights, before any training starts; at the
            end for folds that failed side by side.
    """
    folds = tuple(dict.fromkeys(folds)) or tuple(range(1, recipe.fold_count + 1))
    wrong = sorted(set(folds) - set(range(1, recipe.fold_count + 1)))
    if wrong:
        raise TaggingError(f"--folds {shorten(wrong)} is not among 1 to {recipe.fold_count} (--fold-count).")
    if stage not in recipe.stages:
        raise TaggingError(f"The recipe has no {stage} stage: train_curated.py is all. Or choose another --recipe.")
    if not 1 <= parts <= recipe.batch_size // 2:
        raise TaggingError(f"--accumulate must be 1 to {recipe.batch_size // 2}, half of --batch-size.")
    if noisy_labels and not recipe.mixes_sets(stage):
        raise TaggingError("--noisy-labels needs a recipe that trains on both sets at once, such as podium, or "
                           "--noisy-share.")
    if start:
        check_folds(start, folds)

    folded = open_folds(stage, competition, recipe, cache, skip_bad)
    clips, store = folded.clips, folded.store
    noisy, marks = None, {}
    if recipe.mixes_sets(stage):
        noisy = open_folds("noisy", competition, recipe, cache, skip_bad, store.sample_rate)
        marks["noisy"] = noisy.fingerprint()
        if noisy_labels:
            noisy, marks["noisy_labels"] = noisy.relabelled(noisy_labels, competition.classes), noisy_labels
    initial = load_initial(start, folds, competition.classes, store.sample_rate, recipe) if start else {}
    if distributed.is_main():
        folder.begin(recipe, competition.classes, clips, store, folded.fold_of, start.run if start else "scratch",
                     **marks)

    labelled = f" with the labels of {noisy_labels}" if noisy_labels else ""
    beside = f"and {len(noisy.clips)} of the noisy set{labelled}, " if noisy else ""
    print(f"{stage} stage, run {folder.run}: {len(clips)} clips of {len(competition.classes)} classes, {beside}"
          f"{store.hours:.1f} h at {store.sample_rate} Hz after trimming, {recipe.network}\n"
          f"on {describe_device(devices[0]) if len(devices) == 1 else ', '.join(map(str, devices))}", flush=True)
    failures = {}
    if len(devices) > 1:
        missing = [fold for fold in folds if not is_finished(folder, fold)]
        failures = train_side_by_side(stage, missing, devices, sum(recipe.schedule(stage).epochs))
    else:
        for fold in folds:
            with folder.fold_lock(fold) if distributed.is_main() else nullcontext(), distributed.in_step():
                if distributed.told(is_finished(folder, fold)):
                    continue
                about = About(stage, fold, competition.classes, store.sample_rate, recipe)
                train_fold(folder, about, folded.but(fold), folded.of(fold), devices[0], initial.get(fold), parts,
                           noisy and noisy.but(fold))
                distributed.stop_together()
            if distributed.is_main():
                folder.update_scores()
    if distributed.is_main() and folder.finished_folds():
        print_scores(stage, folder)
    if failures:
        raise TaggingError("".join(f"{stage} fold {fold} failed: {reason}\n" for fold, reason in failures.items())
                           + "The same command trains what is missing.")


def is_finished(folder: StageFolder, fold: int) -> bool:
    """Whether a fold is finished; says so if it is."""
    finished = fold in folder.finished_folds()
    if finished:
        print(f"fold {fold} is finished: {folder.weights(fold)}", flush=True)
        folder.checkpoint(fold).unlink(missing_ok=True)     # a kill can come just before finish removes it
    return finished


def train_fold(folder: StageFolder, about: About, seen: Examples, unseen: Examples, device: torch.device,
               initial: dict[str, torch.Tensor] | None, parts: int, noisy: Examples | None = None) -> None:
    """Train one model and write what it leaves behind.

    Args:
        seen, unseen: the clips to train on, and those of the fold.
        initial: weights to start from; None for random ones.
        noisy: clips of the noisy set to train on beside `seen`.
    """
    fold, title, origin = about.fold, f"{about.stage} fold {about.fold}", made_by()
    torch.manual_seed(seed_for(about.recipe.seed, about.stage, fold, "weights"))
    model = Model(about).place(device)
    if initial:
        model.network.load_state_dict(initial)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True       # the shapes do not change within a cycle
        torch.cuda.reset_peak_memory_stats(device)
    with explain_memory("Add --accumulate 2 or more: the same command then goes on from the last finished epoch. Or "
                        "train another --run with a smaller --batch-size, smaller sizes or a smaller --network."):
        seconds = train_model(model, seen, unseen, title, folder.log(fold), folder.checkpoint(fold), parts, noisy)
        started = time.perf_counter()
        predicted = distributed.predict_together(probabilities, model, unseen.store, progress=f"{title} out-of-fold")

    seconds += time.perf_counter() - started
    score = lwlrap(truth=unseen.targets, scores=predicted)
    model.amend(score=score)
    if distributed.is_main():
        folder.finish(fold, model, pd.DataFrame(predicted, unseen.fnames, about.classes), {
            "lwlrap": score, "clips": len(predicted), "seconds": round(seconds, 1),
            "initial_weights": checksum(initial, "")[:16] if initial else None,
            "device": describe_device(device), "peak_memory_mb": peak_memory(device), **origin})
    print(f"{title}  lwlrap {score:.4f}  {seconds:.0f} s  -> {folder.weights(fold)}", flush=True)


def check_folds(start: StageFolder, folds: tuple[int, ...]) -> None:
    """
    Raises:
        TaggingError: a fold that stage 2 shall start from is not finished.
    """
    missing = sorted(set(folds) - set(start.finished_folds()))
    if missing:
        raise TaggingError(f"{start} lacks the weights of fold {shorten(missing)}. Run train_noisy.py for them, name "
                           "another run with --noisy-run, or start from random weights with --from-scratch.")


def load_initial(start: StageFolder, folds: tuple[int, ...], classes: tuple[str, ...], sample_rate: int,
                 recipe: Recipe) -> dict[int, dict[str, torch.Tensor]]:
    """The stage-1 weights of each fold, checked before stage 2 begins.

    Raises:
        TaggingError: weights of another network, other classes or another sample rate.
    """
    initial = {}
    wanted = network_shapes(recipe, classes)
    for fold in folds:
        model = start.load(fold, classes, torch.device("cpu"))
        about = model.about
        if (about.recipe.network, about.sample_rate) != (recipe.network, sample_rate):
            raise TaggingError(f"{start.weights(fold)} is {about.recipe.network} at {about.sample_rate} Hz, and this "
                               f"stage is {recipe.network} at {sample_rate} Hz. Choose the same --network, and clips "
                               "of the same sample rate.")
        weights = model.network.state_dict()
        if {name: value.shape for name, value in weights.items()} != wanted:    # it takes one image size, and not this
            raise TaggingError(f"{start.weights(fold)} was built for other image sizes. Choose the --curated.sizes of "
                               "stage 1.")
        initial[fold] = weights
    return initial


def print_scores(stage: str, folder: StageFolder) -> None:
    scores = folder.update_scores()
    print(f"\n{stage} stage of {folder.run}, out-of-fold lwlrap")
    for fold, score in scores["folds"].items():
        print(f"  fold {fold}   {score:.5f}")
    spread = "" if scores["spread"] is None else f" +- {scores['spread']:.5f}"
    print(f"  mean     {scores['mean']:.5f}{spread}\n  together {scores['out_of_fold']:.5f}  "
          f"({scores['clips']} clips)\n-> {folder.path / 'scores.json'}", flush=True)
    if caveat := folder.caveat():
        print(f"note: {caveat}", flush=True)


def describe_device(device: torch.device) -> str:
    """Device and precision, for people."""
    times = f"{distributed.size()} x " if distributed.size() > 1 else ""
    if device.type == "cuda":
        precision = "bf16 network, fp32 front end and head" if has_bf16(device) else "fp32"
        return f"{times}{torch.cuda.get_device_name(device)}, {precision}, channels last"
    return f"{times}{device.type} ({platform.machine()}, {torch.get_num_threads()} threads), fp32"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak megabytes of this process: of the host, and of the device."""
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak
