"""Score a submission: python lwlrap.py SUBMISSION.csv --truth TRUTH.csv [--usage Private] [--per-class]"""
import argparse
from pathlib import Path

import pandas as pd

from tagging.errors import TaggingError, run_script
from tagging.metric import lwlrap, per_class_lwlrap
from tagging.tables import check_same, read_scores, read_truth

__all__ = ["lwlrap", "per_class_lwlrap"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Label-weighted label-ranking average precision of a submission.")
    parser.add_argument("submission", type=Path, help="csv: fname, then a column for each class")
    parser.add_argument("--truth", type=Path, required=True,
                        help="csv: fname,labels[,usage], or a 0/1 table in the submission's form")
    parser.add_argument("--usage", help="score the truth's rows of this usage only, such as Private")
    parser.add_argument("--per-class", action="store_true", help="also print each class, lowest first")
    args = parser.parse_args()

    scores = read_scores(args.submission)
    truth = read_truth(args.truth, scores.columns, args.usage)
    # A submission may hold the rows of the other usages too; without --usage its rows must be the truth's.
    rows = scores.index.intersection(truth.index) if args.usage else scores.index
    check_same(rows, truth.index, str(args.submission), "rows",
               f"The truth is {args.truth}; --usage scores a part of it.")
    if len(rows) == len(truth) < len(scores):
        print(f"{len(scores) - len(rows)} rows of {args.submission} are not of usage {args.usage} and do not count")
    scores = scores.loc[truth.index]
    if not truth.to_numpy().any():
        raise TaggingError(f"{args.truth} has no label at all, so there is nothing to score.")

    if args.per_class:
        precision, weight = per_class_lwlrap(truth=truth.to_numpy(), scores=scores.to_numpy())
        table = pd.DataFrame({"lwlrap": precision, "weight": weight, "clips": truth.sum().to_numpy()}, truth.columns)
        print(table.sort_values("lwlrap").to_string(float_format="%.5f"))
    print(f"lwlrap {lwlrap(truth=truth.to_numpy(), scores=scores.to_numpy()):.5f}")


if __name__ == "__main__":
    run_script(main)
