"""Measure where the time of a recipe goes, on synthetic clips as many and as long as those of the competition.

    python -m tools.benchmark [--parts input step recipe predict store memory] [--scale 0.05] [--profile]
    python -m tools.benchmark --quick       # the smoke recipe on a hundredth of the clips, minutes on a CPU

Each row of the table is printed and written as JSON as soon as it is measured, so that an interrupted call keeps its
rows. A part that fails has its reason in its row, and the other parts are still measured.
"""
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import psutil
import torch

from tagging.cli import named_recipe, parse, run_script
from tagging.errors import TaggingError
from tagging.options import DeviceOption, Flat, shown_default
from tagging.provenance import provenance
from tagging.utils.devices import choose_device, describe_device
from tagging.utils.files import check_file, check_folder, write_json
from tagging_lite.cores import available_cores
from tools.benchmark.input import measure_input
from tools.benchmark.measure import Row, Setting
from tools.benchmark.memory import measure_memory
from tools.benchmark.predict import measure_predict
from tools.benchmark.profile import measure_profile
from tools.benchmark.recipe import measure_recipe
from tools.benchmark.sounds import COUNTS, clip_count, make_competition
from tools.benchmark.step import measure_step
from tools.benchmark.store import measure_store

Measure = Callable[[Setting], Iterator[Row]]
Part = Literal["input", "step", "recipe", "predict", "store", "memory"]

PARTS: dict[Part, Measure] = {"input": measure_input, "step": measure_step, "recipe": measure_recipe,
                              "predict": measure_predict, "store": measure_store, "memory": measure_memory}


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """The parts to measure."""
    parts: Annotated[tuple[Part, ...], shown_default("all")] = tuple(PARTS)     # Parts to measure.
    profile: bool = False                   # Also list the slowest operations of a training step, and write a trace.
    full: bool = False                      # In the part recipe, also train both stages in full.


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """The size of the benchmark."""
    quick: bool = False                     # Measure in small. This changes the defaults of the next three options.
    # Name of the recipe to measure.
    recipe: Annotated[str | None, shown_default("capstone, or smoke with --quick", "STR")] = None
    # Share of the real number of clips, above 0 and at most 10.
    scale: Annotated[float | None, shown_default("1, or 0.01 with --quick", "FLOAT")] = None
    # Number of repetitions of each measurement, 1 or more.
    repeats: Annotated[int | None, shown_default("5, or 2 with --quick", "INT")] = None


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(DeviceOption):
    """The device and the files."""
    # Folder for clips and runs, 35 GB at --scale 1. The next call uses its files again.
    scratch: Path = Path("data/benchmark")
    out: Path = Path("benchmark.json")      # JSON file to write.


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """tools.benchmark."""
    parts: Flat[PartOptions]
    size: Flat[SizeOptions]
    place: Flat[PlaceOptions]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a benchmark."""
    recipe: str                 # name
    scale: float                # share of the real number of clips
    repeats: int                # repetitions of each measurement


USUAL = Size(recipe="capstone", scale=1.0, repeats=5)
QUICK = Size(recipe="smoke", scale=0.01, repeats=2)


def main() -> None:
    args = parse(Benchmark, __doc__)
    place, parts = args.place, args.parts.parts
    if not parts:
        raise TaggingError(f"--parts must name one or more of {', '.join(PARTS)}.")
    size = choose_size(args.size)
    check_file(place.out, "--out")
    check_folder(place.scratch, "--scratch")
    device = choose_device(place.device)
    recipe = named_recipe(size.recipe)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True       # as in training
    competition = make_competition(place.scratch / f"clips-{size.scale:g}", size.scale)
    setting = Setting(recipe=recipe, device=device, repeats=size.repeats, scale=size.scale, competition=competition,
                      scratch=place.scratch, full=args.parts.full, trace=place.out.with_suffix(".trace.json.gz"))
    about = describe(size, device)
    for name, value in about.items():
        print(f"{name}: {value}")
    print("\n" + line({"part": "part", "what": "what", "median": "median", "unit": "unit", "least": "least",
                       "greatest": "greatest", "ratio": "ratio", "remark": ""}), flush=True)
    measures: list[tuple[str, Measure]] = [(part, PARTS[part]) for part in parts]
    if args.parts.profile:
        measures.append(("profile", measure_profile))
    rows = []
    for part, measure in measures:
        for record in measured(part, measure, setting):
            rows.append(record)
            print(line(record), flush=True)
            write_json(place.out, {"about": about, "rows": rows})
    print(f"-> {place.out}")


def choose_size(options: SizeOptions) -> Size:
    """Return the size of the benchmark: the options that are given, and the defaults of the others.

    Raises:
        TaggingError: a number is out of its range.
    """
    default = QUICK if options.quick else USUAL
    size = Size(recipe=default.recipe if options.recipe is None else options.recipe,
                scale=default.scale if options.scale is None else options.scale,
                repeats=default.repeats if options.repeats is None else options.repeats)
    if not (0 < size.scale <= 10 and size.repeats >= 1):
        raise TaggingError("--scale must be above 0 and at most 10, and --repeats must be 1 or more.")
    return size


def describe(size: Size, device: torch.device) -> dict:
    """Describe the hardware, the versions, the commit and the size of the benchmark."""
    made = provenance()
    cpu_info = Path("/proc/cpuinfo")        # only Linux has it
    processor = re.search(r"model name\s*: (.*)", cpu_info.read_text() if cpu_info.exists() else "")
    clips = ", ".join(f"{clip_count(part, size.scale)} of {count} {part}" for part, count in COUNTS.items())
    return {"date": made["date"], "command": made["command"],
            "commit": f"{made['commit'] or 'unknown'}{', with changes' if made['clean'] is False else ''}",
            "device": describe_device(device),
            "host": f"{available_cores()} cores of {processor[1] if processor else platform.machine()}, "
                    f"{psutil.virtual_memory().total / 2**30:.0f} GB",
            "versions": made["versions"] | {"cuda": torch.version.cuda},
            "recipe": size.recipe, "clips": f"{clips}, synthetic", "repetitions": size.repeats}


def measured(part: str, measure: Measure, setting: Setting) -> Iterator[dict]:
    """Return the rows of a part as records. If the part fails, the last one contains the reason."""
    try:
        for row in measure(setting):
            yield row.record(part)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Row("not measured", "", (), None, reason).record(part)
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()            # the next part starts with an empty device


def line(record: dict) -> str:
    """Return one line of the table."""
    spread = f"{figure(record['least'])} .. {figure(record['greatest'])}" if record["least"] is not None else ""
    return (f"{record['part']:8}{record['what']:62}{figure(record['median']):>9} {record['unit']:10}{spread:22}"
            f"{figure(record['ratio']):>6} {record['remark']}").rstrip()


def figure(value: float | str | None) -> str:
    """Format a number with three to four digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


if __name__ == "__main__":
    run_script(main)
