"""Recompute the out-of-fold predictions and scores of a run from its weights, and compare them with the recorded ones.

    python -m tools.verify --run NAME --data DIR [--stage noisy]

The exit code is 1 if the score of a fold differs by more than 1e-4, a probability by more than 0.05, or a label. On a
GPU the probabilities differ in the last bits.
"""
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tagging.baselines.runs import load_fold, predict_fold
from tagging.cli import parse, run_script
from tagging.data.competition import Clips, open_competition
from tagging.data.folds import ClipDataset, FoldedClips
from tagging.data.tables import check_same, read_scores
from tagging.data.waveforms import open_store
from tagging.errors import TaggingError, shorten
from tagging.metric import lwlrap
from tagging.options import DataOptions, DeviceOption, Flat, RunOptions
from tagging.provenance import provenance
from tagging.run import StageFolder, stage_folder
from tagging.utils.devices import choose_device, describe_device
from tagging.utils.files import read_json
from tagging_lite.audio import make_trim

TOLERANCE = 1e-4                # largest difference of a score
PROBABILITY_TOLERANCE = 0.05    # largest difference of a probability; in bf16, another GPU rounds differently


@dataclass(frozen=True, kw_only=True)
class VerifiedRunOptions(DeviceOption, RunOptions):
    """The run to verify."""


@dataclass(frozen=True, kw_only=True)
class Verify:
    """tools.verify."""
    data: Flat[DataOptions]
    run: Flat[VerifiedRunOptions]


@dataclass(frozen=True)
class Comparison:
    """Recorded and recomputed values of one fold."""
    recorded: float             # lwlrap
    recomputed: float           # lwlrap
    largest: float              # difference of a probability; NaN if a clip has no recorded prediction
    relabelled: int             # clips with other labels than those of the run

    @property
    def same(self) -> bool:
        return (abs(self.recomputed - self.recorded) <= TOLERANCE and self.largest <= PROBABILITY_TOLERANCE
                and not self.relabelled)


def main() -> None:
    args = parse(Verify, __doc__)
    run, device = args.run, choose_device(args.run.device)
    competition = open_competition(args.data.data)
    folder = stage_folder(run.models, run.run, run.stage)
    folds = folder.finished_folds()
    if not folds:
        raise TaggingError(f"{folder} has no finished fold. Train it first.")
    check_same(competition.classes, folder.settings()["classes"], f"{args.data.data}, compared with {folder},",
               "classes", "Use the data that the run was trained on.")
    clips, store = open_store(competition.clips(run.stage), make_trim(folder.recipe().trim_db), args.data.cache,
                              skip_bad=args.data.skip_bad_clips, sample_rate=folder.settings()["sample_rate"])
    changes = data_changes(folder, dict(zip(clips.fnames, store.checksums)), competition.classes, clips)
    fold_of = pd.to_numeric(folder.clips().fold, errors="coerce").reindex(clips.fnames)     # NaN for a new clip
    present = FoldedClips(clips, store, fold_of.to_numpy())
    absent = [fold for fold in folds if not len(present.valid(fold))]
    if absent:
        raise TaggingError(f"{args.data.data} has no {run.stage} clip of fold {shorten(absent)} of {folder}. Use the "
                           "data of the run.")
    print("".join(f"{change}\n" for change in changes), end="")
    wrong = 0
    for fold in folds:
        found = compare_fold(folder, fold, present.valid(fold), competition.classes, device)
        wrong += not found.same
        print(f"{run.stage} fold {fold}  {'same' if found.same else 'DIFFERS'}: lwlrap {found.recorded:.5f} recorded, "
              f"{found.recomputed:.5f} recomputed; probabilities differ by at most {found.largest:.2g}", flush=True)
        if not found.same or found.largest > TOLERANCE:
            reasons = [*changes, *environment_changes(folder, fold, device)]
            print("\n".join(f"  possible reason: {reason}" for reason in reasons or ["none is known"]))
    print(f"{len(folds) - wrong} of {len(folds)} folds of {folder} are as recorded")
    sys.exit(1 if wrong else 0)


def compare_fold(folder: StageFolder, fold: int, clips: ClipDataset, classes: tuple[str, ...],
                 device: torch.device) -> Comparison:
    """Predict the held-out clips of a fold again."""
    recorded = read_scores(folder.predictions(fold)).reindex(clips.fnames)
    record = read_json(folder.record(fold), "Train the fold again.")
    model = load_fold(folder, fold, classes, device)
    found = predict_fold(model, clips, progress=f"{folder} fold {fold}")
    truth = folder.truth().loc[clips.fnames, list(classes)].to_numpy()
    score = lwlrap(truth=truth, scores=found.to_numpy())
    largest = float(np.abs(found.to_numpy() - recorded.to_numpy()).max())
    return Comparison(record["lwlrap"], score, largest, int((clips.targets != truth).any(1).sum()))


def data_changes(folder: StageFolder, checksums: dict[str, int], classes: tuple[str, ...], clips: Clips) -> list[str]:
    """List the changes of the data since the training: new and missing clips, other samples, other labels."""
    recorded, truth = folder.clips(), folder.truth()
    targets = dict(zip(clips.fnames, clips.targets))
    shared = [fname for fname in recorded.index if fname in checksums]
    groups = {
        "are new": [fname for fname in checksums if fname not in recorded.index],
        "are missing": [fname for fname in recorded.index if fname not in checksums],
        "have other samples": [fname for fname in shared if "crc32" in recorded        # runs before 1d1709a have none
                               and f"{checksums[fname]:08x}" != recorded.crc32[fname]],
        "have other labels": [fname for fname in shared if (targets[fname] != truth.loc[fname, list(classes)]).any()],
    }
    return [f"{len(fnames)} clips {what}: {shorten(fnames, 5)}" for what, fnames in groups.items() if fnames]


def environment_changes(folder: StageFolder, fold: int, device: torch.device) -> list[str]:
    """List device, commit and versions that differ from those of the training."""
    record, now = read_json(folder.record(fold), "Train the fold again."), provenance()
    pairs = {"the device": (record["device"], describe_device(device)), "the commit": (record["commit"], now["commit"]),
             **{name: (version, now["versions"].get(name)) for name, version in record["versions"].items()}}
    return [f"{name} was {before} and is {after}" for name, (before, after) in pairs.items() if before != after]


if __name__ == "__main__":
    run_script(main)
