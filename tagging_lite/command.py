"""The command line: files and folders in, tags out."""
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

# What libsndfile reads; a file that is named itself is tried whatever it is called.
SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="sound files, and folders of them")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="tags of a file, at most (default: 5)")
    parser.add_argument("--threshold", type=float, default=0.0, metavar="P",
                        help="leave out tags of a lower probability (default: 0)")
    parser.add_argument("--timeline", action="store_true", help="also the tags of each second")
    parser.add_argument("--format", choices=FORMATS, default="text", help="what is written (default: text)")


def tag_paths(tagger: Tagger, args: argparse.Namespace,
              progress: Callable[[list], Iterable] = lambda paths: paths) -> int:
    """Tag all files, print their tags as they come, and name those that could not be read.

    Args:
        args: of `add_arguments`.
        progress: wraps the list of paths to show how far it is.
    Returns:
        the exit code: 1 if a file could not be read.
    """
    if args.top < 1 or not 0 <= args.threshold <= 1:
        raise TaggingError("--top must be 1 or more, and --threshold from 0 to 1.")
    faults = []

    def result() -> Iterator[tuple[Path, TagResult]]:
        for path in progress(list(find_sounds(args.paths))):
            try:
                yield path, tagger.tag_file(path, args.timeline)
            except SoundError as error:
                faults.append(f"{path}: {error}")

    FORMATS[args.format](result(), tagger, args.top, args.threshold)
    sys.stdout.flush()
    if faults:
        print(f"{len(faults)} files could not be tagged:", *faults, sep="\n  ", file=sys.stderr)
    return 1 if faults else 0


def find_sounds(paths: list[Path]) -> Iterator[Path]:
    """The files that are named, and all sound files in the folders that are named, in the order of their names.

    Raises:
        TaggingError: a path that is not there, or a folder without a sound file.
    """
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise TaggingError(f"{path} does not exist. Check the path.")
            yield path
            continue
        found = sorted(Path(folder, name) for folder, _, names in os.walk(path, onerror=complain) for name in names
                       if Path(name).suffix.lower() in SUFFIXES)
        if not found:
            raise TaggingError(f"{path} holds no sound file ({', '.join(sorted(SUFFIXES))}). Name another folder, or "
                               "the files themselves.")
        yield from found


def complain(error: OSError) -> None:
    """
    Raises:
        TaggingError: always; os.walk would leave a folder that it cannot read out without a word.
    """
    raise TaggingError(f"{error.filename} cannot be read: {error.strerror}. Check its rights, or name other folders.")


Results = Iterable[tuple[Path, TagResult]]


def write_text(results: Results, tagger: Tagger, top: int, threshold: float) -> None:
    def line(probabilities: np.ndarray) -> str:
        return "  ".join(f"{name} {value:.2f}" for name, value in tagger.best(probabilities, top, threshold)) or "-"

    for path, result in results:
        print(f"{path}  {line(result.probabilities)}", flush=True)
        for second, row in enumerate(() if result.timeline is None else result.timeline):
            print(f"  {second // 60:3}:{second % 60:02}  {line(row)}")


def write_csv(results: Results, tagger: Tagger, top: int, threshold: float) -> None:
    """A row a tag; `second` is empty for the tags of the whole file."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "second", "tag", "probability"])
    for path, result in results:
        rows = [("", result.probabilities), *enumerate(() if result.timeline is None else result.timeline)]
        writer.writerows([path, second, name, f"{value:.6f}"]
                         for second, row in rows for name, value in tagger.best(row, top, threshold))


def write_json(results: Results, tagger: Tagger, top: int, threshold: float) -> None:
    """One list, an object a file, written as they come."""
    print("[", end="")
    for number, (path, result) in enumerate(results):
        entry = {"path": str(path)} | tagger.describe(result, top, threshold)
        print(",\n " if number else "\n ", json.dumps(entry, ensure_ascii=False), sep="", end="", flush=True)
    print("\n]")


FORMATS = {"text": write_text, "csv": write_csv, "json": write_json}
