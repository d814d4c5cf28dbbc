"""The list of the models, and how one of them is fitted. To add a model, add an entry to `BASELINES`."""
import importlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from tagging.baselines import estimators
from tagging.baselines.forms import FittedClasses, Form
from tagging.errors import TaggingError
from tagging_lite.cores import available_cores

# A leaf has a value for each class: without a limit, the forests of a large data set would take gigabytes.
FOREST = {"n_estimators": 300, "min_samples_leaf": 2, "max_leaf_nodes": 1000, "max_features": "sqrt", "n_jobs": -1}


@dataclass(frozen=True)
class Baseline:
    """A kind of model.

    Attributes:
        estimator: module and class, with fit(features, targets) as in scikit-learn.
        convert: the fitted estimators, one for each class or a single one, -> their form.
        joint: one estimator is fitted on all classes at once. Otherwise each class has its own, against all others.
        package: what to install for it.
        scaled: the features are standardised first.
    """
    summary: str
    package: str
    estimator: str
    convert: Callable[[Sequence[Any]], Form]
    settings: dict[str, Any] = field(default_factory=dict)
    joint: bool = False
    scaled: bool = False


BASELINES = {
    "lightgbm": Baseline(
        "gradient boosting of LightGBM", "lightgbm", "lightgbm:LGBMClassifier", estimators.from_lightgbm,
        {"n_estimators": 200, "learning_rate": 0.05, "num_leaves": 15, "colsample_bytree": 0.1, "n_jobs": 1,
         "deterministic": True, "force_row_wise": True, "verbosity": -1}),
    "tree": Baseline(
        "a single decision tree", "scikit-learn", "sklearn.tree:DecisionTreeClassifier", estimators.from_forest,
        {"min_samples_leaf": 5}, joint=True),
    "logistic": Baseline(
        "logistic regression on standardised features", "scikit-learn", "sklearn.linear_model:LogisticRegression",
        estimators.from_logistic, {"C": 0.01, "max_iter": 1000}, scaled=True),
    "forest": Baseline(
        "random forest", "scikit-learn", "sklearn.ensemble:RandomForestClassifier", estimators.from_forest, FOREST,
        joint=True),
    "extra-trees": Baseline(
        "extremely randomised trees", "scikit-learn", "sklearn.ensemble:ExtraTreesClassifier",
        estimators.from_forest, FOREST, joint=True),
    "histogram": Baseline(
        "gradient boosting of scikit-learn", "scikit-learn", "sklearn.ensemble:HistGradientBoostingClassifier",
        estimators.from_histogram, {"max_iter": 200, "learning_rate": 0.05, "max_leaf_nodes": 15, "max_features": 0.1,
                                    "early_stopping": False}),
    "xgboost": Baseline(
        "gradient boosting of XGBoost", "xgboost-cpu", "xgboost:XGBClassifier", estimators.from_xgboost,
        {"n_estimators": 200, "learning_rate": 0.05, "max_depth": 4, "colsample_bytree": 0.1, "n_jobs": 1}),
    "tabular": Baseline(
        "the tabular learner of fastai, a network with two hidden layers", "fastai",
        "tagging.baselines.estimators:TabularClassifier", estimators.from_tabular,
        {"epochs": 20, "lr": 1e-2, "batch_size": 64, "dropout": 0.2}, joint=True),
}


def estimator_class(name: str) -> type:
    """Import the class of a model.

    Raises:
        TaggingError: its package is not installed.
    """
    baseline = BASELINES[name]
    module, kind = baseline.estimator.split(":")
    try:
        return getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise TaggingError(f"--model {name} needs a package that cannot be imported ({error}). Install it with "
                           f"`pip install {baseline.package}`, or choose another --model."
                           ) from error


def fit_classes(name: str, features: np.ndarray, targets: np.ndarray, seed: int, title: str = "") -> FittedClasses:
    """Fit a model.

    Args:
        name: one of `BASELINES`.
        features: (clips, features) float32.
        targets: (clips, classes) 0/1.
        title: of a progress bar, or "" for none.
    Raises:
        TaggingError: the package of the model is not installed, or no class tells any two clips apart.
    """
    baseline, kind = BASELINES[name], estimator_class(name)
    labels = (targets > 0).astype(np.int8)
    count = labels.sum(0)                                                       # (classes,)
    varied = np.flatnonzero((count > 0) & (count < len(labels)))
    if not len(varied):
        raise TaggingError(f"All {len(labels)} training clips have the same labels, so there is nothing to learn. Add "
                           "clips of other classes.")

    def fit(columns: np.ndarray) -> Any:
        """Fit one estimator on (classes,) columns of the targets, or on a single one."""
        # At most 32 bits. One thread: the classes share the cores, and the last bits depend on no number of cores.
        estimator = kind(**baseline.settings, random_state=seed % 2**31)
        with threadpool_limits(None if baseline.joint else 1), warnings.catch_warnings():
            warnings.simplefilter("ignore")         # a class with few clips
            if baseline.scaled:
                from sklearn.pipeline import make_pipeline
                from sklearn.preprocessing import StandardScaler
                estimator = make_pipeline(StandardScaler(), estimator)
            estimator.fit(features, columns)
        return estimator

    tasks = [labels[:, varied] if len(varied) > 1 else labels[:, varied[0]]] if baseline.joint else [*labels.T[varied]]
    with (ThreadPoolExecutor(available_cores()) as pool,
          tqdm(total=len(tasks), desc=title, unit="class", leave=False, disable=None if title else True) as bar):
        fitted = []
        for estimator in pool.map(fit, tasks):
            fitted.append(estimator)
            bar.update()
    form = baseline.convert(fitted)
    form.check(features.shape[1], len(varied))
    return FittedClasses(form, varied, (count + 0.5) / (len(labels) + 1))
