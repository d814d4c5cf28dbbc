"""Measure where the time of a recipe goes, on synthetic clips as many and as long as the competition's.

    python -m tools.benchmark [--parts input step recipe predict store memory] [--scale 0.05] [--profile]
    python -m tools.benchmark --quick       # the smoke recipe on a hundredth of the clips, minutes on a CPU

Prints a table, a row as soon as it is measured, and writes it as JSON after each row: a call that is cut short leaves
what it has measured. A part that fails says why in its row, and the others go on.
"""
import argparse
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tagging.cli import run_script
from tagging.errors import TaggingError
from tagging.provenance import provenance
from tagging.recipe import RECIPES
from tagging.utils.devices import choose_device, describe_device
from tagging.utils.files import write_json
from tools.benchmark.input import measure_input
from tools.benchmark.measure import Row, Setting
from tools.benchmark.memory import measure_memory
from tools.benchmark.predict import measure_predict
from tools.benchmark.profile import measure_profile
from tools.benchmark.recipe import measure_recipe
from tools.benchmark.sounds import COUNTS, clip_count, make_competition
from tools.benchmark.step import measure_step
from tools.benchmark.store import measure_store

PARTS = {"input": measure_input, "step": measure_step, "recipe": measure_recipe, "predict": measure_predict,
         "store": measure_store, "memory": measure_memory}
USUAL = {"recipe": "capstone", "scale": 1.0, "repeats": 5}
QUICK = {"recipe": "smoke", "scale": 0.01, "repeats": 2}


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True       # as in training
    competition = make_competition(args.scratch / f"clips-{args.scale:g}", args.scale)
    setting = Setting(RECIPES[args.recipe], device, args.repeats, args.scale, competition, args.scratch, args.full,
                      args.out.with_suffix(".trace.json.gz"))
    about = describe(args, device)
    for name, value in about.items():
        print(f"{name}: {value}")
    print("\n" + line({"part": "part", "what": "what", "median": "median", "unit": "unit", "least": "least",
                       "greatest": "greatest", "ratio": "ratio", "remark": ""}), flush=True)
    rows = []
    for part in args.parts:
        for record in measured(part, {**PARTS, "profile": measure_profile}[part], setting):
            rows.append(record)
            print(line(record), flush=True)
            write_json(args.out, {"about": about, "rows": rows})
    print(f"-> {args.out}")


def parse_arguments() -> argparse.Namespace:
    """
    Raises:
        TaggingError: a number that cannot be used.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure; default all")
    parser.add_argument("--profile", action="store_true", help="list the slowest operations of a step, write a trace")
    parser.add_argument("--full", action="store_true", help="in the part recipe, train both stages in full too")
    parser.add_argument("--quick", action="store_true", help="in small: other defaults for the next three")
    parser.add_argument("--recipe", choices=RECIPES, help="default capstone, or smoke if quick")
    parser.add_argument("--scale", type=float, help="share of the real number of clips; default 1, or 0.01 if quick")
    parser.add_argument("--repeats", type=int, help="repetitions of each figure; default 5, or 2 if quick")
    parser.add_argument("--device", default="auto", help="auto is the GPU where there is one")
    parser.add_argument("--scratch", type=Path, default=Path("data/benchmark"),
                        help="where clips and runs are written, 35 GB at --scale 1; kept for the next call")
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"))
    args = parser.parse_args()
    for name, value in (QUICK if args.quick else USUAL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if not (0 < args.scale <= 10 and args.repeats >= 1):
        raise TaggingError("--scale must be above 0 and at most 10, --repeats 1 or more.")
    args.parts += ["profile"] * args.profile
    return args


def describe(args: argparse.Namespace, device: torch.device) -> dict:
    """Hardware, versions, commit, and what is measured."""
    made = provenance()
    about_cpu = Path("/proc/cpuinfo")       # Linux has it
    processor = re.search(r"model name\s*: (.*)", about_cpu.read_text() if about_cpu.exists() else "")
    clips = ", ".join(f"{clip_count(part, args.scale)} of {count} {part}" for part, count in COUNTS.items())
    return {"date": made["date"], "command": made["command"],
            "commit": f"{made['commit'] or 'unknown'}{', with changes' if made['clean'] is False else ''}",
            "device": describe_device(device),
            "host": f"{os.cpu_count()} cores of {processor[1] if processor else platform.machine()}, "
                    f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB",
            "versions": made["versions"] | {"cuda": torch.version.cuda},
            "recipe": args.recipe, "clips": f"{clips}, synthetic", "repetitions": args.repeats}


def measured(part: str, measure: Callable[[Setting], Iterator[Row]], setting: Setting) -> Iterator[dict]:
    """The rows of a part as records, the last one with the reason if the part fails."""
    try:
        for row in measure(setting):
            yield row.record(part)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Row("not measured", "", (), None, reason).record(part)
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()            # the next part starts from an empty device


def line(record: dict) -> str:
    """One line of the table."""
    spread = f"{figure(record['least'])} .. {figure(record['greatest'])}" if record["least"] is not None else ""
    return (f"{record['part']:8}{record['what']:62}{figure(record['median']):>9} {record['unit']:10}{spread:22}"
            f"{figure(record['ratio']):>6} {record['remark']}").rstrip()


def figure(value: float | str | None) -> str:
    """Three to four digits of a number."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


if __name__ == "__main__":
    run_script(main)
