"""The run of a baseline: each fold is fitted on the features of its training clips, and predicts its out-of-fold clips.
"""
import logging
import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from tagging.baselines import cache
from tagging.baselines.models import BASELINES, estimator_class, fit_classes
from tagging.baselines.runs import BaselineMetadata, BaselineModel
from tagging.data.competition import Competition
from tagging.data.folds import ClipDataset, open_folds
from tagging.errors import TaggingError
from tagging.metric import lwlrap
from tagging.modeling.model import CPU
from tagging.provenance import provenance
from tagging.recipe import Recipe
from tagging.run import StageFolder
from tagging.training.stage import StageOptions, choose_folds, is_finished, log_scores
from tagging.utils.devices import describe_device, peak_memory
from tagging.utils.seeds import seed_for

log = logging.getLogger(__name__)

STAGE = "curated"


def fit_run(name: str, competition: Competition, folder: StageFolder, recipe: Recipe, options: StageOptions) -> None:
    """Fit the models of the given folds, predict the out-of-fold clips of each, and score them.

    A model is fitted on the curated clips of the other folds. If the recipe has a share of noisy clips, the noisy clips
    of the other folds are added, each clip once. Finished folds are kept.

    Args:
        name: one of `BASELINES`.
    Raises:
        TaggingError: data or settings are wrong, a package is missing, or the run exists with other settings.
    """
    baseline = BASELINES[name]
    if folder.settings_path.exists() and not folder.settings()["baseline"]:
        raise TaggingError(f"{folder} is the run of a network. Choose another --run.")
    estimator_class(name)           # a missing package is found before the clips are decoded
    recipe = replace(recipe, network=f"baseline:{name}")
    folds = choose_folds(STAGE, recipe, options)
    curated = open_folds(STAGE, competition, recipe, options.cache, options.skip_bad)
    noisy = None
    if recipe.mixes_sets(STAGE):
        noisy = open_folds("noisy", competition, recipe, options.cache, options.skip_bad, curated.store.sample_rate)
    folder.begin(recipe, competition.classes, curated.clips, curated.store, curated.fold_of, "scratch",
                 noisy.fingerprint() if noisy else None,
                 baseline={"model": name, "settings": baseline.settings, "features": cache.VERSION})
    beside = f" and {len(noisy.clips)} of the noisy set" if noisy else ""
    log.info("%s, run %s: %d clips of %d classes%s, %d Hz\non %s", name, folder.run, len(curated.clips),
             len(competition.classes), beside, curated.store.sample_rate, describe_device(CPU))
    for part in (curated, noisy) if noisy else (curated,):
        cache.clip_features(part.select(np.full(len(part.clips), True)))        # of all folds, with one progress bar
    for fold in folds:
        with folder.fold_lock(fold):
            if not is_finished(folder, fold):
                metadata = BaselineMetadata(STAGE, fold, competition.classes, curated.store.sample_rate, name,
                                            baseline.settings, "", cache.VERSION)
                fit_fold(folder, metadata, curated.train(fold), curated.valid(fold), recipe.seed,
                         noisy.train(fold) if noisy else None)
    log_scores(STAGE, folder, folder.update_scores())


def fit_fold(folder: StageFolder, metadata: BaselineMetadata, train: ClipDataset, valid: ClipDataset, seed: int,
             noisy: ClipDataset | None = None) -> None:
    """Fit one model, predict its out-of-fold clips, and write the files of the fold.

    Args:
        noisy: clips of the noisy set, which are added to the training clips.
    """
    fold, name, origin = metadata.fold, metadata.model, provenance()
    package = BASELINES[name].package
    parts = [train, noisy] if noisy else [train]
    features, targets = (np.concatenate(arrays) for arrays in
                         zip(*((cache.clip_features(part), part.targets) for part in parts)))
    started = time.perf_counter()
    fitted = fit_classes(name, features, targets, seed_for(seed, "baseline", fold), f"{name} fold {fold}")
    fit_seconds = time.perf_counter() - started
    predictions = BaselineModel(metadata, fitted).predict(valid)
    seconds = time.perf_counter() - started
    score = lwlrap(truth=valid.targets, scores=predictions.to_numpy())
    folder.finish_fold(fold, BaselineModel(replace(metadata, score=score), fitted), predictions, {
        "lwlrap": score, "clips": len(predictions), "seconds": round(seconds, 1), "fit_seconds": round(fit_seconds, 3),
        "initial_weights": None, "device": describe_device(CPU), "peak_memory_mb": peak_memory(CPU),
        "package": f"{package} {version(package)}", **origin})
    log.info("%s fold %d  lwlrap %.4f  %.1f s  -> %s", name, fold, score, seconds, folder.weights(fold))
