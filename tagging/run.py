"""The folder of one stage of a run: all that is needed to use it, to judge it, and to make it again.

    models/<run>/<stage>/settings.json           recipe, classes, sample rate, clips; command, commit, versions
                         clips.csv               fname, fold, labels: the truth of the out-of-fold predictions
                         noisy_labels.csv        soft labels of the noisy clips, if it was trained with them
                         fold1.safetensors       weights that rebuild their model by themselves
                         fold1.log.csv           a row an epoch
                         fold1.predictions.csv   out-of-fold probabilities, fname x classes
                         fold1.json              score, command, device, time, memory
                         scores.json             each fold's lwlrap, mean and spread, and that of all folds together
"""
import dataclasses
import hashlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tagging.competition import Clips
from tagging.errors import TaggingError, shorten
from tagging.files import atomic, locked, read_json, write_json
from tagging.metric import lwlrap
from tagging.model import Model, load_model
from tagging.recipe import Recipe, recipe_from_dict
from tagging.tables import check_same, index_by_fname, label_texts, read_labels, read_scores, read_table, write_scores
from tagging.waves import WaveStore

STAGES = ("noisy", "curated")
PACKAGES = ("torch", "torchaudio", "fastai", "timm", "numpy", "soundfile")      # that can change a result


@dataclass(frozen=True)
class StageFolder:
    """One stage of one run. All paths come from here."""
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
        """
        Raises:
            TaggingError: another process trains the fold.
        """
        return locked(self.path / f".fold{fold}.lock", f"fold {fold} of {self} is being trained by another process. "
                      "Wait for it, or choose other --folds.")

    def lock(self) -> AbstractContextManager:
        """Hold while writing what the folds share."""
        return locked(self.path / ".lock")

    def finished_folds(self) -> list[int]:
        """The record is written last: a fold that has one has all its files."""
        names = [re.fullmatch(r"fold(\d+)\.json", path.name) for path in self.path.glob("fold*.json")]
        return sorted(int(name[1]) for name in names if name)

    def choose_folds(self, named: Sequence[int] = ()) -> list[int]:
        """Those that are named, each once; all that are finished, if none is."""
        return list(dict.fromkeys(named)) or self.finished_folds()

    def begin(self, recipe: Recipe, classes: tuple[str, ...], clips: Clips, store: WaveStore, folds: np.ndarray,
              source: str, noisy: str | None = None, noisy_labels: Path | None = None) -> None:
        """Write settings and clips, or check that those of an earlier call are the same.

        Args:
            clips, store: what is trained on, and its samples.
            folds: (clips,) the fold of each clip.
            source: the run whose stage 1 the weights start from, or "scratch".
            noisy: fingerprint of the clips of the noisy set that go along in stage 2.
            noisy_labels: csv with other labels for them; a copy is kept.
        Raises:
            TaggingError: the run exists with other settings; the message names them.
        """
        table = pd.DataFrame({"fname": clips.fnames, "fold": folds, "labels": label_texts(clips.targets, classes),
                              "crc32": [f"{checksum:08x}" for checksum in store.checksums]})
        labels = noisy_labels and noisy_labels.read_bytes()
        settings = {"recipe": dataclasses.asdict(recipe), "classes": list(classes), "sample_rate": store.sample_rate,
                    "initial_weights": source, "noisy_clips": noisy,
                    "noisy_labels": labels and hashlib.sha256(labels).hexdigest(), "made_by": made_by(clips.csv)}
        with self.lock():
            if not self.settings_path.exists():
                with atomic(self.path / "clips.csv") as temporary:
                    table.to_csv(temporary, index=False, lineterminator="\n")
                if labels:
                    with atomic(self.path / "noisy_labels.csv") as temporary:
                        temporary.write_bytes(labels)
                write_json(self.settings_path, settings)
                return
        found = differences(self.settings(), settings)
        if not self.clips().reset_index().equals(table.astype(str)):
            found.append("the clips, their samples, labels or folds: compare clips.csv with the data")
        if found:
            raise TaggingError(f"{self} exists with other settings:\n  " + "\n  ".join(found)
                               + "\nChoose another --run, or delete that folder.")

    def settings(self) -> dict:
        """
        Raises:
            TaggingError: there is no such run, or it is of another version.
        """
        content = read_json(self.settings_path, "Check the name of the run with `ls models`, or train it first.")
        missing = {"recipe", "classes", "sample_rate", "initial_weights", "made_by"} - set(content)
        if missing:
            raise TaggingError(f"{self.settings_path} lacks {shorten(sorted(missing))}: it was written by another "
                               "version. Use that version, or train again.")
        return content

    def recipe(self) -> Recipe:
        return recipe_from_dict(self.settings()["recipe"])

    def load(self, fold: int, classes: tuple[str, ...], device: torch.device) -> Model:
        """Load the model of a fold.

        Raises:
            TaggingError: as `load_model`; or it was trained for other classes.
        """
        model = load_model(self.weights(fold), device)
        where = f"{self.weights(fold)}, compared with the competition folder,"
        check_same(model.about.classes, classes, where, "classes", "Take the data that the run was trained on.")
        if model.about.classes != tuple(classes):
            raise TaggingError(f"{where} has its classes in another order. Take the data that it was trained on.")
        return model

    def models(self, folds: Sequence[int], device: torch.device) -> list[Model]:
        """Load the models of some folds, by default of all that are finished.

        Raises:
            TaggingError: no fold is finished, or one that is named is not; or as `load_model`.
        """
        classes, finished = tuple(self.settings()["classes"]), self.finished_folds()
        missing = sorted(set(folds) - set(finished))
        if missing or not finished:
            raise TaggingError(f"{self} has no finished fold {shorten(missing)}".rstrip() + ". Train it first"
                               + (f", or choose among {shorten(finished)}." if finished else "."))
        return [self.load(fold, classes, device) for fold in self.choose_folds(folds)]

    def finish(self, fold: int, model: Model, predictions: pd.DataFrame, record: dict) -> None:
        """Write what a fold leaves behind, the record last, and remove the checkpoint."""
        model.save(self.weights(fold))
        write_scores(self.predictions(fold), predictions)
        write_json(self.record(fold), record)
        self.checkpoint(fold).unlink(missing_ok=True)

    def clips(self) -> pd.DataFrame:
        """clips.csv as text: index fname, columns fold, labels and crc32 of the samples."""
        path = self.path / "clips.csv"
        return index_by_fname(read_table(path, ("fname", "fold", "labels", "crc32")), path)

    def truth(self) -> pd.DataFrame:
        """0/1, index fname, columns the classes."""
        return read_labels(self.path / "clips.csv", self.settings()["classes"])[0]

    def out_of_fold(self, folds: Sequence[int]) -> pd.DataFrame:
        """The predictions of some folds: index fname, columns the classes.

        Raises:
            TaggingError: no fold, a fold that is not finished, or two folds that hold the same clip.
        """
        if not folds:
            raise TaggingError(f"{self} has no finished fold. Train it first.")
        frame = pd.concat([read_scores(self.predictions(fold)) for fold in folds])
        repeated = frame.index[frame.index.duplicated()]
        if len(repeated):
            raise TaggingError(f"{self}: {shorten(list(repeated), 3)} stand in the predictions of two folds. "
                               "Train those folds again.")
        return frame

    def caveat(self) -> str:
        """What has to be said beside its out-of-fold scores; "" for nothing."""
        if not self.settings().get("noisy_labels"):
            return ""
        return ("The noisy clips had the labels of noisy_labels.csv. If models judged them that have learnt from the "
                "clips scored here, these scores are too good.")

    def update_scores(self) -> dict:
        """Score the finished folds from their files, whoever trained them, and write scores.json."""
        with self.lock():       # each process reads what all have finished, so the last one writes them all
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
    """
    Raises:
        TaggingError: the name of the run is not a plain folder name.
    """
    if not re.fullmatch(r"[\w][\w.-]*", run):
        raise TaggingError(f"--run '{run}' must be letters, digits, '.', '_' and '-': it names a folder in {models}.")
    return StageFolder(Path(models) / run / stage)


def flatten(content: dict, prefix: str = "") -> dict:
    """{'a': {'b': 1}} -> {'a.b': 1}; tuples and lists compare as equal."""
    flat = {}
    for name, value in content.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {
            prefix + name: list(value) if isinstance(value, tuple) else value}
    return flat


def differences(settings: dict, others: dict, with_origin: bool = False) -> list[str]:
    """The settings that differ, a line each.

    Args:
        with_origin: also command, commit and versions.
    """
    old, new = flatten(settings), flatten(others)
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and (with_origin or not name.startswith("made_by."))]


def made_by(*files: Path) -> dict:
    """What it takes to make the same thing again: command, commit, versions, and the hashes of files."""
    def git(*words: str) -> str | None:
        root = Path(__file__).resolve().parents[1]
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return {"command": shlex.join(["python", *sys.argv]),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"), "commit": git("rev-parse", "HEAD"),
            "clean": None if status is None else not status,
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
            "versions": {"python": platform.python_version(), "cudnn": torch.backends.cudnn.version(),
                         **{name: version(name) for name in PACKAGES}}}
