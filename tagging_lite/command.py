"""The command line: sound files and folders in, tags out."""
import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tagging_lite.errors import SoundError, TaggingError
from tagging_lite.tagger import Tagger, TagResult

# The formats of libsndfile. A file on the command line may have any suffix.
SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"}

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
    """Tag all files, and print the tags of each file at once. List the files that could not be read at the end.

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
    faults: list[str] = []

    def results() -> Iterator[tuple[Path, TagResult]]:
        for path in progress(list(find_sounds(args.paths))):
            try:
                yield path, tagger.tag_file(path, args.timeline)
            except SoundError as error:
                faults.append(f"{path}: {error}")

    FORMATS[args.format](results(), tagger, args.top, args.threshold)
    sys.stdout.flush()
    if faults:
        print(f"{len(faults)} {'file' if len(faults) == 1 else 'files'} could not be tagged:", *faults, sep="\n  ",
              file=sys.stderr)
        print("Replace them, or leave them out.", file=sys.stderr)
    return 1 if faults else 0


def find_sounds(paths: list[Path]) -> Iterator[Path]:
    """Yield the given files, and all sound files in the given folders and their subfolders, sorted by name.

    Raises:
        TaggingError: a path does not exist, or a folder cannot be read or has no sound file.
    """
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise TaggingError(f"{path} does not exist. Check the path.")
            yield path
            continue
        found = sorted(Path(folder, name) for folder, _, names in os.walk(path, onerror=raise_unreadable)
                       for name in names if Path(name).suffix.lower() in SUFFIXES)
        if not found:
            raise TaggingError(f"{path} holds no sound file ({', '.join(sorted(SUFFIXES))}). Choose another folder, or "
                               "give the names of the files.")
        yield from found


def raise_unreadable(error: OSError) -> None:
    """Turn an error of `os.walk` into a `TaggingError`. By default os.walk skips a folder that cannot be read.

    Raises:
        TaggingError: always.
    """
    raise TaggingError(f"{error.filename} cannot be read: {error.strerror}. Check its permissions, or choose other "
                       "folders.")


def write_text(results: Results, tagger: Tagger, top: int, threshold: float) -> None:
    """Print a line for each file, and below it a line for each second of the timeline."""
    def line(probabilities: np.ndarray) -> str:
        return "  ".join(f"{name} {value:.2f}" for name, value in tagger.top_tags(probabilities, top, threshold)) or "-"

    for path, result in results:
        print(f"{path}  {line(result.probabilities)}", flush=True)
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
        print(",\n " if number else "\n ", json.dumps(entry, ensure_ascii=False), sep="", end="", flush=True)
    print("\n]")


FORMATS = {"text": write_text, "csv": write_csv, "json": write_json}
