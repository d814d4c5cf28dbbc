"""Judge the labels of the noisy set by a run, each clip by the model that has not seen it, and write soft labels.

    python -m tools.relabel --run NAME --data DIR [--trust 0.3] [--out labels.csv]
    python train_curated.py --recipe podium --run SECOND --data DIR --noisy-labels labels.csv

The csv has a row a clip and a column a class, from 0 to 1, and may be edited: a clip whose row is removed is not
trained on. A further round starts from the given labels again, not from edited ones. The models of SECOND have learnt
from the judgement of models that saw their curated out-of-fold clips: its out-of-fold score is too good.
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.cli import Common, parse, run_script
from tagging.data.competition import open_competition
from tagging.data.folds import open_folds
from tagging.data.tables import write_scores
from tagging.errors import TaggingError, shorten
from tagging.evaluation.predict import predict_clips
from tagging.run import stage_folder
from tagging.utils.devices import choose_device


@dataclass(frozen=True, kw_only=True)
class Relabel(Common):
    run: str                    # the run that judges, trained on both sets at once with all its folds
    trust: float = 0.3          # in the given label, from 0 to 1; the rest is the model's probability
    out: Path | None = None     # the csv to write; default is models/RUN/noisy_labels.csv


def main() -> None:
    args = parse(Relabel, __doc__.splitlines()[0])
    if not 0 <= args.trust <= 1:
        raise TaggingError("--trust must be from 0 to 1.")
    device = choose_device(args.device)
    competition = open_competition(args.data)
    folder = stage_folder(args.models, args.run, "curated")
    settings, recipe = folder.settings(), folder.recipe()
    if not recipe.mixes_sets("curated"):
        raise TaggingError(f"{folder} was not trained on both sets at once. Judge by a run that was, such as one of "
                           "--recipe podium.")
    if settings["initial_weights"] != "scratch":
        raise TaggingError(f"{folder} started from the stage 1 of {settings['initial_weights']}, whose folds may be "
                           "others. Judge by a run from random weights, such as one of --recipe podium.")
    out = args.out or folder.path.parent / "noisy_labels.csv"
    if out.exists():
        raise TaggingError(f"{out} exists, and may have been edited. Remove it, or choose another --out.")
    missing = sorted(set(range(1, recipe.fold_count + 1)) - set(folder.finished_folds()))
    if missing:
        raise TaggingError(f"{folder} lacks fold {shorten(missing)}, and nobody else may judge the clips of that fold. "
                           "Train it first.")
    noisy = open_folds("noisy", competition, recipe, args.cache, args.skip_bad_clips, settings["sample_rate"])
    if noisy.fingerprint() != settings.get("noisy_clips"):
        raise TaggingError(f"The noisy clips of {args.data} or their labels are not those that {folder} was trained "
                           "with, so it may have seen what it would judge. Take the data of the run.")

    judged = []
    for fold in range(1, recipe.fold_count + 1):
        model = folder.load_model(fold, competition.classes, device)
        judged.append(predict_clips(model, noisy.valid(fold), tta=recipe.views(),
                                    progress=f"{folder} fold {fold}").astype(np.float64))
    given = pd.DataFrame(noisy.clips.targets, noisy.clips.fnames, competition.classes)
    judged = pd.concat(judged).loc[given.index]
    write_scores(out, args.trust * given + (1 - args.trust) * judged)
    print_doubts(given, judged)
    print(f"{len(given)} clips x {len(competition.classes)} classes -> {out}")


def print_doubts(given: pd.DataFrame, judged: pd.DataFrame, count: int = 10) -> None:
    """The given labels that the models believe least, with the likeliest other one."""
    labels = judged.where(given == 1).stack().dropna().sort_values()
    print(f"{(labels < 0.5).sum()} of {len(labels)} given labels have a probability below 0.5. Believed least:")
    for (fname, name), probability in labels.head(count).items():
        others = judged.loc[fname].drop(name)
        print(f"  {fname}  {name} {probability:.3f}, {others.idxmax()} {others.max():.3f}")


if __name__ == "__main__":
    run_script(main)
