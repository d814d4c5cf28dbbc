"""Learning curves over the number of training clips: score on training, out-of-fold and test clips."""
from pathlib import Path

import numpy as np
import pandas as pd

from tagging.data.folds import ClipDataset
from tagging.data.tables import read_numbers, read_table
from tagging.utils.files import atomic
from tagging.utils.seeds import seed_for

NAME = "learning_curve.csv"             # in the folder of a stage
COLUMNS = ["clips", "training", "out_of_fold", "test"]
GAP, RISE = 0.05, 0.01                  # differences of lwlrap from which on bias and variance are named


def draw_part(clips: ClipDataset, share: float, seed: int) -> ClipDataset:
    """Return a random part of the clips, at least one. A smaller part is contained in each larger one."""
    order = np.random.default_rng(seed_for(seed, "learning curve")).permutation(len(clips))
    keep = np.sort(order[:max(1, round(share * len(clips)))])
    return ClipDataset(clips.fnames[keep], clips.store.subset(keep), clips.targets[keep])


def write_curve(path: Path, table: pd.DataFrame) -> None:
    """Write a table of `COLUMNS`: lwlrap for each number of training clips. The test scores can be missing."""
    with atomic(path) as temporary:
        table[COLUMNS].to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def read_curve(path: Path) -> pd.DataFrame:
    """Read a file of `write_curve`.

    Raises:
        TaggingError: the file is damaged.
    """
    table = read_table(path, COLUMNS)
    has_test = (table.test != "").all()
    columns = COLUMNS if has_test else COLUMNS[:-1]
    rows = [read_numbers(list(row), f"{path}, line {line}", columns) for line, *row in table[columns].itertuples()]
    return pd.DataFrame(rows, columns=columns).reindex(columns=COLUMNS).astype(float).astype({"clips": int})


def explain_curve(table: pd.DataFrame) -> str:
    """Say in two sentences what a learning curve means: one about bias and variance, and one about more clips."""
    last = table.iloc[-1]
    gap = last.training - last.out_of_fold
    first = f"With all {last.clips:,.0f} clips, the score is {last.training:.3f} on the training clips and " \
            f"{last.out_of_fold:.3f} out-of-fold: "
    if gap > GAP:
        first += f"the gap of {gap:.3f} is variance, so the model overfits."
    elif last.out_of_fold < 1 - GAP:
        first += "both are alike and below 1, which is bias, so a stronger model may help."
    else:
        first += "both are high, so there is little bias and little variance."
    if len(table) < 2:
        return f"{first} More points are needed to tell whether more clips would help."
    before = table.iloc[-2]
    rise = last.out_of_fold - before.out_of_fold
    second = f"From {before.clips:,.0f} to {last.clips:,.0f} clips the out-of-fold score changes by {rise:+.3f}, so "
    return f"{first} {second}" + ("more clips would probably help." if rise > RISE else
                                  "more clips of the same kind would probably help little.")
