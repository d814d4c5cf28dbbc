"""The command line: sound files, folders, archives and URLs in, tags out, on stdout or as a folder of parts."""
import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagging_lite.archive.pipeline import Outcome, tag_sources
from tagging_lite.archive.run import DEFAULT_PART, RAY_HELP, Job, default_processes, write_archive
from tagging_lite.archive.shards import Shard, parse_shard
from tagging_lite.archive.sources import STDIN, NameStream, SavedNames, describe_left_out
from tagging_lite.archive.writers import WRITERS, Choice
from tagging_lite.console import csv_writer, json_text
from tagging_lite.cores import available_cores
from tagging_lite.errors import TaggingError, Tally, one_line
from tagging_lite.formats import LABEL_FORMATS
from tagging_lite.progress import Progress
from tagging_lite.tagger import Tagger, TagResult
from tagging_lite.thresholds import HELP as THRESHOLD_HELP
from tagging_lite.thresholds import choose_thresholds, parse_threshold

Results = Iterable[tuple[str, TagResult]]
KEPT = 1000     # faults that are listed at the end; further ones are printed at once, so that memory is bounded
# The help of the options that tools.tag has too.
HELP = {
    "list": "File with paths and URLs of sounds to tag, one in each line, relative to the current folder. - is stdin.",
    "null": "The names in --list end with a zero byte and not with a line, as `find -print0` writes them.",
    "format": "Format of the output. Without --out: text, csv, json or jsonl, and for one sound audacity or raven. "
              "With --out: parquet, csv or jsonl, or audacity or raven with a file of labels for each sound.",
    "out": "Folder to write. It appears in parts, and the same command completes it after an interruption.",
    "shard": "Tag every M-th file only, from the N-th on: N/M, such as 3/16. Shards can share one --out.",
    "embeddings": "Also write the features before the last layer, as float16, into --out.",
    "part": "Largest number of files of a part of --out.",
    "workers": "Number of processes that decode. 0 decodes in this process.",
    "ray": RAY_HELP}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands for tagging share."""
    parser.add_argument("paths", nargs="*", metavar="PATH",
                        help="Sound files; folders, zip and tar archives that contain sound files; or URLs of them.")
    parser.add_argument("--list", dest="list_file", metavar="FILE", help=HELP["list"])
    parser.add_argument("--null", action="store_true", help=HELP["null"])
    parser.add_argument("--top", type=int, default=5, metavar="K",
                        help="Number of tags for each file, at most. The default is 5.")
    parser.add_argument("--threshold", default="0", metavar="P", help=f"{THRESHOLD_HELP} The default is 0.")
    parser.add_argument("--timeline", action="store_true", help="Also tag each second.")
    parser.add_argument("--format", choices=FORMATS, help=f"{HELP['format']} The default is text, and parquet with "
                                                          "--out.")
    parser.add_argument("--out", type=Path, metavar="DIR", help=HELP["out"])
    parser.add_argument("--shard", metavar="N/M", help=HELP["shard"])
    parser.add_argument("--embeddings", action="store_true", help=HELP["embeddings"])
    parser.add_argument("--part", type=int, default=DEFAULT_PART, metavar="FILES",
                        help=f"{HELP['part']} The default is {DEFAULT_PART}.")
    parser.add_argument("--workers", type=int, metavar="N", help=f"{HELP['workers']} By default, one for each core, "
                                                                 "and none for a few files.")
    parser.add_argument("--ray", metavar="ADDRESS", help=HELP["ray"])


def tag_paths(load: Callable[[], Tagger], args: argparse.Namespace) -> int:
    """Tag all files. Print the tags of each file at once, or write them into a folder.

    At the end, stderr lists the files that could not be read, remarks on files, and files and folders that were left
    out.

    Args:
        load: loads the model. With --ray, all nodes of the cluster call it.
        args: as parsed with `add_arguments`.
    Returns:
        the exit code: 1 if a file could not be read.
    Raises:
        TaggingError: an option is out of its range, or as `NameStream` and `write_archive`.
    """
    check(args)
    stream = NameStream(args.paths, args.list_file, args.null)
    stream.check()
    shard = Shard() if args.shard is None else parse_shard(args.shard)
    if args.out:
        job = Job(args.format or "parquet", args.top, args.threshold, args.timeline, args.embeddings, args.part,
                  args.workers)
        failed = write_archive(load, args.out, stream, shard, job, args.ray)
    else:
        failed = print_tags(load(), stream, shard, args)
    if left_out := describe_left_out(stream.left_out):
        print(*left_out, "To read one of them, name it on the command line.", sep="\n", file=sys.stderr)
    return 1 if failed else 0


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        TaggingError: options are out of their range, or do not fit together.
    """
    if not args.paths and args.list_file is None:
        raise TaggingError("There is nothing to tag. Name one or more sound files or folders, or a --list of them.")
    if args.top < 1 or args.part < 1 or (args.workers or 0) < 0:
        raise TaggingError("--top and --part must be 1 or more, and --workers 0 or more.")
    parse_threshold(args.threshold)
    if args.null and args.list_file is None:
        raise TaggingError("--null describes a --list. Give one.")
    if args.out is None:
        if args.embeddings or args.ray is not None:
            raise TaggingError("--embeddings and --ray write a folder. Give its name with --out.")
        if args.format not in (None, *PRINTED, *LABEL_FORMATS):
            raise TaggingError(f"--format {args.format} is a folder of files. Give its name with --out.")
    elif args.format not in (None, *WRITERS, *LABEL_FORMATS):
        raise TaggingError(f"--out takes --format {', '.join([*WRITERS, *LABEL_FORMATS])}, and not {args.format}.")
    if args.shard is not None and args.ray is not None:
        raise TaggingError("Give --shard or --ray: Ray divides the files itself.")


