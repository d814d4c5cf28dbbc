"""Measure the prediction of the test clips with all folds, with and without augmented views."""
from collections.abc import Iterator
from functools import partial
from statistics import median

from tagging.evaluation.predict import predict_probabilities
from tools.benchmark.measure import Row, Setting, seconds_of

# By number of augmented views.
REMARKS = {0: "", 2: "of one view; target: 3 views at most 3 times", 3: "of one view"}


def measure_predict(setting: Setting) -> Iterator[Row]:
    """Measure one model, and multiply its time by the number of folds. All folds have the same network."""
    _, store = setting.open("test")
    model, folds = setting.model("curated"), setting.recipe.fold_count
    seconds = seconds_of(setting, *(partial(predict_probabilities, model, store, tta=views) for views in REMARKS))
    for (views, remark), taken in zip(REMARKS.items(), seconds):
        yield Row(f"{len(store)} clips, {store.hours:.2f} h, {folds} folds, {1 + views} views (--tta {views})", "s",
                  [folds * one for one in taken], median(taken) / median(seconds[0]) if views else None, remark)
