"""Make the two uploads that submit a run on Kaggle: a dataset with its weights, and a kernel that predicts.

    python -m tools.kaggle_kernel --run NAME --user KAGGLE_USERNAME --out DIR

    DIR/dataset/    weights of the folds, out-of-fold predictions if the recipe balances, dataset-metadata.json
                    for kaggle datasets create -p DIR/dataset
    DIR/kernel/     predict.py, kernel-metadata.json
                    for kaggle kernels push -p DIR/kernel

The kernel needs no internet. It contains the packages of this repository, and Kaggle's image has everything else.
"""
import base64
import io
import re
import shlex
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.modeling.model import CPU
from tagging.options import Flat, FoldedRunOptions, shown_default
from tagging.provenance import provenance
from tagging.run import stage_folder
from tagging.schema import commit_of
from tagging.utils.files import check_new_folder, new_folder, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class KaggleOptions:
    """The dataset and the kernel."""
    user: str                               # Your user name on Kaggle, as in the address of your profile.
    out: Path                               # Folder to write. It must be empty or not exist.
    competition: str = "freesound-audio-tagging-2019"   # Name of the competition, as in its address on Kaggle.
    # Number of views of each clip besides the plain one. The kernel predicts as many of them as it has time for.
    tta: Annotated[int | None, shown_default("one for each view speed of the recipe", "INT")] = None


@dataclass(frozen=True, kw_only=True)
class KaggleKernel:
    """tools.kaggle_kernel."""
    run: Flat[FoldedRunOptions]
    kaggle: Flat[KaggleOptions]


def main() -> None:
    args = parse(KaggleKernel, __doc__)
    run, kaggle = args.run, args.kaggle
    for option, name in (("--user", kaggle.user), ("--competition", kaggle.competition)):
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]*", name):
            raise TaggingError(f"{option} '{name}' must consist of letters, digits, '-' and '_'. Copy it from its page "
                               "on Kaggle.")
    if (kaggle.tta or 0) < 0:
        raise TaggingError("--tta must not be negative.")
    check_new_folder(kaggle.out, "--out")

    folder = stage_folder(run.models, run.run, run.stage)
    folder.load_models(run.folds, CPU)      # an invalid model is reported here and not on Kaggle
    folds = folder.choose_folds(run.folds)
    recipe, files = folder.recipe(), [folder.weights(fold) for fold in folds]
    if recipe.balance:
        folder.out_of_fold(folds)
        files += [folder.predictions(fold) for fold in folds]
    commits = [commit_of(read_json(folder.record(fold), "Train the fold again.")) for fold in folds]
    tta, name = recipe.views(kaggle.tta), kaggle_name(run.run, run.stage)
    write_uploads(kaggle, name, files, kernel_script(folds, tta, commits))
    print(f"{folder}: {len(folds)} folds, {tta} additional views -> {kaggle.out}\n"
          "Upload the weights. When Kaggle has processed them, upload the kernel. When it has finished, submit its "
          "version 1:")
    for words in (["datasets", "create", "-p", kaggle.out / "dataset"],
                  ["kernels", "push", "-p", kaggle.out / "kernel"],
                  ["competitions", "submit", kaggle.competition, "-k", f"{kaggle.user}/{name}", "-v", "1", "-f",
                   "submission.csv", "-m", run.run]):
        print(" ", shlex.join(["kaggle", *map(str, words)]))


def write_uploads(kaggle: KaggleOptions, name: str, files: list[Path], script: str) -> None:
    """Write the folders of the dataset and of the kernel.

    Args:
        name: of both on Kaggle.
        files: of the dataset.
        script: text of the kernel.
    """
    with new_folder(kaggle.out) as out:
        dataset, kernel = out / "dataset", out / "kernel"
        dataset.mkdir()
        for path in files:
            shutil.copyfile(path, dataset / path.name)
        write_json(dataset / "dataset-metadata.json", dataset_metadata(kaggle.user, name))
        kernel.mkdir()
        (kernel / "predict.py").write_text(script, encoding="utf-8")
        write_json(kernel / "kernel-metadata.json", kernel_metadata(kaggle.user, name, kaggle.competition))


def kaggle_name(run: str, stage: str) -> str:
    """Return a name that Kaggle accepts for a dataset (6 to 50 characters) and for a kernel (5 or more)."""
    return re.sub("[^a-z0-9]+", "-", f"audio-tagging-{run[:28].lower()}-{stage}")


def dataset_metadata(user: str, name: str) -> dict:
    """https://github.com/Kaggle/kaggle-cli/blob/main/docs/datasets_metadata.md"""
    return {"title": name.replace("-", " "), "id": f"{user}/{name}", "licenses": [{"name": "unknown"}]}


def kernel_metadata(user: str, name: str, competition: str) -> dict:
    """https://github.com/Kaggle/kaggle-cli/blob/main/docs/kernels_metadata.md. The id must correspond to the title."""
    return {"title": name.replace("-", " "), "id": f"{user}/{name}", "code_file": "predict.py", "language": "python",
            "kernel_type": "script", "is_private": True, "enable_internet": False, "enable_gpu": True,
            "machine_shape": "NvidiaTeslaT4",       # the P100 is too old for the torch of Kaggle's image
            "competition_sources": [competition], "dataset_sources": [f"{user}/{name}"]}


def kernel_script(folds: list[int], tta: int, commits: list[str | None]) -> str:
    """Return tools/kaggle_script.py, with a call of its main that contains the packages.

    Args:
        commits: the commit that trained each fold.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packages:
        for path in sorted([ROOT / "LICENSE", *ROOT.glob("tagging/**/*.py"), *ROOT.glob("tagging_lite/**/*.py")]):
            packages.writestr(str(path.relative_to(ROOT)), path.read_bytes())
    code = base64.encodebytes(file.getvalue()).decode()
    script, origin = (ROOT / "tools" / "kaggle_script.py").read_text(encoding="utf-8"), provenance()
    state = "" if origin["clean"] else " with uncommitted changes"
    call = f'main({tuple(folds)}, {tta}, """\n{code}""", {tuple(commits)})'
    return f'{script}\n\n# Commit {origin["commit"]}{state}.\n{call}\n'


if __name__ == "__main__":
    run_script(main)
