"""Predict the test clips of a competition in a Kaggle kernel -> submission.csv

`tools.kaggle_kernel` wrote this script. The call at its end contains the packages tagging and tagging_lite.
"""
import base64
import io
import sys
import tempfile
import time
import zipfile
from pathlib import Path

INPUT = Path("/kaggle/input")
LIMIT = 50 * 60     # seconds; a kernel can take an hour, and no view starts that would end after this


def main(folds: tuple[int, ...], tta: int, code: str, commits: tuple[str | None, ...]) -> None:
    """
    Args:
        folds: the folds whose models are averaged.
        tta: number of views of each clip besides the plain one. Views for which there is no time are left out.
        code: a zip file of the packages, in base64.
        commits: the commit that trained each fold, which decides how an older model is read.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:      # Kaggle keeps all files of the current folder
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(code))) as packages:
            packages.extractall(scratch)
        sys.path.insert(0, scratch)
        from tagging.utils.logs import show_logs
        with show_logs():
            weights = find(f"fold{folds[0]}.safetensors")
            predict(find("sample_submission.csv"), weights, dict(zip(folds, commits)), tta, Path(scratch) / "cache",
                    started)
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes in total")


def find(name: str) -> Path:
    """Return the folder in INPUT that contains the file `name`: SLUG, competitions/SLUG or datasets/OWNER/SLUG."""
    for depth in ("*", "*/*", "*/*/*"):
        for path in sorted(INPUT.glob(f"{depth}/{name}")):
            return path.parent
    raise FileNotFoundError(f"{INPUT} has no {name}. Add the competition and the weights to the kernel's input.")


def predict(data: Path, weights: Path, commits: dict[int, str | None], tta: int, cache: Path, started: float) -> None:
    """Write the submission.

    Args:
        data: folder of the competition.
        weights: folder of the weights.
        commits: the commit that trained each fold.
        started: time at which the kernel started.
    """
    import pandas as pd
    import torch

    from tagging.data.competition import open_competition
    from tagging.data.waveforms import open_store
    from tagging.evaluation.ensemble import blend, class_means, fill_rows, write_submission
    from tagging.evaluation.predict import predict_logits
    from tagging.modeling.model import load_model
    from tagging.run import StageFolder
    from tagging.utils.devices import choose_device
    from tagging_lite.audio import make_trim

    device = choose_device("auto")
    competition = open_competition(data)
    test = competition.clips("test")
    folder = StageFolder(weights)
    models = [load_model(folder.weights(fold), device, commit) for fold, commit in commits.items()]
    for fold, model in zip(commits, models):
        if model.metadata.classes != competition.classes:
            raise ValueError(f"{folder.weights(fold)} has other classes than {data}, or has them in another order. "
                             "Upload the weights of a run that was trained on this competition.")
    metadata, recipe = models[0].metadata, models[0].metadata.recipe
    known = folder.out_of_fold(list(commits)) if recipe.balance else None
    # One bad clip among the hidden ones must not cost the submission.
    clips, store = open_store(test, make_trim(recipe.trim_db), cache, skip_bad=True, sample_rate=metadata.sample_rate)
    print(f"{len(models)} models on {device}, {len(clips)} clips, {store.hours:.1f} h", flush=True)

    views, longest = [], 0.0
    slowest = min((1.0, *recipe.view_speeds))     # a slower clip has more windows
    for view in range(1 + tta):
        begun = time.perf_counter()
        if view and begun - started + longest / slowest > LIMIT:
            print(f"There is no time for the additional views from {view} on.")
            break
        logits = [torch.from_numpy(predict_logits(model, store, view=view)) for model in models]
        views.append(blend([pd.DataFrame(each.sigmoid().numpy(), clips.fnames, list(competition.classes))
                            for each in logits]))
        longest = max(longest, time.perf_counter() - begun)
        print(f"view {view} of {tta}, {time.perf_counter() - begun:.0f} s", flush=True)
    submission = blend(views)
    if known is not None:
        submission /= class_means(submission, known)
    submission = fill_rows(submission, test.fnames)
    write_submission(Path("submission.csv"), submission, test.fnames, competition.classes)
    print(f"{len(submission)} clips x {len(competition.classes)} classes -> submission.csv")
