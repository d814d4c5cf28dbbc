"""Recompute a run's out-of-fold predictions and scores from its weights, and say whether they are what it claims.

    python -m tools.verify --run NAME --data DIR [--stage noisy]

Exits with 1 if the score of a fold differs by more than 1e-4, or a probability by more than 0.05: on a GPU the
probabilities differ in the last bits.
"""
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tagging_lite.audio import make_trim
from tagging.cli import Common, parse, run_script
from tagging.data.competition import open_competition
from tagging.data.tables import read_scores
from tagging.data.waveforms import open_store
from tagging.errors import TaggingError, shorten
from tagging.metric import lwlrap
from tagging.provenance import provenance
from tagging.run import StageFolder, stage_folder
from tagging.utils.devices import choose_device, describe_device
from tagging.utils.files import read_json

TOLERANCE = 1e-4        # of a score
LOOSE = 0.05            # of a probability, which on another GPU is rounded otherwise, in bf16


@dataclass(frozen=True, kw_only=True)
class Verify(Common):
    run: str                                            # the run to check
    stage: Literal["noisy", "curated"] = "curated"      # which of its stages


def main() -> None:
    args = parse(Verify, __doc__.splitlines()[0])
    device = choose_device(args.device)
    competition = open_competition(args.data)
    folder = stage_folder(args.models, args.run, args.stage)
    recipe, folds = folder.recipe(), folder.finished_folds()
    if not folds:
        raise TaggingError(f"{folder} has no finished fold to check.")
    clips, store = open_store(competition.clips(args.stage), make_trim(recipe.trim_db), args.cache,
                              skip_bad=args.skip_bad_clips, sample_rate=folder.settings()["sample_rate"])

    recorded, truth = folder.clips(), folder.truth()
    changes = changed_data(folder, dict(zip(clips.fnames, store.checksums)), competition.classes, clips)
    present = FoldedClips(clips, store, recorded.fold.reindex(clips.fnames).to_numpy())
    wrong = 0
    for fold in folds:
        dataset = present.valid(str(fold))
        fnames = dataset.fnames
        claimed = read_scores(folder.predictions(fold)).reindex(fnames)
        record = read_json(folder.record(fold), "Train the fold again.")
        model = folder.load_model(fold, competition.classes, device)
        found = predict_clips(model, dataset, progress=f"{folder} fold {fold}")
        score = lwlrap(truth=truth.loc[fnames].to_numpy(), scores=found.to_numpy())
        largest = float(np.abs(found.to_numpy() - claimed.to_numpy()).max())
        same = abs(score - record["lwlrap"]) <= TOLERANCE and largest <= LOOSE      # NaN: a clip has no prediction
        wrong += not same
        print(f"{args.stage} fold {fold}  {'same' if same else 'DIFFERS'}: lwlrap {record['lwlrap']:.5f} recorded, "
              f"{score:.5f} recomputed; probabilities differ by {largest:.2g} at most", flush=True)
        if not same or largest > TOLERANCE:
            for reason in [*changes, *changed_place(record, describe_device(device))] or ["nothing known has changed"]:
                print(f"  it may be because {reason}")
    print(f"{len(folds) - wrong} of {len(folds)} folds of {folder} are as recorded")
    sys.exit(1 if wrong else 0)


def changed_data(folder: StageFolder, checksums: dict[str, int], classes: tuple[str, ...], clips) -> list[str]:
    """What is not as it was when the run was trained: which clips came, went, sound otherwise or have other labels."""
    recorded, truth = folder.clips(), folder.truth()
    targets = dict(zip(clips.fnames, clips.targets))
    shared = [fname for fname in recorded.index if fname in checksums]
    groups = {
        "are new": [fname for fname in checksums if fname not in recorded.index],
        "are gone": [fname for fname in recorded.index if fname not in checksums],
        "have other samples": [fname for fname in shared if f"{checksums[fname]:08x}" != recorded.crc32[fname]],
        "have other labels": [fname for fname in shared if (targets[fname] != truth.loc[fname, list(classes)]).any()],
    }
    return [f"{len(fnames)} clips {what}: {shorten(fnames, 5)}" for what, fnames in groups.items() if fnames]


def changed_place(record: dict, device: str) -> list[str]:
    """Device and versions, where they are not those of the training."""
    now = provenance()
    pairs = {"the device": (record["device"], device), "the commit": (record["commit"], now["commit"]),
             **{name: (version, now["versions"].get(name)) for name, version in record["versions"].items()}}
    return [f"{name} was {before} and is {after}" for name, (before, after) in pairs.items() if before != after]


if __name__ == "__main__":
    run_script(main)
