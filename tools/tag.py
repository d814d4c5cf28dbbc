"""Tag sound files and whole folders with the models of a run, or with an exported model.

    python -m tools.tag --run NAME PATH...
    python -m tools.tag --model MODEL.onnx PATH...      imports no torch

The files can have any sample rate, number of channels and length, and any format that libsndfile reads, such as wav,
flac, ogg and mp3. Files that cannot be used are listed at the end, and the exit code is then 1. What is
left out of a folder, such as hidden files and links to folders, is listed there too.
"""
import sys
from argparse import Namespace
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg, create_mutex_group

from tagging.cli import parse, run_script
from tagging.options import DeviceOption, Flat, StageOption, shown_default
from tagging_lite.archive.run import DEFAULT_PART
from tagging_lite.command import FORMATS, HELP, tag_paths
from tagging_lite.tagger import Tagger
from tagging_lite.thresholds import HELP as THRESHOLD_HELP
from tagging_lite.thresholds import parse_threshold

MODEL = create_mutex_group(required=True, title="run or exported model")


@dataclass(frozen=True, kw_only=True)
class TagRunOptions(DeviceOption, StageOption):
    """The models of --run."""
    run: Annotated[str | None, MODEL, shown_default("", "STR")] = None  # Name of the run. Its folder is models/NAME.
    model: Annotated[Path | None, MODEL, shown_default("", "PATH")] = None  # Exported model, written by tools.export.
    # One value for each --fold: `--folds 1 2 PATH` would read the path as a fold.
    folds: Annotated[tuple[int, ...], UseAppendAction, arg(
        name="fold", help="Fold whose model is used. Repeat the option for several folds.",
        help_behavior_hint="(default: all finished ones)")] = ()


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Further sounds."""
    # `list` would hide the type in this class.
    list_file: Annotated[str | None, arg(name="list", help=HELP["list"]), shown_default("", "FILE")] = None
    null: Annotated[bool, arg(help=HELP["null"])] = False
    shard: Annotated[str | None, arg(help=HELP["shard"]), shown_default("", "N/M")] = None


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The tags that are printed or written."""
    top: int = 5                            # Largest number of tags of a file.
    threshold: Annotated[str, arg(help=THRESHOLD_HELP)] = "0"
    timeline: bool = False                  # Also print the tags of each second.
    format: Annotated[Literal[FORMATS] | None, arg(help=HELP["format"]),         # type: ignore[valid-type]
                      shown_default("text, and parquet with --out", f"{{{','.join(FORMATS)}}}")] = None
    out: Annotated[Path | None, arg(help=HELP["out"]), shown_default("", "DIR")] = None
    embeddings: Annotated[bool, arg(help=HELP["embeddings"])] = False
    part: Annotated[int, arg(help=HELP["part"])] = DEFAULT_PART


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """How it is computed."""
    workers: Annotated[int | None, arg(help=HELP["workers"]),
                       shown_default("one for each core, and none for a few files", "INT")] = None
    ray: Annotated[str | None, arg(help=HELP["ray"]), shown_default("", "ADDRESS")] = None


@dataclass(frozen=True, kw_only=True)
class Tag:
    """tools.tag."""
    paths: Annotated[Positional[tuple[str, ...]], arg(
        metavar="PATH...", help="Sound files; folders, zip and tar archives of sound files; or URLs of them.",
        help_behavior_hint="(default: those of --list)")] = ()
    run: Flat[TagRunOptions]
    sounds: Flat[ListOptions]
    output: Flat[OutputOptions]
    speed: Flat[SpeedOptions]


def main() -> None:
    args = parse(Tag, __doc__)
    load = partial(load_exported, args.run.model) if args.run.model else partial(
        load_run, args.run, thresholds=bool(parse_threshold(args.output.threshold)[0]))
    sys.exit(tag_paths(load, Namespace(paths=list(args.paths), **vars(args.sounds), **vars(args.output),
                                       **vars(args.speed))))


def load_exported(path: Path) -> Tagger:
    from tagging_lite.onnx import load_onnx
    return load_onnx(path)


def load_run(options: TagRunOptions, thresholds: bool = False) -> Tagger:
    """Load the models of a run, with `thresholds` also those of its out-of-fold predictions."""
    from tagging.baselines.runs import load_tagger
    from tagging.evaluation.thresholds import add_thresholds
    from tagging.run import stage_folder
    from tagging.utils.devices import choose_device
    folder = stage_folder(options.models, options.run or "", options.stage)
    tagger = load_tagger(folder, options.folds, choose_device(options.device))
    return replace(tagger, info=add_thresholds(tagger.info, folder, options.folds)) if thresholds else tagger


if __name__ == "__main__":
    run_script(main)
