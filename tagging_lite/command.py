"""The command line: sound files and folders in, tags out."""
import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tagging_lite.console import json_text
from tagging_lite.errors import SoundError, TaggingError, list_notes, one_line
from tagging_lite.find import find_sounds
from tagging_lite.tagger import Tagger, TagResult

Results = Iterable[tuple[Path, TagResult]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands for tagging share."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH",
                        help="Sound files, or folders that contain sound files.")
    parser.add_argument("--top", type=int, default=5, metavar="K",
                        help="Number of tags for each file, at most. The default is 5.")
    parser.add_argument("--threshold", type=float, default=0.0, metavar="P",
                        help="Leave out tags with a lower probability. The default is 0.")
    parser.add_argument("--timeline", action="store_true", help="Also tag each second.")
    parser.add_argument("--format", choices=FORMATS, default="text", help="Output format. The default is text.")


def tag_paths(tagger: Tagger, args: argparse.Namespace,
              progress: Callable[[list[Path]], Iterable[Path]] = lambda paths: paths) -> int:
    """Tag all files, and print the tags of each file at once.

    At the end, stderr lists the files that could not be read, remarks on files, and files and folders that were left
    out.

    Args:
        args: as parsed with `add_arguments`.
        progress: wraps the list of paths to show the progress.
    Returns:
        the exit code: 1 if a file could not be read.
    Raises:
        TaggingError: an option is out of its range, or as `find_sounds`.
    """
    if args.top < 1 or not 0 <= args.threshold <= 1:
        raise TaggingError("--top must be 1 or more, and --threshold must be from 0 to 1.")
    found = find_sounds(args.paths)
    faults: list[str] = []
    notes: list[tuple[Path, tuple[str, ...]]] = []

    def results() -> Iterator[tuple[Path, TagResult]]:
        for path in progress(found.paths):
            try:
                result = tagger.tag_file(path, args.timeline)
            except SoundError as error:
                faults.append(f"{one_line(path)}: {error}")
                continue
            notes.append((path, result.notes))
            yield path, result

    FORMATS[args.format](results(), tagger, args.top, args.threshold)
    sys.stdout.flush()
    if faults:
        print(f"{len(faults)} {'file' if len(faults) == 1 else 'files'} could not be tagged:", *faults, sep="\n  ",
              file=sys.stderr)
        print("Replace them, or leave them out.", file=sys.stderr)
    for line in list_notes(notes):
        print(line, file=sys.stderr)
    if left_out := found.describe():
        print(*left_out, "To read one of them, name it on the command line.", sep="\n", file=sys.stderr)
    return 1 if faults else 0


def write_text(results: Results, tagger: Tagger, top: int, threshold: float) -> None:
    """Print a line for each file, and below it a line for each second of the timeline."""
    def line(probabilities: np.ndarray) -> str:
        return "  ".join(f"{name} {value:.2f}" for name, value in tagger.top_tags(probabilities, top, threshold)) or "-"

    for path, result in results:
        print(f"{one_line(path)}  {line(result.probabilities)}", flush=True)
        for second, row in enumerate(() if result.timeline is None else result.timeline):
            print(f"  {second // 60:3}:{second % 60:02}  {line(row)}")


def write_csv(results: Results, tagger: Tagger, top: int, threshold: float) -> None:
    """Print a row for each tag. `second` is empty for the tags of the whole file."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "second", "tag", "probability"])
    for path, result in results:
        rows = [("", result.probabilities), *enumerate(() if result.timeline is None else result.timeline)]
        writer.writerows([path, second, name, f"{value:.6f}"]
                         for second, row in rows for name, value in tagger.top_tags(row, top, threshold))


def write_json(results: Results, tagger: Tagger, top: int, threshold: float) -> None:
    """Print one list with an object for each file, which is printed at once."""
    print("[", end="")
    for number, (path, result) in enumerate(results):
        entry = {"path": str(path)} | tagger.describe(result, top, threshold)
        print(",\n " if number else "\n ", json_text(entry, sys.stdout.encoding or "utf-8"), sep="", end="", flush=True)
    print("\n]")


FORMATS = {"text": write_text, "csv": write_csv, "json": write_json}
