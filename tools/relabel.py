"""Predict the labels of the noisy set with a run, each clip with the model that was not trained on it -> soft labels.

    python -m tools.relabel --run NAME --data DIR [--trust 0.3] [--out labels.csv]
    python train_curated.py --recipe podium --run SECOND --data DIR --noisy-labels labels.csv

The csv has a row for each clip and a column for each class, with values from 0 to 1. You can edit it. A clip whose row
you remove is not used in training. A further round starts again from the labels of the competition, not from an edited
csv. The out-of-fold scores of SECOND are too high, because its labels come from models that were trained on its curated
out-of-fold clips.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from tagging.cli import parse, run_script
from tagging.data.competition import Competition, open_competition
from tagging.data.folds import FoldedClips, open_folds
from tagging.data.tables import write_scores
from tagging.errors import TaggingError, shorten
from tagging.evaluation.predict import predict_clips
from tagging.options import DataOptions, DeviceOption, Flat, ModelsOption, shown_default
from tagging.run import StageFolder, stage_folder
from tagging.schema import require_network
from tagging.utils.devices import choose_device
from tagging.utils.files import check_file


@dataclass(frozen=True, kw_only=True)
class JudgeOptions(DeviceOption, ModelsOption):
    """The run that predicts the labels."""
    run: str                                # Name of a finished run that was trained on both sets at once.


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """The soft labels."""
    trust: float = 0.3                      # Weight of the given label, from 0 to 1. The prediction has the rest.
    # Csv to write. It must not exist.
    out: Annotated[Path | None, shown_default("models/RUN/noisy_labels.csv", "PATH")] = None


@dataclass(frozen=True, kw_only=True)
class Relabel:
    """tools.relabel."""
    data: Flat[DataOptions]
    run: Flat[JudgeOptions]
    labels: Flat[LabelOptions]


def main() -> None:
    args = parse(Relabel, __doc__)
    trust = args.labels.trust
    if not 0 <= trust <= 1:
        raise TaggingError("--trust must be from 0 to 1.")
    folder = stage_folder(args.run.models, args.run.run, "curated")
    out = args.labels.out or folder.path.parent / "noisy_labels.csv"
    check_file(out, "--out")
    device = choose_device(args.run.device)
    competition = open_competition(args.data.data)
    check_run(folder)
    if out.exists():
        raise TaggingError(f"{out} exists and may have been edited. Remove it, or choose another --out.")
    check_folds(folder)
    noisy = open_noisy(folder, competition, args.data)

    recipe, tables = folder.recipe(), []
    for fold in range(1, recipe.fold_count + 1):
        model = folder.load_model(fold, competition.classes, device)
        table = predict_clips(model, noisy.valid(fold), tta=recipe.views(), progress=f"{folder} fold {fold}")
        tables.append(table.astype(np.float64))
    given = pd.DataFrame(noisy.clips.targets, noisy.clips.fnames, list(competition.classes))
    predicted = pd.concat(tables).loc[given.index]
    write_scores(out, trust * given + (1 - trust) * predicted)
    print_doubts(given, predicted)
    print(f"{len(given)} clips x {len(competition.classes)} classes -> {out}")


def check_run(folder: StageFolder) -> None:
    """
    Raises:
        TaggingError: the models of the run may have been trained on the clips that they would predict.
    """
    require_network(folder.settings(), folder)
    if not folder.recipe().mixes_sets("curated"):
        raise TaggingError(f"{folder} was not trained on both sets at once. Choose a run that was, such as one of "
                           "--recipe podium.")
    source = folder.settings()["initial_weights"]
    if source != "scratch":
        raise TaggingError(f"{folder} started from the noisy stage of {source}, which may have other folds. Choose a "
                           "run that started from random weights, such as one of --recipe podium.")


def check_folds(folder: StageFolder) -> None:
    """
    Raises:
        TaggingError: a fold is not finished.
    """
    missing = sorted(set(range(1, folder.recipe().fold_count + 1)) - set(folder.finished_folds()))
    if missing:
        raise TaggingError(f"{folder} has no finished fold {shorten(missing)}, and only the model of that fold was not "
                           "trained on its clips. Train the fold first.")


def open_noisy(folder: StageFolder, competition: Competition, data: DataOptions) -> FoldedClips:
    """Open the noisy clips with the folds of the run.

    Raises:
        TaggingError: as `open_folds`; or the run was trained with other noisy clips.
    """
    settings = folder.settings()
    noisy = open_folds("noisy", competition, folder.recipe(), data.cache, data.skip_bad_clips, settings["sample_rate"])
    if noisy.fingerprint() != settings.get("noisy_clips"):
        raise TaggingError(f"The noisy clips of {data.data} or their labels differ from those of {folder}, so a model "
                           "may have been trained on the clips that it would predict. Use the data of the run.")
    return noisy


def print_doubts(given: pd.DataFrame, predicted: pd.DataFrame, count: int = 10) -> None:
    """Print the given labels with the lowest probabilities, each with the most probable other class."""
    labels = predicted.where(given == 1).stack().dropna().sort_values()
    print(f"{(labels < 0.5).sum()} of {len(labels)} given labels have a probability below 0.5. The lowest ones:")
    for (fname, name), probability in labels.head(count).items():
        others = predicted.loc[fname].drop(name)
        print(f"  {fname}  {name} {probability:.3f}, {others.idxmax()} {others.max():.3f}")


if __name__ == "__main__":
    run_script(main)
