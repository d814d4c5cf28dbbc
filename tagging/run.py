"""The folder of one stage of a run: everything needed to use it, to judge it, and to repeat it.

    models/<run>/<stage>/settings.json           schema number, recipe, classes, sample rate; command, commit, versions
                         clips.csv               fname, fold, labels: the truth of the out-of-fold predictions
                         noisy_labels.csv        soft labels of the noisy clips, if it was trained with them
                         fold1.safetensors       weights with everything needed to rebuild their model
                         fold1.log.csv           a row for each epoch
                         fold1.predictions.csv   out-of-fold probabilities, fname x classes
                         fold1.json              score, command, device, time, memory
                         scores.json             lwlrap of each fold, mean, spread, and lwlrap of all folds together
"""
import dataclasses
import hashlib
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tagging.data.competition import Clips
from tagging.data.tables import index_by_fname, label_texts, read_labels, read_scores, read_table, write_scores
from tagging.data.waveforms import WaveStore
from tagging.errors import TaggingError, shorten
from tagging.metric import lwlrap
from tagging.modeling.model import Model, check_classes, load_model
from tagging.modeling.weights import Savable
from tagging.provenance import provenance
from tagging.recipe import Recipe
from tagging.schema import NETWORK_SCHEMA, SCHEMA, commit_of, require_network, require_trainable, upgrade_settings
from tagging.settings import differences, recipe_from_dict
from tagging.utils.files import atomic, read_json, write_json
from tagging.utils.locks import file_lock


