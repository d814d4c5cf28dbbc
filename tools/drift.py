"""Compare the tags of a log with the tags that a run gave to its own clips, and list the classes that moved.

    python -m tools.drift access.jsonl --run NAME
    python -m tools.drift tags.csv --run NAME --format csv > drift.csv

A log is the access log of the service, or what tools.tag wrote: json, csv, jsonl or parquet, or a folder of parts. The
exit code is 1 if a class moved.
"""
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from tyro.conf import Positional, arg

from tagging.cli import parse, run_script
from tagging.errors import TaggingError, shorten
from tagging.evaluation.drift import shares as drift
from tagging.evaluation.drift.logs import TagReader
from tagging.evaluation.drift.shares import Drift
from tagging.evaluation.drift.tally import LogTally, Tally, choose_sounds, require_one_model
from tagging.evaluation.error_analysis import out_of_fold
from tagging.options import Flat, RunOptions, shown_default
from tagging.provenance import show_date
from tagging.run import StageFolder, stage_folder
from tagging_lite.console import json_text

WORDS = {"strongest": "strongest tag of", "detected": "detected in"}


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """The log."""
    logs: Annotated[Positional[tuple[Path, ...]], arg(
        metavar="LOG...", help="Log files, or folders of parts. Names that end with .gz are unpacked.",
        help_behavior_hint="(required)")]
    since: Annotated[date | None, shown_default("", "DATE")] = None     # First day to read, in UTC.
    until: Annotated[date | None, shown_default("", "DATE")] = None     # Last day to read, in UTC.
    skip_bad_lines: bool = False        # Leave out lines that cannot be read, and count them.


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """The comparison."""
    threshold: float = 0.5              # Probability from which a class counts as detected in a sound.
    least_change: float = 1.25          # Smallest factor between two shares that counts as a change.
    model: Annotated[Path | None, shown_default("model.onnx of the run", "PATH")] = None    # Model that wrote the log.
    format: Literal["text", "csv", "json"] = "text"         # Output format.


@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """tools.drift."""
    log: Flat[LogOptions]
    run: Flat[RunOptions]
    comparison: Flat[ComparisonOptions]


def main() -> None:
    args = parse(DriftOptions, __doc__)
    log, options = args.log, args.comparison
    if not log.logs:
        raise TaggingError("No log is named. Give the access log of the service, or a file that tools.tag wrote.")
    if not 0 < options.threshold <= 1 or options.least_change < 1:
        raise TaggingError("--threshold must be above 0 and at most 1, and --least-change must be 1 or more.")
    folder = stage_folder(args.run.models, args.run.run, args.run.stage)
    truth, predictions = out_of_fold(folder)
    model = model_checksum(folder, options.model)
    reader, tally = TagReader(log.skip_bad_lines), LogTally(Tally(list(predictions), options.threshold))
    sounds = (sound for path in log.logs for sound in reader.read(path))
    for sound in require_one_model(choose_sounds(sounds, log.since, log.until), model):
        tally.add(sound)
    skipped = [f"{kind}: {count:,}" for kind, count in reader.skipped.items()]
    if not tally.whole.sounds:
        raise TaggingError(f"{shorten(log.logs)}: no tags{' of that period' * bool(log.since or log.until)} "
                           f"({', '.join(skipped) or 'no lines'}). Give the access log of the service, or a file that "
                           "tools.tag wrote.")
    labels = truth.sum()
    reference = Tally(list(predictions), options.threshold).add_frame(predictions)
    found = drift.compare(tally.whole, reference, labels, options.least_change)
    weeks = {monday: drift.compare(week, reference, labels, options.least_change)
             for monday, week in sorted(tally.weeks.items()) if week.sounds}
    if options.format == "text":
        print_text(tally, found, weeks, folder)
    elif options.format == "csv":
        print(class_table(found).to_csv(index=False, lineterminator="\n"), end="")
    else:
        print(json_text(as_json(tally, found, weeks), sys.stdout.encoding or "utf-8", indent=1))
    for line in [*skipped, *remarks(found)]:
        print(f"note: {line}", file=sys.stderr)
    sys.exit(1 if found.moved else 0)


