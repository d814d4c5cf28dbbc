"""One stage of a recipe with all its folds. The two stages differ by data, schedule and initial weights only."""
import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tagging.data.competition import Competition
from tagging.data.folds import ClipDataset, open_folds
from tagging.errors import TaggingError, shorten
from tagging.evaluation.predict import predict_clips
from tagging.metric import lwlrap
from tagging.modeling.model import CPU, Model, ModelMetadata, network_shapes
from tagging.modeling.weights import checksum
from tagging.provenance import provenance
from tagging.recipe import Recipe
from tagging.run import StageFolder
from tagging.schema import require_network
from tagging.training import distributed
from tagging.training.launcher import FoldLauncher
from tagging.training.loop import OnEpoch, train_model
from tagging.utils.devices import describe_device, explain_memory, peak_memory
from tagging.utils.seeds import seed_for

log = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """How a stage is trained, apart from the recipe."""
    cache: Path                             # folder of the decoded clips
    devices: list[torch.device]             # one, or several that train a fold each
    folds: tuple[int, ...] = ()             # from 1; all of them if empty
    skip_bad: bool = False                  # drop clips that cannot be used
    start: StageFolder | None = None        # the stage that gives the initial weights; None for random weights
    micro_batches: int = 1                  # parts of each batch, trained one after the other
    noisy_labels: Path | None = None        # csv of soft labels for the noisy clips in the batches


def train_stage(stage: str, competition: Competition, folder: StageFolder, recipe: Recipe,
                options: StageOptions) -> None:
    """Train the models of the given folds, predict the out-of-fold clips of each, and score them.

    Finished folds are kept. A fold that was interrupted resumes.

    Args:
        stage: noisy or curated.
    Raises:
        TaggingError: data, settings or initial weights are wrong, before any training starts; or folds failed on their
            devices, at the end.
    """
    if folder.settings_path.exists():       # older commands had no --old-rounding
        require_network(folder.settings(), folder)
        recipe = replace(recipe, old_rounding=folder.recipe().old_rounding)
    start = options.start
    folds = choose_folds(stage, recipe, options)
    if start:
        check_finished(start, folds)
    folded = open_folds(stage, competition, recipe, options.cache, options.skip_bad)
    clips, store = folded.clips, folded.store
    noisy, noisy_fingerprint = None, None
    if recipe.mixes_sets(stage):
        noisy = open_folds("noisy", competition, recipe, options.cache, options.skip_bad, store.sample_rate)
        noisy_fingerprint = noisy.fingerprint()
        if options.noisy_labels:
            noisy = noisy.relabelled(options.noisy_labels, competition.classes)
    initial = load_initial(start, folds, competition.classes, store.sample_rate, recipe) if start else {}
    if distributed.is_main():
        folder.begin(recipe, competition.classes, clips, store, folded.fold_of, start.run if start else "scratch",
                     noisy_fingerprint, options.noisy_labels if noisy else None)

    labels = f" with the labels of {options.noisy_labels}" if options.noisy_labels else ""
    beside = f"and {len(noisy.clips)} of the noisy set{labels}, " if noisy else ""
    devices = options.devices
    log.info("%s stage, run %s: %d clips of %d classes, %s%.1f h at %d Hz after trimming, %s\non %s", stage, folder.run,
             len(clips), len(competition.classes), beside, store.hours, store.sample_rate, recipe.network,
             describe_device(devices[0]) if len(devices) == 1 else ", ".join(map(str, devices)))
    failures: dict[int, str] = {}
    scores = None
    if len(devices) > 1:
        missing = [fold for fold in folds if not is_finished(folder, fold)]
        failures = FoldLauncher(stage, missing, devices, sum(recipe.schedule(stage).epochs)).run()
    else:
        for fold in folds:
            with folder.fold_lock(fold) if distributed.is_main() else nullcontext(), distributed.defer_signals():
                if distributed.broadcast(is_finished(folder, fold)):
                    continue
                metadata = ModelMetadata(stage, fold, competition.classes, store.sample_rate, recipe)
                train_fold(folder, metadata, folded.train(fold), folded.valid(fold), devices[0],
                           initial=initial.get(fold), micro_batches=options.micro_batches,
                           noisy=noisy.train(fold) if noisy else None)
                if distributed.world_size() > 1:
                    distributed.sync_stop()
            if distributed.is_main():
                scores = folder.update_scores()
    if distributed.is_main() and folder.finished_folds():
        log_scores(stage, folder, scores or folder.update_scores())
    if failures:
        raise TaggingError("".join(f"{stage} fold {fold} failed: {reason}\n" for fold, reason in failures.items())
                           + "Run the same command again to train the missing folds.")


def choose_folds(stage: str, recipe: Recipe, options: StageOptions) -> tuple[int, ...]:
    """Return the folds to train.

    Raises:
        TaggingError: an option does not suit the recipe.
    """
    folds = tuple(dict.fromkeys(options.folds)) or tuple(range(1, recipe.fold_count + 1))
    wrong = sorted(set(folds) - set(range(1, recipe.fold_count + 1)))
    if wrong:
        raise TaggingError(f"--folds {shorten(wrong)} is not among 1 to {recipe.fold_count} (--fold-count).")
    if stage not in recipe.stages:
        raise TaggingError(f"The recipe has no {stage} stage. Run train_curated.py alone, or choose another --recipe.")
    if not 1 <= options.micro_batches <= recipe.batch_size // 2:
        raise TaggingError(f"--micro-batches must be 1 to {recipe.batch_size // 2}, half of --batch-size.")
    if options.noisy_labels and not recipe.mixes_sets(stage):
        raise TaggingError("--noisy-labels needs a recipe that trains on both sets at once, such as podium, or "
                           "--noisy-share.")
    return folds


