"""Score a submission with lwlrap: python lwlrap.py SUBMISSION.csv --truth TRUTH.csv [--usage Private] [--per-class]"""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
from tyro.conf import Positional

from tagging.cli import parse, run_script
from tagging.data.tables import check_same, read_scores, read_truth
from tagging.errors import TaggingError
from tagging.metric import lwlrap, per_class_lwlrap
from tagging.options import shown_default

__all__ = ["lwlrap", "per_class_lwlrap"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """lwlrap.py."""
    submission: Positional[Path]        # Csv to score: fname, then a column for each class.
    truth: Path                         # Csv with the truth: fname,labels[,usage], or a 0/1 table like a submission.
    # Score only the rows with this usage, such as Private.
    usage: Annotated[str | None, shown_default("", "USAGE")] = None
    per_class: bool = False             # Also print the score of each class, the lowest first.


def main() -> None:
    args = parse(Score, "Label-weighted label-ranking average precision (lwlrap) of a submission.")
    scores = read_scores(args.submission)
    truth = read_truth(args.truth, list(scores.columns), args.usage)
    # With --usage the submission can contain the rows of other usages too. Without it, its rows must be the truth's.
    rows = scores.index.intersection(truth.index) if args.usage else scores.index
    check_same(rows, truth.index, str(args.submission), "rows",
               f"The truth is {args.truth}. Score a part of it with --usage.")
    if len(rows) == len(truth) < len(scores):
        print(f"{len(scores) - len(rows)} rows of {args.submission} are not of usage {args.usage} and do not count")
    scores = scores.loc[truth.index]
    if not truth.to_numpy().any():
        raise TaggingError(f"{args.truth} has no labels, so there is nothing to score. Check the file.")

    if args.per_class:
        precision, weight = per_class_lwlrap(truth=truth.to_numpy(), scores=scores.to_numpy())
        table = pd.DataFrame({"lwlrap": precision, "weight": weight, "clips": truth.sum().to_numpy()}, truth.columns)
        print(table.sort_values("lwlrap").to_string(float_format="%.5f"))
    print(f"lwlrap {lwlrap(truth=truth.to_numpy(), scores=scores.to_numpy()):.5f}")


if __name__ == "__main__":
    run_script(main)