def model_checksum(folder: StageFolder, path: Path | None) -> str:
    """Return the SHA-256 of a model, or of the one that `tools.export` wrote into the run, or "" if there is none.

    Raises:
        TaggingError: `path` cannot be read.
    """
    exported = path or folder.path / "model.onnx"
    if not path and not exported.exists():
        return ""
    try:
        with open(exported, "rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TaggingError(f"{exported} could not be read: {error.strerror}. Choose the file with --model.") from error


def print_text(tally: LogTally, found: Drift, weeks: dict[date, Drift], folder: StageFolder) -> None:
    """Print what moved, the largest change first, then the weeks, then all classes."""
    log, classes = found.log, len(found.log.classes)
    period = (f" from {show_date(tally.first.isoformat())} to {show_date(tally.last.isoformat())} UTC"
              if tally.first and tally.last else "")
    print(f"{log.sounds:,} sounds{period}, compared with {found.predictions.sounds:,} out-of-fold predictions of "
          f"{folder}")
    print(f"The strongest tag differs for {found.distance:.1%} of the sounds; by chance alone it would be about "
          f"{found.by_chance:.1%}.")
    print(f"Mean of the highest probability: {log.highest / log.sounds:.3f}, and "
          f"{found.predictions.highest / found.predictions.sounds:.3f} out of fold.\n")
    moved = found.moved
    print(f"{len(moved)} of {classes} classes moved{':' if moved else '.'}")
    for name in moved:
        for measure, table in found.measures.items():
            if table.verdict[name] in (drift.MORE, drift.FEWER):
                print(f"  {name}: {describe(table.loc[name], measure)}")
    unknown = [name for name, verdict in verdicts(found).items() if verdict == drift.UNKNOWN]
    if unknown:
        print(f"Too few clips to tell for {len(unknown)}: {shorten(unknown)}. {found.remedy()}")
    rest = classes - len(moved) - len(unknown)
    if rest:
        print(f"No change was found for {rest}.")
    rare = found.training[found.training.verdict == drift.MORE].sort_values("factor", ascending=False)
    if len(rare):
        print("\nMore frequent as strongest tag than among the training labels. More training clips of them may help:")
        print(*(f"  {name}: {row.share:.1%} of the log, {row.other_share:.1%} of the labels"
                for name, row in rare.iterrows()), sep="\n")
    if len(weeks) > 1:
        print("\nweek of          sounds  differs  by chance  classes that moved")
        for monday, week in weeks.items():
            print(f"{monday.day:2} {monday:%b %Y} {week.log.sounds:12,} {week.distance:8.1%} {week.by_chance:10.1%}  "
                  f"{shorten(week.moved, 5) or '-'}")
    print("\nShares in percent of the sounds, and the share of each class in the training labels:")
    table = class_table(found)
    shares = [name for name in table if name.startswith(("log_", "out_of_fold_", "training_"))]
    table[shares] = table[shares].map(lambda share: "-" if pd.isna(share) else f"{share:.1%}")
    short = {"log_strongest": "strongest", "out_of_fold_strongest": "out of fold", "log_detected": "detected",
             "out_of_fold_detected": "out of fold", "training_labels": "training", "verdict": "found"}
    print(table[["class", *(name for name in short if name in table)]].rename(columns=short).to_string(index=False))


def describe(row: pd.Series, measure: str) -> str:
    """Return the change of a class as a phrase, its size first."""
    if row.other_share == 0:
        factor = "never out of fold"
    elif row.share == 0:
        factor = "never in the log"
    else:
        factor = f"{row.factor:.1f} times as often" if row.factor >= 1 else f"{1 / row.factor:.1f} times less often"
    return (f"{factor}, {WORDS[measure]} {row.share:.1%} of the sounds and {row.other_share:.1%} out of fold "
            f"({row.difference:+.1f} points, 95 % interval {row.low:+.1f} to {row.high:+.1f}, corrected p {row.p:.2g})")


def verdicts(found: Drift) -> pd.Series:
    """Return the verdict on each class: that of its strongest tags, or else of its detections if they moved."""
    verdict = found.measures["strongest"].verdict.copy()
    for table in found.measures.values():
        changed = table.verdict.isin((drift.MORE, drift.FEWER)) & ~verdict.isin((drift.MORE, drift.FEWER))
        verdict = verdict.mask(changed, table.verdict)
    return verdict


def class_table(found: Drift) -> pd.DataFrame:
    """Return a row for each class, the largest change of its share first. Shares are from 0 to 1."""
    table = pd.DataFrame({"verdict": verdicts(found)})
    for measure, compared in found.measures.items():
        table = table.assign(**{f"log_{measure}": compared.share, f"out_of_fold_{measure}": compared.other_share,
                                f"factor_{measure}": compared.factor, f"points_{measure}": compared.difference,
                                f"low_{measure}": compared.low, f"high_{measure}": compared.high,
                                f"p_{measure}": compared.p})
    if found.log.complete:
        table = table.assign(log_mean=found.log.total / found.log.sounds,
                             out_of_fold_mean=found.predictions.total / found.predictions.sounds)
    table = table.assign(training_labels=found.training.other_share, against_training=found.training.verdict)
    order = found.measures["strongest"].difference.abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].rename_axis("class").reset_index()


def as_json(tally: LogTally, found: Drift, weeks: dict[date, Drift]) -> dict:
    """Return everything that was found for JSON. A factor without an end is null."""
    def time(value: datetime | None) -> str | None:
        return value.isoformat() if value else None

    table = class_table(found).astype(object)
    rows = table.where(table.notna() & (table != float("inf")), None).to_dict("records")
    return {"sounds": found.log.sounds, "first": time(tally.first), "last": time(tally.last),
            "out_of_fold_clips": found.predictions.sounds, "distance": found.distance, "by_chance": found.by_chance,
            "highest": found.log.highest / found.log.sounds,
            "out_of_fold_highest": found.predictions.highest / found.predictions.sounds,
            "moved": found.moved, "classes": rows,
            "weeks": [{"monday": str(monday), "sounds": week.log.sounds, "distance": week.distance,
                       "by_chance": week.by_chance, "moved": week.moved} for monday, week in weeks.items()]}


def remarks(found: Drift) -> Iterator[str]:
    """Yield what limits the comparison."""
    if found.log.untagged:
        yield f"sounds without a tag above the threshold of the log, which are left out: {found.log.untagged:,}"
    if "detected" not in found.measures:
        yield (f"the log does not list every class from probability {found.log.threshold:g} upwards, so only strongest "
               "tags are compared")


if __name__ == "__main__":
    run_script(main)