@dataclass
class Report:
    """What is told at the end, in bounded memory."""
    progress: Progress
    faults: list[str] = field(default_factory=list)
    failed: int = 0
    notes: Tally = field(default_factory=Tally)

    def take(self, outcomes: Iterable[Outcome]) -> Iterator[tuple[str, TagResult]]:
        """Yield the names and tags of the files that could be tagged."""
        for outcome in outcomes:
            name, result = outcome.source.name, outcome.result
            self.progress.add(result.seconds if result else 0.0, result is None)
            if result is None:
                self.add_fault(f"{one_line(name)}: {outcome.fault}")
                continue
            for note in result.notes:
                self.notes.add(note, name)
            yield name, result

    def add_fault(self, fault: str) -> None:
        """Count a fault, and keep it for the end, or print it if there are many."""
        self.failed += 1
        if self.failed <= KEPT:
            self.faults.append(fault)
        else:
            self.progress.clear()
            print(f"could not be tagged: {fault}", file=sys.stderr)

    def print(self) -> None:
        """Print the faults and remarks on stderr."""
        self.progress.clear()
        if self.failed:
            earlier = f" The first {KEPT}; the others are printed above:" if self.failed > KEPT else ""
            print(f"{self.failed} {'file' if self.failed == 1 else 'files'} could not be tagged:{earlier}",
                  *self.faults, sep="\n  ", file=sys.stderr)
            print("Replace them, or leave them out.", file=sys.stderr)
        for line in self.notes.notes():
            print(line, file=sys.stderr)


def print_tags(tagger: Tagger, stream: NameStream, shard: Shard, args: argparse.Namespace) -> int:
    """Print the tags of all files, and return the number of files that could not be tagged."""
    thresholds, remarks = choose_thresholds(args.threshold, tagger.info)
    print(*remarks, sep="\n", end="\n" if remarks else "", file=sys.stderr)
    # Names on stdin are tagged as they come. Others are counted first.
    names = stream if args.list_file == STDIN else SavedNames(stream)
    total = shard.size(names.total) if isinstance(names, SavedNames) else None
    if args.format in LABEL_FORMATS and total != 1:
        raise TaggingError(f"--format {args.format} makes a file for each sound. Give a folder with --out, or name one "
                           "sound.")
    processes = default_processes(available_cores(), total) if args.workers is None else args.workers
    report = Report(Progress(total, not sys.stdout.isatty()))       # on a terminal, the printed lines are the progress
    outcomes = tag_sources(tagger, shard.sources(names), args.timeline, processes=processes)
    choice = Choice(tagger, args.top, thresholds)
    if args.format in LABEL_FORMATS:
        for name, result in report.take(outcomes):
            print(LABEL_FORMATS[args.format][0](Path(name), result, *choice), end="")
    else:
        PRINTED[args.format or "text"](report.take(outcomes), choice)
    sys.stdout.flush()
    report.print()
    return report.failed


def write_text(results: Results, choice: Choice) -> None:
    """Print a line for each file, and below it a line for each second of the timeline."""
    def line(probabilities: np.ndarray) -> str:
        return "  ".join(f"{name} {value:.2f}" for name, value in choice.tags(probabilities)) or "-"

    for path, result in results:
        print(f"{one_line(path)}  {line(result.probabilities)}", flush=True)
        for second, row in enumerate(() if result.timeline is None else result.timeline):
            print(f"  {second // 60:3}:{second % 60:02}  {line(row)}")


def write_csv(results: Results, choice: Choice) -> None:
    """Print a row for each tag. `second` is empty for the tags of the whole file."""
    writer = csv_writer(sys.stdout)
    writer.writerow(["path", "second", "tag", "probability"])
    for path, result in results:
        rows = [("", result.probabilities), *enumerate(() if result.timeline is None else result.timeline)]
        writer.writerows([path, second, name, f"{value:.6f}"]
                         for second, row in rows for name, value in choice.tags(row))


def write_json(results: Results, choice: Choice) -> None:
    """Print one list with an object for each file, which is printed at once."""
    print("[", end="")
    for number, (path, result) in enumerate(results):
        entry = json_text(choice.entry(path, result), sys.stdout.encoding or "utf-8")
        print(",\n " if number else "\n ", entry, sep="", end="", flush=True)
    print("\n]")


def write_json_lines(results: Results, choice: Choice) -> None:
    """Print an object for each file, in a line of its own."""
    for path, result in results:
        print(json_text(choice.entry(path, result), sys.stdout.encoding or "utf-8"), flush=True)


PRINTED = {"text": write_text, "csv": write_csv, "json": write_json, "jsonl": write_json_lines}
FORMATS = tuple(dict.fromkeys([*PRINTED, *WRITERS, *LABEL_FORMATS]))
