"""Tag sound files and whole folders with the models of a run, or with an exported model.

    python -m tools.tag --run NAME PATH...
    python -m tools.tag --model MODEL.onnx PATH...      imports no torch

The files can have any sample rate, number of channels and length, and any format that libsndfile reads, such as wav,
flac, ogg and mp3. Files that cannot be used are listed at the end, and the exit code is then 1. What is
left out of a folder, such as hidden files and links to folders, is listed there too.
"""
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tqdm import tqdm
from tyro.conf import Positional, UseAppendAction, arg, create_mutex_group

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.options import DeviceOption, Flat, StageOption, shown_default
from tagging_lite.command import tag_paths
from tagging_lite.tagger import Tagger

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
class OutputOptions:
    """The tags that are printed."""
    top: int = 5                            # Largest number of tags of a file.
    threshold: float = 0.0                  # Smallest probability of a tag, from 0 to 1.
    timeline: bool = False                  # Also print the tags of each second.
    format: Literal["text", "csv", "json"] = "text"     # Format of the output.


@dataclass(frozen=True, kw_only=True)
class Tag:
    """tools.tag."""
    paths: Annotated[Positional[tuple[Path, ...]], arg(
        metavar="PATH...", help="Sound files, and folders of sound files.", help_behavior_hint="(required)")] = ()
    run: Flat[TagRunOptions]
    output: Flat[OutputOptions]


def main() -> None:
    args = parse(Tag, __doc__)
    if not args.paths:
        raise TaggingError("There is nothing to tag. Name one or more sound files or folders.")
    tagger = load_exported(args.run.model) if args.run.model else load_run(args.run)
    # On a terminal, the printed lines are the progress.
    sys.exit(tag_paths(tagger, Namespace(paths=list(args.paths), **vars(args.output)),
                       lambda paths: tqdm(paths, unit="file", disable=sys.stdout.isatty() or None)))


def load_exported(path: Path) -> Tagger:
    from tagging_lite.onnx import load_onnx
    return load_onnx(path)


def load_run(options: TagRunOptions) -> Tagger:
    from tagging.evaluation.predict import make_tagger
    from tagging.run import stage_folder
    from tagging.utils.devices import choose_device
    folder = stage_folder(options.models, options.run or "", options.stage)
    return make_tagger(folder.load_models(options.folds, choose_device(options.device)))


if __name__ == "__main__":
    run_script(main)
