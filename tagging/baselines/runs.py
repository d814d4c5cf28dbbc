"""The models of a run, whether a network or a baseline: load them, predict clips, and tag sounds."""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tagging.baselines import cache
from tagging.baselines.features import FEATURES, ClipFeatures
from tagging.baselines.forms import FittedClasses, arrays_of, build_form, form_name
from tagging.data.folds import ClipDataset
from tagging.errors import TaggingError
from tagging.evaluation.predict import make_tagger, predict_clips
from tagging.modeling.model import Model, check_classes
from tagging.modeling.weights import read_weights, write_weights
from tagging.recipe import Recipe, require
from tagging.run import StageFolder
from tagging.schema import KINDS
from tagging.settings import checked
from tagging_lite.tagger import ModelInfo, Tagger

KIND = KINDS["baseline"][-1]
WINDOW = 10         # seconds of a sound that are tagged at once


@dataclass(frozen=True)
class BaselineMetadata:
    """The description in a model file."""
    stage: str                     # curated
    fold: int                      # the fold that the model is validated on, from 1
    classes: tuple[str, ...]       # in the submission's order
    sample_rate: int               # Hz
    model: str                     # its name in `BASELINES`
    settings: dict[str, Any]
    form: str                      # its name in `FORMS`
    features: int                  # `cache.VERSION`
    score: float | None = None     # lwlrap of the out-of-fold predictions


@dataclass(frozen=True)
class BaselineModel:
    """A fitted model with its description."""
    metadata: BaselineMetadata
    fitted: FittedClasses

    def predict(self, clips: ClipDataset) -> pd.DataFrame:
        """Predict the probability of each class from the features of whole clips: index fname, columns the classes.

        Raises:
            TaggingError: the clips have another sample rate; or as `clip_features`.
        """
        metadata = self.metadata
        require(clips.store.sample_rate == metadata.sample_rate,
                f"The clips have {clips.store.sample_rate} Hz, and fold {metadata.fold} of the baseline was fitted at "
                f"{metadata.sample_rate} Hz. Resample the clips, or fit a baseline on clips of this rate")
        return pd.DataFrame(self.fitted.probabilities(cache.clip_features(clips)), clips.fnames, list(metadata.classes))

    def save(self, path: Path) -> None:
        """Write the model file."""
        fitted = self.fitted
        tensors = {**arrays_of(fitted.form), "varied": torch.from_numpy(fitted.varied),
                   "prior": torch.from_numpy(fitted.prior)}
        write_weights(path, KIND, tensors, asdict(self.metadata) | {"form": form_name(fitted.form)})


def load_baseline(path: Path) -> BaselineModel:
    """Read a model file. No code of the file is run, and no package that fitted the model is needed.

    Raises:
        TaggingError: the file is missing, damaged, or of another version.
    """
    remedy = (f"Delete {path.with_suffix('.json').name} beside it and run tools.baseline again, or copy the file again "
              "from its source.")
    tensors, about, _ = read_weights(path, KINDS["baseline"], remedy)
    try:
        metadata = checked(BaselineMetadata, about | {"classes": tuple(about["classes"])})
        require(metadata.features == cache.VERSION, f"it needs version {metadata.features} of the clip features, and "
                f"this is version {cache.VERSION}")
        varied, prior = tensors.pop("varied").numpy(), tensors.pop("prior").numpy()
        require(prior.shape == (len(metadata.classes),) and ((prior > 0) & (prior < 1)).all()
                and varied.dtype == np.int64 and varied.ndim == 1 and (np.diff(varied, prepend=-1) > 0).all()
                and len(varied) and varied[-1] < len(prior), "its classes do not fit each other")
        form = build_form(metadata.form, tensors)
        form.check(len(FEATURES), len(varied))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, TaggingError) as error:
        raise TaggingError(f"{path} does not fit this version: {error} {remedy}") from error
    return BaselineModel(metadata, FittedClasses(form, varied, prior))


def load_fold(folder: StageFolder, fold: int, classes: tuple[str, ...], device: torch.device) -> Model | BaselineModel:
    """Load the model of a fold, of a network or a baseline.

    Raises:
        TaggingError: as `StageFolder.load_model`, or as `load_baseline`.
    """
    if not folder.settings()["baseline"]:
        return folder.load_model(fold, classes, device)
    model = load_baseline(folder.weights(fold))
    check_classes(folder.weights(fold), model.metadata.classes, classes)
    return model


def predict_fold(model: Model | BaselineModel, clips: ClipDataset, *, tta: int = 0, progress: str = "") -> pd.DataFrame:
    """Predict clips as a table: index fname, columns the classes. For the arguments see `predict_clips`.

    A baseline has the plain view only.

    Raises:
        TaggingError: as `predict_clips`, or as `BaselineModel.predict`.
    """
    if isinstance(model, BaselineModel):
        return model.predict(clips)
    return predict_clips(model, clips, tta=tta, progress=progress)


def load_tagger(folder: StageFolder, folds: Sequence[int], device: torch.device) -> Tagger:
    """Return a tagger of any sound file, with the mean probability of the models of the named folds, or of all.

    Raises:
        TaggingError: a fold is not finished; or as `load_fold`.
    """
    if not folder.settings()["baseline"]:
        return make_tagger(folder.load_models(folds, device))
    classes = tuple(folder.settings()["classes"])
    models = [load_baseline(folder.weights(fold)) for fold in folder.require_finished(folds)]
    for model, fold in zip(models, folder.require_finished(folds)):
        check_classes(folder.weights(fold), model.metadata.classes, classes)
    return baseline_tagger(models, folder.recipe())


def baseline_tagger(models: Sequence[BaselineModel], recipe: Recipe) -> Tagger:
    """Return a tagger with the mean probability of baselines. It tags at most `WINDOW` seconds at once."""
    rate = models[0].metadata.sample_rate
    compute = ClipFeatures(rate)

    def logits(waves: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes). The zeros around a short clip do not count."""
        result = []
        for wave in waves:
            sound = np.trim_zeros(wave)
            sound = sound if len(sound) else wave[:1]
            features = compute(sound[None], np.array([len(sound)]))
            result.append([model.fitted.probabilities(features)[0] for model in models])
        shares = np.clip(np.array(result, np.float64), 1e-7, 1 - 1e-7)
        return np.log(shares / (1 - shares)).astype(np.float32)

    info = ModelInfo(models[0].metadata.classes, rate, WINDOW * rate, recipe.window_overlap, recipe.trim_db)
    return Tagger(info, logits)


