"""Tag sound files and whole folders with the models of a run, or with an exported one.

    python -m tools.tag --run NAME PATH...
    python -m tools.tag --model MODEL.onnx PATH...      imports no torch

Any sample rate, number of channels and length; wav, flac, ogg, mp3 and what else libsndfile reads. Files that cannot be
used are named at the end, and the exit code is then 1.
"""
import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from tagging.cli import run_script
from tagging_lite.command import add_arguments, tag_paths
from tagging_lite.tagger import Tagger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", help="name of the run: models/RUN")
    which.add_argument("--model", type=Path, help="an exported model; then no torch is imported")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the runs lie")
    parser.add_argument("--stage", choices=("noisy", "curated"), default="curated", help="which of the run's stages")
    # One at a time: `--folds 1 2 PATH` would take the path for a fold.
    parser.add_argument("--fold", type=int, action="append", default=[], metavar="K", dest="folds",
                        help="use this fold's model only; may be given again (default: all that are finished)")
    parser.add_argument("--device", default="auto", help="auto is the GPU where there is one")
    add_arguments(parser)
    args = parser.parse_args()
    tagger = load_exported(args.model) if args.model else load_run(args)
    # On a terminal the lines themselves show how far it is.
    sys.exit(tag_paths(tagger, args, lambda paths: tqdm(paths, unit="file", disable=sys.stdout.isatty() or None)))


def load_exported(path: Path) -> Tagger:
    from tagging_lite.onnx import load_onnx
    return load_onnx(path)


def load_run(args: argparse.Namespace) -> Tagger:
    from tagging.evaluation.predict import make_tagger
    from tagging.run import stage_folder
    from tagging.utils.devices import choose_device
    return make_tagger(stage_folder(args.models, args.run, args.stage).load_models(args.folds, choose_device(args.device)))


if __name__ == "__main__":
    run_script(main)