def is_finished(folder: StageFolder, fold: int) -> bool:
    """Whether a fold is finished. If so, log it and remove a checkpoint that is left."""
    finished = fold in folder.finished_folds()
    if finished:
        log.info("fold %d is finished: %s", fold, folder.weights(fold))
        folder.checkpoint(fold).unlink(missing_ok=True)     # the process can be killed just before finish_fold does it
    return finished


def train_fold(folder: StageFolder, metadata: ModelMetadata, train: ClipDataset, valid: ClipDataset,
               device: torch.device, *, initial: Weights | None = None, micro_batches: int = 1,
               noisy: ClipDataset | None = None, on_epoch: OnEpoch | None = None) -> None:
    """Train one model, predict its out-of-fold clips, and write the files of the fold.

    Args:
        initial: initial weights, or None for random ones.
        noisy: clips of the noisy set in the batches.
        on_epoch: called with the row of the log after each epoch. By default, it is logged.
    """
    recipe, fold, title, origin = metadata.recipe, metadata.fold, f"{metadata.stage} fold {metadata.fold}", provenance()
    torch.manual_seed(seed_for(recipe.seed, metadata.stage, fold, "weights"))
    model = Model(metadata).to_device(device)
    if initial:
        model.network.load_state_dict(initial)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True       # the shapes do not change within a cycle
        torch.cuda.reset_peak_memory_stats(device)

    def log_epoch(row: dict) -> None:
        log.info("%s epoch %d/%d  train loss %.4f  valid loss %.4f  lwlrap %.4f  %.1f s", title, row["epoch"],
                 sum(recipe.schedule(metadata.stage).epochs), row["train_loss"], row["valid_loss"], row["lwlrap"],
                 row["seconds"], extra={"event": {"fold": fold, "epoch": row["epoch"]}})

    with explain_memory("Add --micro-batches 2 or more, and the same command resumes from the last finished epoch. Or "
                        "train another --run with a smaller --batch-size, smaller sizes or a smaller --network."):
        seconds = train_model(model, train, valid, title=title, log_path=folder.log(fold),
                              checkpoint=folder.checkpoint(fold), micro_batches=micro_batches, noisy=noisy,
                              on_epoch=on_epoch or log_epoch)
    started = time.perf_counter()
    shard = distributed.shard_clips(valid, whole=recipe.single_crop)
    predictions = predict_clips(model, shard, progress=f"{title} out-of-fold")
    predictions = distributed.gather_clips(predictions, whole=recipe.single_crop)
    seconds += time.perf_counter() - started
    score = lwlrap(truth=valid.targets, scores=predictions.to_numpy())
    model.update(score=score)
    if distributed.is_main():
        folder.finish_fold(fold, model, predictions, {
            "lwlrap": score, "clips": len(predictions), "seconds": round(seconds, 1),
            "initial_weights": checksum(initial, "")[:16] if initial else None,
            "device": describe_device(device), "peak_memory_mb": peak_memory(device), **origin})
    log.info("%s  lwlrap %.4f  %.0f s  -> %s", title, score, seconds, folder.weights(fold),
             extra={"event": {"fold": fold}})


def check_finished(start: StageFolder, folds: tuple[int, ...]) -> None:
    """
    Raises:
        TaggingError: a fold that gives initial weights is not finished.
    """
    missing = sorted(set(folds) - set(start.finished_folds()))
    if missing:
        raise TaggingError(f"{start} has no weights of fold {shorten(missing)}. Run train_noisy.py for them, choose "
                           "another run with --noisy-run, or start from random weights with --from-scratch.")


def load_initial(start: StageFolder, folds: tuple[int, ...], classes: tuple[str, ...], sample_rate: int,
                 recipe: Recipe) -> dict[int, Weights]:
    """Load the noisy-stage weights of each fold, and check them before the curated stage begins.

    Raises:
        TaggingError: the weights are of another network, other classes or another sample rate.
    """
    initial = {}
    wanted = network_shapes(recipe, classes)
    for fold in folds:
        model = start.load_model(fold, classes, CPU)
        metadata = model.metadata
        if (metadata.recipe.network, metadata.sample_rate) != (recipe.network, sample_rate):
            raise TaggingError(f"{start.weights(fold)} is {metadata.recipe.network} at {metadata.sample_rate} Hz, and "
                               f"this stage is {recipe.network} at {sample_rate} Hz. Choose the same --network, and "
                               "clips of the same sample rate.")
        weights = model.network.state_dict()
        if {name: value.shape for name, value in weights.items()} != wanted:    # a network with a fixed image size
            raise TaggingError(f"{start.weights(fold)} was built for other image sizes. Choose the --curated.sizes of "
                               "the noisy stage.")
        initial[fold] = weights
    return initial


def log_scores(stage: str, folder: StageFolder, scores: dict) -> None:
    lines = [f"\n{stage} stage of {folder.run}, out-of-fold lwlrap"]
    lines += [f"  fold {fold}   {score:.5f}" for fold, score in scores["folds"].items()]
    spread = "" if scores["spread"] is None else f" +- {scores['spread']:.5f}"
    lines += [f"  mean     {scores['mean']:.5f}{spread}",
              f"  together {scores['out_of_fold']:.5f}  ({scores['clips']} clips)",
              f"-> {folder.path / 'scores.json'}"]
    if caveat := folder.caveat():
        lines.append(f"note: {caveat}")
    log.info("\n".join(lines))
