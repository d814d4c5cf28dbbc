"""Make what has to be uploaded to submit a run on Kaggle: a dataset with its weights, and a kernel that predicts.

    python -m tools.kaggle_kernel --run NAME --user KAGGLE_USERNAME --out DIR

    DIR/dataset/    weights of the folds, out-of-fold predictions if the recipe balances, dataset-metadata.json
                    for kaggle datasets create -p DIR/dataset
    DIR/kernel/     predict.py, kernel-metadata.json
                    for kaggle kernels push -p DIR/kernel

The kernel needs no internet: it carries this repository's packages, and all that they import is part of Kaggle's image.
"""
import argparse
import base64
import io
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import torch

from tagging.cli import run_script
from tagging.errors import TaggingError
from tagging.provenance import provenance
from tagging.recipe import STAGES
from tagging.run import stage_folder
from tagging.utils.files import new_folder, write_json

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="name of the run: models/RUN")
    parser.add_argument("--user", required=True, help="your name on Kaggle, as in the address of your profile")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the runs lie")
    parser.add_argument("--stage", choices=STAGES, default="curated", help="which of the run's stages")
    parser.add_argument("--folds", type=int, nargs="+", default=(), help="which folds' models; all, if none is named")
    parser.add_argument("--tta", type=int, help="views of each clip beside the plain one, as many as there is time "
                        "for; default: as many as the recipe has view speeds")
    parser.add_argument("--competition", default="freesound-audio-tagging-2019", help="its name in its address")
    args = parser.parse_args()
    for option, name in (("--user", args.user), ("--competition", args.competition)):
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]*", name):
            raise TaggingError(f"{option} '{name}' must be letters, digits, '-' and '_', as in its address on Kaggle.")
    if (args.tta or 0) < 0:
        raise TaggingError("--tta must not be negative.")

    folder = stage_folder(args.models, args.run, args.stage)
    folder.load_models(args.folds, torch.device("cpu"))      # a fault in them is better found here than on Kaggle
    folds = folder.choose_folds(args.folds)
    recipe, files = folder.recipe(), [folder.weights(fold) for fold in folds]
    if recipe.balance:
        folder.out_of_fold(folds)
        files += [folder.predictions(fold) for fold in folds]
    tta = recipe.views(args.tta)
    name = kaggle_name(args.run, args.stage)
    with new_folder(args.out) as out:
        (out / "dataset").mkdir()
        for path in files:
            shutil.copyfile(path, out / "dataset" / path.name)
        write_json(out / "dataset" / "dataset-metadata.json", dataset_metadata(args.user, name))
        (out / "kernel").mkdir()
        (out / "kernel" / "predict.py").write_text(kernel_script(folds, tta), encoding="utf-8")
        write_json(out / "kernel" / "kernel-metadata.json", kernel_metadata(args.user, name, args.competition))

    print(f"{folder}: {len(folds)} folds, {tta} augmented views -> {args.out}\n"
          "Upload the weights; when Kaggle has them ready, the kernel; when it has run, submit its version 1:")
    where = f"{args.user}/{name}"
    for words in (["datasets", "create", "-p", args.out / "dataset"], ["kernels", "push", "-p", args.out / "kernel"],
                  ["competitions", "submit", args.competition, "-k", where, "-v", "1", "-f", "submission.csv", "-m",
                   args.run]):
        print(" ", shlex.join(["kaggle", *map(str, words)]))


def kaggle_name(run: str, stage: str) -> str:
    """A name that Kaggle takes for a dataset (6 to 50 characters) and for a kernel (5 or more)."""
    return re.sub("[^a-z0-9]+", "-", f"audio-tagging-{run[:28].lower()}-{stage}")


def dataset_metadata(user: str, name: str) -> dict:
    """https://github.com/Kaggle/kaggle-cli/blob/main/docs/datasets_metadata.md"""
    return {"title": name.replace("-", " "), "id": f"{user}/{name}", "licenses": [{"name": "unknown"}]}


def kernel_metadata(user: str, name: str, competition: str) -> dict:
    """https://github.com/Kaggle/kaggle-cli/blob/main/docs/kernels_metadata.md; the id has to follow from the title."""
    return {"title": name.replace("-", " "), "id": f"{user}/{name}", "code_file": "predict.py", "language": "python",
            "kernel_type": "script", "is_private": True, "enable_internet": False, "enable_gpu": True,
            "machine_shape": "NvidiaTeslaT4",       # the P100 is too old for the torch of Kaggle's image
            "competition_sources": [competition], "dataset_sources": [f"{user}/{name}"]}


def kernel_script(folds: list[int], tta: int) -> str:
    """tools/kaggle_script.py, and its call with the packages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packages:
        for path in sorted([ROOT / "LICENSE", *ROOT.glob("tagging/*.py"), *ROOT.glob("tagging_lite/*.py")]):
            packages.writestr(str(path.relative_to(ROOT)), path.read_bytes())
    code = base64.encodebytes(file.getvalue()).decode()
    script, origin = (ROOT / "tools" / "kaggle_script.py").read_text(encoding="utf-8"), provenance()
    state = "" if origin["clean"] else " with uncommitted changes"
    return f'{script}\n\n# Commit {origin["commit"]}{state}.\nmain({tuple(folds)}, {tta}, """\n{code}""")\n'


if __name__ == "__main__":
    run_script(main)
