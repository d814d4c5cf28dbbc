"""Score a submission with lwlrap: python lwlrap.py SUBMISSION.csv --truth TRUTH.csv [--usage Private] [--per-class]"""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
from tyro.conf import Positional

from tagging.cli import parse, run_script
from tagging.data.clip_names import adopt_names
from tagging.data.competition import read_classes
from tagging.data.tables import check_same, has_labels, read_scores, read_truth
from tagging.errors import TaggingError, shorten
from tagging.metric import lwlrap, per_class_lwlrap
from tagging.options import shown_default

__all__ = ["lwlrap", "per_class_lwlrap"]

CLASS_LISTS = ("sample_submission.csv", "vocabulary.csv")       # their names in Kaggle's and in Zenodo's layout


@dataclass(frozen=True, kw_only=True)
class Score:
    """lwlrap.py."""
    submission: Positional[Path]        # Csv to score: fname, then a column for each class.
    truth: Path                         # Csv with the truth: fname,labels[,usage], or a 0/1 table like a submission.
    # Csv with the classes: a sample submission or a vocabulary.
    classes: Annotated[Path | None, shown_default("the one in the folder of the truth", "FILE")] = None
    # Score only the rows with this usage, such as Private.
    usage: Annotated[str | None, shown_default("", "USAGE")] = None
    per_class: bool = False             # Also print the score of each class, the lowest first.


def main() -> None:
    args = parse(Score, "Label-weighted label-ranking average precision (lwlrap) of a submission.")
    if is_same(args.truth, args.submission):
        raise TaggingError(f"--truth {args.truth} is the submission itself. Name the file with the truth.")
    if args.classes and is_same(args.classes, args.submission):
        raise TaggingError(f"--classes {args.classes} is the submission, which is to be checked. Name the sample "
                           "submission or the vocabulary.")
    class_list = args.classes or find_class_list(args.truth, args.submission)
    classes = read_classes(class_list) if class_list else None
    scores = read_scores(args.submission)
    everything = read_truth(args.truth, classes)
    truth = read_truth(args.truth, classes, args.usage) if args.usage else everything
    print(f"{truth.shape[1]} classes, {'those' if classes or not has_labels(args.truth) else 'the labels'} of "
          f"{class_list or args.truth}")
    check_columns(args.submission, scores, truth.columns, args.truth, class_list)
    # A name must not fit a row of another usage too.
    scores.index = pd.Index(adopt_names(scores.index, everything.index, args.submission, f"the rows of {args.truth}"))
    # With --usage the submission can contain the rows of other usages too. Without it, its rows must be the truth's.
    others = everything.index.difference(truth.index)
    check_same(scores.index.difference(others), truth.index, str(args.submission), "rows",
               f"The truth is {args.truth}. " + ("Write one row for each of its clips." if args.usage else
                                                 "Score a part of it with --usage."))
    if len(scores) > len(truth):
        print(f"{len(scores) - len(truth)} rows of {args.submission} are not of usage {args.usage} and do not count")
    scores = scores.loc[truth.index, truth.columns]
    if not truth.to_numpy().any():
        raise TaggingError(f"{args.truth} has no labels, so there is nothing to score. Check the file.")
    unlabelled = truth.index[~truth.any(axis=1)]
    if len(unlabelled):
        print(f"{len(unlabelled)} of {len(truth)} clips have no label in {args.truth} and do not count: "
              f"{shorten(list(unlabelled), 3)}")
    empty = [name for name in everything if not everything[name].any()]
    if empty:
        print(f"classes without a clip in {args.truth}: {shorten(empty, 5)}")

    if args.per_class:
        precision, weight = per_class_lwlrap(truth=truth.to_numpy(), scores=scores.to_numpy())
        table = pd.DataFrame({"lwlrap": precision, "weight": weight, "clips": truth.sum().to_numpy()}, truth.columns)
        print(table.sort_values("lwlrap").to_string(float_format="%.5f"))
    print(f"lwlrap {lwlrap(truth=truth.to_numpy(), scores=scores.to_numpy()):.5f}")


def find_class_list(truth: Path, submission: Path) -> Path | None:
    """Return the file in the folder of the truth that names the classes. A 0/1 table needs none.

    It is never the submission itself, because what is checked must not decide how it is checked.

    Raises:
        TaggingError: there are two such files with different classes.
    """
    if not has_labels(truth):
        return None
    found = [path for path in (truth.parent / name for name in CLASS_LISTS)
             if path.is_file() and not is_same(path, submission)]
    if len({frozenset(read_classes(path)) for path in found}) > 1:
        raise TaggingError(f"{' and '.join(map(str, found))} have different classes. Choose one of them with "
                           "--classes.")
    return found[0] if found else None


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths are the same file, also through links."""
    return path.exists() and other.exists() and path.samefile(other)


def check_columns(path: Path, scores: pd.DataFrame, classes: Sequence[str], truth: Path,
                  class_list: Path | None) -> None:
    """
    Raises:
        TaggingError: the columns of the submission are not the classes, or are more than the labels of a truth without
            a list of the classes.
    """
    extra = [name for name in scores if name not in classes]
    if extra and class_list is None and has_labels(truth):
        # A class without a clip in the truth counts too, since its scores lower the ranks of the labels.
        raise TaggingError(f"{path} has {len(extra)} columns that are no label in {truth}: {shorten(extra, 5)}. If "
                           "they are classes, name the sample submission or the vocabulary with --classes. If not, "
                           "remove them.")
    check_same(scores.columns, classes, str(path), "columns",
               f"The classes are those of {class_list or truth}. Write a column for each class, and no other.")


if __name__ == "__main__":
    run_script(main)
