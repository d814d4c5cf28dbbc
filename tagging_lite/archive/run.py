"""Tag all files of a shard into the folder of `--out`, on this machine or in the actors of Ray."""
import csv
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tagging_lite.archive.folder import OutputFolder, Part
from tagging_lite.archive.parts import PartWriter
from tagging_lite.archive.pipeline import tag_sources
from tagging_lite.archive.process import Source
from tagging_lite.archive.shards import Shard
from tagging_lite.archive.sources import NameStream, SavedNames
from tagging_lite.archive.writers import Choice, import_pyarrow
from tagging_lite.cores import available_cores
from tagging_lite.errors import one_line
from tagging_lite.progress import Progress, format_time
from tagging_lite.tagger import Tagger
from tagging_lite.thresholds import AUTO, choose_thresholds, parse_threshold

DEFAULT_PART = 1000
PART_SECONDS = 300.0        # an interruption loses no more work than this, but for a single long file
FILES_OF_A_PROCESS = 16     # a process takes a fifth of a second to start, as long as it takes to decode these
RAY_HELP = ("Tag on the nodes of a Ray cluster: its address, auto for the one that this machine belongs to, or local "
            "for this machine alone. All nodes must see the files, the model and --out under the same names.")


@dataclass(frozen=True)
class Job:
    """What is written for each file, and how."""
    format: str             # a key of `WRITERS` or `LABEL_FORMATS`
    top: int                # largest number of tags
    threshold: str          # for `choose_thresholds`
    timeline: bool          # also tag each second
    embeddings: bool        # also write embeddings
    part_files: int         # largest number of files of a part
    workers: int | None     # processes that decode, None for as many as are useful

    def about(self, tagger: Tagger) -> dict[str, object]:
        """Return what the results depend on, by the name that the user knows."""
        kind, value = parse_threshold(self.threshold)
        return {"the model": tagger.checksum or tagger.file_sha256, "--format": self.format, "--top": self.top,
                "--threshold": kind if kind == AUTO else f"{kind}{value:g}", "--timeline": self.timeline,
                "--embeddings": self.embeddings}

    def processes(self, files: int) -> int:
        """Return the number of processes that decode."""
        return default_processes(available_cores(), files) if self.workers is None else self.workers

    def choice(self, tagger: Tagger) -> Choice:
        """Return the tags that are written."""
        return Choice(tagger, self.top, choose_thresholds(self.threshold, tagger.info)[0])


def write_archive(load: Callable[[], Tagger], out: Path, stream: NameStream, shard: Shard, job: Job,
                  ray: str | None) -> int:
    """Tag all files of a shard that are not yet done into a folder, and print a summary.

    Args:
        load: loads the model.
        ray: address of a Ray cluster, None for this machine.
    Returns:
        the number of files of the shard that could not be tagged, also in earlier calls.
    Raises:
        TaggingError: as `NameStream` and `OutputFolder.open`; a package is missing; the model is unsuitable.
    """
    if job.embeddings or job.format == "parquet":
        import_pyarrow()
    tagger = load()
    tagger.values(job.embeddings)
    for remark in choose_thresholds(job.threshold, tagger.info)[1]:
        print(remark, file=sys.stderr)
    folder = OutputFolder(out, shard)
    about = job.about(tagger) | {"the number of shards": shard.count}
    with folder.open(about, SavedNames(stream)) as names:
        total = shard.size(names.total)
        left = sum(stop - start for start, stop in folder.remaining(total))
        if folder.added:
            print(f"note: {folder.added} files are new since {out} was begun. They are tagged after the others."
                  + (" Run the other shards again too." if shard.count > 1 else ""), file=sys.stderr)
        if left < total:
            print(f"{total - left:,} of {total:,} files are done already.", file=sys.stderr)
        progress = Progress(left)
        if ray is None:
            for part in tag_parts(folder, folder.sources(names), job.choice(tagger), job, folder.next_number(),
                                  job.processes(left), progress):
                folder.add(part)
        else:
            from tagging_lite.archive.cluster import tag_with_ray
            tag_with_ray(ray, folder, names, load, job, tagger.device, progress)
        progress.clear()
        return summarize(folder, progress)


def tag_parts(folder: OutputFolder, sources: Iterable[Source], choice: Choice, job: Job, number: int,
              processes: int, progress: Progress | None = None, part_seconds: float = PART_SECONDS) -> Iterator[Part]:
    """Tag files into parts, and yield each of them when its files are complete.

    Args:
        number: of the first part.
        processes: number of processes that decode.
        part_seconds: a part is closed after this time, or when it has enough files.
    """
    writer: PartWriter | None = None
    try:
        for outcome in tag_sources(choice.tagger, sources, job.timeline, job.embeddings, processes):
            place = outcome.source.place
            if writer and (place != writer.stop or writer.stop - writer.start >= job.part_files
                           or time.monotonic() - writer.began > part_seconds):
                yield writer.finish()
                writer, number = None, number + 1
            writer = writer or PartWriter(folder, number, place, choice, job.format, job.embeddings)
            writer.add(outcome)
            if progress:
                progress.add(outcome.result.seconds if outcome.result else 0.0, outcome.result is None)
        if writer:
            yield writer.finish()
            writer = None
    finally:
        if writer:
            writer.discard()


def summarize(folder: OutputFolder, progress: Progress) -> int:
    """Print what the folder contains and how long this call took. Return the number of files that failed."""
    failed = sum(part.failed for part in folder.parts)
    files = sum(part.stop - part.start for part in folder.parts)
    seconds = sum(part.seconds for part in folder.parts)
    if failed:
        print(f"{failed:,} {'file' if failed == 1 else 'files'} could not be tagged. {folder.path / '_failed'} lists "
              "them with the reasons.", *first_failed(folder), sep="\n  ", file=sys.stderr)
    elapsed = time.monotonic() - progress.started
    rate = f", {progress.files:,} in {format_time(elapsed)}: {progress.speed()}" if progress.files else ""
    print(f"-> {folder.path}: {files:,} files, {seconds / 3600:.3g} hours of sound{rate}")
    return failed


def first_failed(folder: OutputFolder, limit: int = 10) -> Iterator[str]:
    """Yield the first rows of the lists of failed files."""
    for path in sorted((folder.path / "_failed").glob(f"part{folder.suffix}-?????.csv")):
        with open(path, encoding="utf-8", errors="backslashreplace", newline="") as file:
            for name, reason in islice(csv.reader(file), 1, None):
                if not limit:
                    return
                limit -= 1
                yield f"{one_line(name)}: {reason}"


def default_processes(cores: int, files: int | None) -> int:
    """Return the number of processes that decode: one for each core, but none for a few files. None is unknown."""
    return cores if files is None else min(cores, files // FILES_OF_A_PROCESS)
