"""Gather what others need to use a run, to judge it and to make it again, with a model card, in a folder of its own.

    python -m tools.publish --run NAME --out DIR [--licence mit] [--data-name "FSDKaggle2019"]

    DIR/README.md           the model card, in the form of Hugging Face's
    DIR/SHA256SUMS          for sha256sum -c
    DIR/NAME/STAGE/         the run itself: other tools use it with --models DIR --run NAME

Paths of this machine are taken out. The names of the training clips and their labels are part of a run.
"""
import argparse
import hashlib
import html
import re
import shlex
import shutil
from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tagging.cli import run_script
from tagging.errors import TaggingError
from tagging.evaluation.error_analysis import out_of_fold, score_by_class
from tagging.recipe import STAGES
from tagging.run import StageFolder, stage_folder
from tagging.settings import flatten
from tagging.utils.files import new_folder, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="name of the run: models/RUN")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the runs lie")
    parser.add_argument("--stage", choices=STAGES, default="curated", help="which of the run's stages")
    parser.add_argument("--licence", default="unknown", help="of the weights, as Hugging Face calls it: mit, cc-by-4.0")
    parser.add_argument("--data-name", default="not stated", help="what the run was trained on, and where to get it")
    parser.add_argument("--data-licence", default="not stated", help="of what it was trained on")
    parser.add_argument("--code", default="not stated", help="where to get this repository")
    args = parser.parse_args()

    folder = stage_folder(args.models, args.run, args.stage)
    folder.load_models((), torch.device("cpu"))          # none is published that cannot be loaded
    with new_folder(args.out) as out:
        published = StageFolder(out / args.run / args.stage)
        published.path.mkdir(parents=True)
        copy_stage(folder, published)
        card = model_card(published, licence=args.licence, data_name=args.data_name, data_licence=args.data_licence,
                          code=args.code)
        (out / "README.md").write_text(card, encoding="utf-8")
        files = sorted(path for path in out.rglob("*") if path.is_file())
        check_private(files)
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n" for path in files]
        (out / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")

    size = sum(path.stat().st_size for path in args.out.rglob("*")) / 2**20
    print(f"{folder}: {len(files) + 1} files, {size:.0f} MB -> {args.out}\n"
          "Paths were taken out of the recorded commands. Before you make it public, see that the names and labels of\n"
          f"the training clips may be public ({published.path.name}/clips.csv, fold*.predictions.csv), and read "
          f"{args.out / 'README.md'}.")


def copy_stage(folder: StageFolder, published: StageFolder) -> None:
    """Copy the finished folds and what they share.

    Raises:
        TaggingError: scores.json is not of these folds.
    """
    folds = folder.finished_folds()
    scores = read_json(folder.path / "scores.json", "Give the command of the training again.")
    if sorted(map(int, scores["folds"])) != folds:
        raise TaggingError(f"{folder.path / 'scores.json'} is not of the finished folds {folds}. Give the command of "
                           "the training again, which makes it anew.")
    files = [folder.path / "clips.csv", folder.path / "scores.json", *folder.path.glob("noisy_labels.csv"),
             *folder.path.glob("model.onnx")]
    for fold in folds:
        files += [folder.weights(fold), folder.log(fold), folder.predictions(fold)]
        record = read_json(folder.record(fold), "Train the fold again.")
        write_json(published.record(fold), without_paths(record))
    for path in files:
        shutil.copyfile(path, published.path / path.name)
    settings = folder.settings()
    write_json(published.settings_path, settings | {"made_by": without_paths(settings["made_by"])})


def without_paths(origin: dict) -> dict:
    """What `made_by` tells, with PATH for the paths in the command that lead out of the folder where it was given."""
    python, script, *words = shlex.split(origin["command"])
    words = [re.sub(r"(?:^|(?<==))(?:[/~]|[^=]*\.\.).*", "PATH", word, flags=re.DOTALL) for word in words]
    return origin | {"command": shlex.join([python, Path(script).name, *words])}


def check_private(files: list[Path]) -> None:
    """
    Raises:
        TaggingError: a file names the home folder, or the folder of this repository.
    """
    for place in {str(Path.home()), str(ROOT)} - {"/"}:
        for path in files:
            if f"{place}/".encode() in path.read_bytes():
                raise TaggingError(f"{path.name} names a folder of this machine, {place}, so nothing was published. "
                                   "Make that file again without it.")


def model_card(folder: StageFolder, **stated: str) -> str:
    """Fill in templates/model_card.md.jinja from what the run says of itself.

    Args:
        stated: what it does not know.
    """
    folds, settings, truth = folder.finished_folds(), folder.settings(), folder.truth()
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined,
                              trim_blocks=True, keep_trailing_newline=True)
    environment.filters["cell"] = table_cell
    return environment.get_template("model_card.md.jinja").render(
        stated, run=folder.run, stage=folder.path.name, settings=settings, knobs=flatten(settings["recipe"]),
        made_by=settings["made_by"], recipe=folder.recipe(), truth=truth, caveat=folder.caveat(),
        scores=read_json(folder.path / "scores.json", ""), exported=(folder.path / "model.onnx").exists(),
        records={fold: read_json(folder.record(fold), "") for fold in folds},
        classes=score_by_class(*out_of_fold(folder)))


def table_cell(value: object) -> str:
    """Text that stays text, and in its cell, in a Markdown table."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


if __name__ == "__main__":
    run_script(main)
