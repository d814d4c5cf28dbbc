"""Decoding alone, the network alone, and both together as `tools.tag` does them, on the same files in the same call.

    python -m tools.benchmark_archive --model MODEL.onnx SOUNDS... [--files 2000] [--repeats 3]

The sounds are repeated until there are --files of them. "Together" should be close to the slower of the two. If both
need the same cores, their times add, and the last line compares with that.
"""
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
from tyro.conf import Positional, arg, create_mutex_group

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.options import DeviceOption, Flat, StageOption, shown_default
from tagging.provenance import provenance
from tagging_lite.archive.decoders import Decoders
from tagging_lite.archive.pipeline import tag_sources
from tagging_lite.archive.process import Decoding, End, Source
from tagging_lite.audio import Piece
from tagging_lite.cores import available_cores
from tagging_lite.find import find_sounds
from tagging_lite.tagger import Pooling, Tagger, cut_batches

MODEL = create_mutex_group(required=True, title="run or exported model")
WINDOWS = 512       # different windows on which the network is measured


@dataclass(frozen=True, kw_only=True)
class ModelOptions(DeviceOption, StageOption):
    """The model."""
    run: Annotated[str | None, MODEL, shown_default("", "STR")] = None  # Name of the run. Its folder is models/NAME.
    model: Annotated[Path | None, MODEL, shown_default("", "PATH")] = None  # Exported model, written by tools.export.


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """The size of the benchmark."""
    files: int = 2000                       # Number of files to tag.
    repeats: int = 3                        # Number of repetitions of each measurement. The best one counts.
    workers: Annotated[int | None, shown_default("one for each core", "INT")] = None    # Processes that decode.


@dataclass(frozen=True, kw_only=True)
class ArchiveBenchmark:
    """tools.benchmark_archive."""
    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="PATH...", help="Sounds, and folders of sounds.")]
    model: Flat[ModelOptions]
    size: Flat[SizeOptions]


def main() -> None:
    args = parse(ArchiveBenchmark, __doc__)
    if args.size.files < 1 or args.size.repeats < 1:
        raise TaggingError("--files and --repeats must be 1 or more.")
    from tools.tag import TagRunOptions, load_exported, load_run
    tagger = load_exported(args.model.model) if args.model.model else load_run(TagRunOptions(
        models=args.model.models, stage=args.model.stage, device=args.model.device, run=args.model.run))
    names = [str(path) for path in find_sounds(args.paths).paths]
    sources = [Source(place, name) for place, name in enumerate(islice(cycle(names), args.size.files))]
    workers = available_cores() if args.size.workers is None else args.size.workers
    made = provenance()
    print(f"{made['date']}, commit {made['commit'] or 'unknown'}, {available_cores()} cores of {platform.machine()}, "
          f"{workers} workers, device {tagger.device}, batches of {tagger.batch} windows")
    hours, windows, sample = measure_sounds(tagger, names, sources)
    print(f"{len(sources)} files ({len(names)} different), {hours:.2f} hours of sound, {windows} windows")

    parts: dict[str, Callable[[], None]] = {
        "decoding alone": lambda: exhaust(Decoders(sources, how(tagger), workers).events()),
        "network alone": lambda: run_network(tagger, sample, windows),
        "together": lambda: exhaust(tag_sources(tagger, sources, processes=workers))}
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(args.size.repeats):
        for name, measure in parts.items():     # in turn, so that a busy moment of the machine meets all of them
            start = time.perf_counter()
            measure()
            times[name].append(time.perf_counter() - start)
    for name, values in times.items():
        print(f"{name:16}{min(values):8.2f} s (median {median(values):.2f}, greatest {max(values):.2f})  "
              f"{len(sources) / min(values):8.1f} files/s  {hours / min(values):.4f} hours of sound/s")
    decoding, network, together = (min(times[name]) for name in parts)
    print(f"together / the slower of both: {max(decoding, network) / together:.1%} of its speed")
    print(f"together / both one after the other: {(decoding + network) / together:.1%}")


def how(tagger: Tagger) -> Decoding:
    """Return how the sounds of a model are decoded."""
    return Decoding(tagger.info.sample_rate, tagger.info.trim_db)


def measure_sounds(tagger: Tagger, names: list[str], sources: list[Source]) -> tuple[float, int, list[np.ndarray]]:
    """Return the hours of sound of all sources, the number of their windows, and some of the windows.

    Raises:
        TaggingError: a file cannot be tagged.
    """
    samples, windows = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    sample: list[np.ndarray] = []
    decoders = Decoders([Source(place, name) for place, name in enumerate(names)], how(tagger), available_cores())
    for source, event in filter(None, decoders.events()):
        if isinstance(event, Piece):
            samples[source.name] += len(event.wave)
            for span in Pooling(tagger.info, timeline=False).spans(event):
                windows[source.name] += len(span.starts)
                if sum(map(len, sample)) < WINDOWS:
                    sample += cut_batches(span, tagger.info.window, tagger.batch)
        elif isinstance(event, End) and event.fault:
            raise TaggingError(f"{source.name}: {event.fault}. Leave it out.")
    total = sum(samples[source.name] for source in sources) / tagger.info.sample_rate / 3600
    return total, sum(windows[source.name] for source in sources), sample


def run_network(tagger: Tagger, sample: list[np.ndarray], windows: int) -> None:
    """Compute so many windows in full batches."""
    waves = np.concatenate(sample)
    for first in range(0, windows, tagger.batch):
        size = min(tagger.batch, windows - first)
        tagger.logits(np.take(waves, range(first, first + size), axis=0, mode="wrap"))


def exhaust(iterator: Iterator[object]) -> None:
    """Run an iterator to its end."""
    for _ in iterator:
        pass


if __name__ == "__main__":
    run_script(main)