@dataclass(frozen=True)
class StageFolder:
    """One stage of one run. All paths of a run are built here."""
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def settings_path(self) -> Path:
        return self.path / "settings.json"

    def weights(self, fold: int) -> Path:
        return self.path / f"fold{fold}.safetensors"

    def log(self, fold: int) -> Path:
        return self.path / f"fold{fold}.log.csv"

    def predictions(self, fold: int) -> Path:
        return self.path / f"fold{fold}.predictions.csv"

    def record(self, fold: int) -> Path:
        return self.path / f"fold{fold}.json"

    def checkpoint(self, fold: int) -> Path:
        return self.path / f"fold{fold}.checkpoint.safetensors"

    @property
    def run(self) -> str:
        return self.path.parent.name

    def fold_lock(self, fold: int) -> AbstractContextManager:
        """Hold while training a fold.

        Raises:
            TaggingError: another process trains the fold.
        """
        return file_lock(self.path / f".fold{fold}.lock", f"another process is training fold {fold} of {self}. "
                         "Wait for it, or choose other --folds.")

    def lock(self) -> AbstractContextManager:
        """Hold while writing the files that all folds share."""
        return file_lock(self.path / ".lock")

    def finished_folds(self) -> list[int]:
        """Return the finished folds. The record of a fold is written last, after all its other files."""
        names = [re.fullmatch(r"fold(\d+)\.json", path.name) for path in self.path.glob("fold*.json")]
        return sorted(int(name[1]) for name in names if name)

    def choose_folds(self, named: Sequence[int] = ()) -> list[int]:
        """Return the named folds, or all finished ones if none is named."""
        return list(dict.fromkeys(named)) or self.finished_folds()

    def begin(self, recipe: Recipe, classes: tuple[str, ...], clips: Clips, store: WaveStore, folds: np.ndarray,
              source: str, noisy: str | None = None, noisy_labels: Path | None = None,
              baseline: dict | None = None) -> None:
        """Write settings and clips, or check that those of an earlier call are the same.

        Args:
            clips, store: the training clips and their samples.
            folds: (clips,) the fold of each clip.
            source: the run whose noisy stage gives the initial weights, or "scratch".
            noisy: fingerprint of the noisy clips in the batches of the curated stage.
            noisy_labels: csv with other labels for them. A copy is kept.
            baseline: the model and its settings, if it is no network.
        Raises:
            TaggingError: the run exists with other settings. The message lists them.
        """
        table = pd.DataFrame({"fname": clips.fnames, "fold": folds, "labels": label_texts(clips.targets, classes),
                              "crc32": [f"{checksum:08x}" for checksum in store.checksums]})
        labels = noisy_labels.read_bytes() if noisy_labels else None
        settings = {"schema": SCHEMA, "recipe": dataclasses.asdict(recipe), "classes": list(classes),
                    "sample_rate": store.sample_rate, "initial_weights": source, "noisy_clips": noisy,
                    "noisy_labels": hashlib.sha256(labels).hexdigest() if labels else None, "baseline": baseline,
                    "made_by": provenance(clips.csv)}
        with self.lock():
            if not self.settings_path.exists():
                with atomic(self.path / "clips.csv") as temporary:
                    table.to_csv(temporary, index=False, lineterminator="\n")
                if labels is not None:
                    with atomic(self.path / "noisy_labels.csv") as temporary:
                        temporary.write_bytes(labels)
                write_json(self.settings_path, settings | {"schema": SCHEMA if baseline else NETWORK_SCHEMA})
                return
        require_trainable(self.settings(), self)
        found = differences(self.settings(), settings)
        recorded = self.clips().reset_index()
        if not recorded.equals(table.astype(str)[list(recorded)]):
            found.append("the clips, their samples, labels or folds: compare clips.csv with the data")
        if found:
            raise TaggingError(f"{self} exists with other settings:\n  " + "\n  ".join(found)
                               + "\nChoose another --run, or delete that folder.")

    def settings(self) -> dict:
        """Read settings.json.

        Raises:
            TaggingError: the run does not exist, or was written by a newer version.
        """
        content = read_json(self.settings_path, "Check the name of the run with `ls models`, or train it first.")
        return upgrade_settings(content, self.settings_path)

    def recipe(self) -> Recipe:
        """Return the recipe of the settings."""
        return recipe_from_dict(self.settings()["recipe"])

    def load_model(self, fold: int, classes: tuple[str, ...], device: torch.device) -> Model:
        """Load the model of a fold.

        Raises:
            TaggingError: as `tagging.modeling.model.load_model`; the run is one of a baseline; or the model was trained
                on other classes.
        """
        require_network(self.settings(), self)
        record = read_json(self.record(fold), "Train the fold again.")
        model = load_model(self.weights(fold), device, commit_of(record))
        check_classes(self.weights(fold), model.metadata.classes, classes)
        return model

    def load_models(self, folds: Sequence[int], device: torch.device) -> list[Model]:
        """Load the models of the named folds, or of all finished ones.

        Raises:
            TaggingError: as `require_finished` and `load_model`.
        """
        classes = tuple(self.settings()["classes"])
        return [self.load_model(fold, classes, device) for fold in self.require_finished(folds)]

    def require_finished(self, folds: Sequence[int]) -> list[int]:
        """Return the named folds, or all finished ones. Raise a TaggingError if one is not finished, or if none is."""
        finished = self.finished_folds()
        missing = sorted(set(folds) - set(finished))
        if missing or not finished:
            raise TaggingError(f"{self} has no finished fold {shorten(missing)}".rstrip() + ". Train it first"
                               + (f", or choose among {shorten(finished)}." if finished else "."))
        return self.choose_folds(folds)

    def finish_fold(self, fold: int, model: Savable, predictions: pd.DataFrame, record: dict) -> None:
        """Write the files of a finished fold, the record last, and remove the checkpoint."""
        model.save(self.weights(fold))
        write_scores(self.predictions(fold), predictions)
        write_json(self.record(fold), record)
        self.checkpoint(fold).unlink(missing_ok=True)

    def clips(self) -> pd.DataFrame:
        """Read clips.csv as text: index fname, columns fold, labels and crc32 of the samples, which runs from before
        1d1709a do not have."""
        path = self.path / "clips.csv"
        return index_by_fname(read_table(path, ("fname", "fold", "labels")), path)

    def truth(self) -> pd.DataFrame:
        """Return the labels as 0/1: index fname, columns the classes."""
        return read_labels(self.path / "clips.csv", self.settings()["classes"])[0]

    def out_of_fold(self, folds: Sequence[int]) -> pd.DataFrame:
        """Read the predictions of some folds: index fname, columns the classes.

        Raises:
            TaggingError: there is no fold, a fold is not finished, or two folds have predictions of the same clip.
        """
        if not folds:
            raise TaggingError(f"{self} has no finished fold. Train it first.")
        frame = pd.concat([read_scores(self.predictions(fold)) for fold in folds])
        repeated = frame.index[frame.index.duplicated()]
        if len(repeated):
            raise TaggingError(f"{self}: two folds have predictions of {shorten(list(repeated), 3)}. "
                               "Train those folds again.")
        return frame

    def caveat(self) -> str:
        """Return the warning that belongs to the out-of-fold scores, or ""."""
        if not self.settings().get("noisy_labels"):
            return ""
        return ("The noisy clips had the labels of noisy_labels.csv. If these labels come from models that were "
                "trained on the clips scored here, the scores are too high.")

    def update_scores(self) -> dict:
        """Score the finished folds from their files, and write scores.json."""
        with self.lock():       # each process scores all finished folds, so the last one writes all scores
            folds = self.finished_folds()
            frame, truth = self.out_of_fold(folds), self.truth()
            records = [read_json(self.record(fold), "Train the fold again.") for fold in folds]
            values = [record["lwlrap"] for record in records]
            summary = {"folds": {str(fold): value for fold, value in zip(folds, values)},
                       "mean": float(np.mean(values)),
                       "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                       "out_of_fold": lwlrap(truth=truth.loc[frame.index].to_numpy(), scores=frame.to_numpy()),
                       "clips": len(frame), "seconds": sum(record["seconds"] for record in records),
                       "peak_memory_mb": {place: max(record["peak_memory_mb"].get(place, 0) for record in records)
                                          for place in records[0]["peak_memory_mb"]}}
            write_json(self.path / "scores.json", summary)
            return summary


def stage_folder(models: Path, run: str, stage: str) -> StageFolder:
    """Return the folder of a stage of a run.

    Raises:
        TaggingError: the name of the run is no plain folder name.
    """
    if not re.fullmatch(r"[\w][\w.-]*", run):
        raise TaggingError(f"--run '{run}' must consist of letters, digits, '.', '_' and '-', because it names a "
                           f"folder in {models}.")
    return StageFolder(Path(models) / run / stage)
