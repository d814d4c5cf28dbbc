"""Copy everything that others need to use, judge and repeat a run into a new folder, with a model card.

    python -m tools.publish --run NAME --out DIR [--licence mit] [--data-name "FSDKaggle2019"]

    DIR/README.md           the model card, in Hugging Face's format
    DIR/SHA256SUMS          for sha256sum -c
    DIR/NAME/STAGE/         the run itself; other tools use it with --models DIR --run NAME

The paths of this machine are removed. The names and the labels of the training clips are part of a run.
"""
import hashlib
import html
import re
import shlex
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.evaluation.error_analysis import out_of_fold, score_by_class
from tagging.modeling.model import CPU
from tagging.options import Flat, RunOptions
from tagging.run import StageFolder, stage_folder
from tagging.settings import flatten
from tagging.utils.files import check_new_folder, new_folder, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """Statements for the model card that the run does not contain."""
    licence: str = "unknown"                # Licence of the weights by its name on Hugging Face, such as cc-by-4.0.
    data_name: str = "not stated"           # Name of the training data, and where to get it.
    data_licence: str = "not stated"        # Licence of the training data.
    code: str = "not stated"                # Address of this repository.


@dataclass(frozen=True, kw_only=True)
class Publish:
    """tools.publish."""
    out: Path                               # Folder to write. It must be empty or not exist.
    run: Flat[RunOptions]
    card: Flat[CardOptions]


def main() -> None:
    args = parse(Publish, __doc__)
    run = args.run
    check_new_folder(args.out, "--out")
    folder = stage_folder(run.models, run.run, run.stage)
    folder.load_models((), CPU)         # an invalid model must not be published
    with new_folder(args.out) as out:
        published = StageFolder(out / run.run / run.stage)
        published.path.mkdir(parents=True)
        copy_stage(folder, published)
        (out / "README.md").write_text(model_card(published, args.card), encoding="utf-8")
        files = sorted(path for path in out.rglob("*") if path.is_file())
        check_private(files)
        sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n" for path in files]
        (out / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")

    size = sum(path.stat().st_size for path in args.out.rglob("*")) / 2**20
    print(f"{folder}: {len(files) + 1} files, {size:.0f} MB -> {args.out}\n"
          "Paths were removed from the recorded commands. Before you make the folder public, check that the names and\n"
          f"labels of the training clips may be public ({run.stage}/clips.csv, fold*.predictions.csv), and read "
          f"{args.out / 'README.md'}.")


def copy_stage(folder: StageFolder, published: StageFolder) -> None:
    """Copy the finished folds and the files that they share.

    Raises:
        TaggingError: scores.json belongs to other folds, or a file is missing.
    """
    folds = folder.finished_folds()
    remedy = "Run the training command again to write it."
    scores = read_json(folder.path / "scores.json", remedy)
    if sorted(map(int, scores["folds"])) != folds:
        raise TaggingError(f"{folder.path / 'scores.json'} has other folds than the finished ones {folds}. {remedy}")
    files = [folder.path / "clips.csv", folder.path / "scores.json", *folder.path.glob("noisy_labels.csv"),
             *folder.path.glob("model.onnx")]
    for fold in folds:
        files += [folder.weights(fold), folder.log(fold), folder.predictions(fold)]
        record = read_json(folder.record(fold), "Train the fold again.")
        write_json(published.record(fold), without_paths(record))
    for path in files:
        shutil.copyfile(path, published.path / path.name)
    # As it is written and not as `settings` converts it, because the weights of an older run are not converted either.
    settings = read_json(folder.settings_path, remedy)
    write_json(published.settings_path, settings | {"made_by": without_paths(settings["made_by"])})


def without_paths(origin: dict) -> dict:
    """Replace the paths in the command of `made_by` that are absolute or contain .. by PATH."""
    python, script, *words = shlex.split(origin["command"])
    words = [re.sub(r"(?:^|(?<==))(?:[/~]|[^=]*\.\.).*", "PATH", word, flags=re.DOTALL) for word in words]
    return origin | {"command": shlex.join([python, Path(script).name, *words])}


def check_private(files: list[Path]) -> None:
    """
    Raises:
        TaggingError: a file contains the path of the home folder or of this repository.
    """
    folders = {str(ROOT)}
    with suppress(RuntimeError):        # there is no home folder
        folders.add(str(Path.home()))
    for folder in folders - {"/"}:
        for path in files:
            if f"{folder}/".encode() in path.read_bytes():
                raise TaggingError(f"{path.name} contains a path of this machine, {folder}, so nothing was published. "
                                   "Write that file again without the path.")


def model_card(folder: StageFolder, card: CardOptions) -> str:
    """Fill in templates/model_card.md.jinja from the files of a run and the options."""
    folds, settings, truth = folder.finished_folds(), folder.settings(), folder.truth()
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined,
                              trim_blocks=True, keep_trailing_newline=True)
    environment.filters["cell"] = table_cell
    return environment.get_template("model_card.md.jinja").render(
        asdict(card), run=folder.run, stage=folder.path.name, settings=settings, knobs=flatten(settings["recipe"]),
        made_by=settings["made_by"], recipe=folder.recipe(), truth=truth, caveat=folder.caveat(),
        scores=read_json(folder.path / "scores.json", ""), exported=(folder.path / "model.onnx").exists(),
        records={fold: read_json(folder.record(fold), "") for fold in folds},
        classes=score_by_class(*out_of_fold(folder)),
        # Hugging Face requires an identifier of the data. Data with the same one are compared with each other.
        data_type=re.sub(r"[^\w.]+", "-", card.data_name.casefold()).strip("-") or "unknown")


def table_cell(value: object) -> str:
    """Escape a text for a cell of a Markdown table."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


if __name__ == "__main__":
    run_script(main)
