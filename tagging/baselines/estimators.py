"""What scikit-learn, LightGBM, XGBoost and fastai have fitted -> forms. Also fastai's learner as an estimator."""
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from tagging.baselines.forms import Dense, Form, Linear, Trees

Fitted = Sequence[Any]          # an estimator for each class, or a single one for all classes


class TreeBuilder:
    """Collects trees whose numbers of nodes and leaves begin at 0 into the arrays of one `Trees`."""

    def __init__(self):
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.nodes, self.leaves = 0, 0

    def add(self, feature: np.ndarray, threshold: np.ndarray, left: np.ndarray, right: np.ndarray, values: np.ndarray,
            class_of: int = -1) -> None:
        """Add a tree. Its arrays are as in `Trees`; it has a single leaf if it has no node."""
        root = self.nodes if len(feature) else ~self.leaves
        left, right = (np.where(child >= 0, child + self.nodes, child - self.leaves) for child in (left, right))
        self.parts.append((feature, threshold, left, right, values, np.array([root]), np.array([class_of])))
        self.nodes += len(feature)
        self.leaves += len(values)

    def add_marked(self, leaf: np.ndarray, feature: np.ndarray, threshold: np.ndarray, left: np.ndarray,
                   right: np.ndarray, values: np.ndarray, class_of: int = -1) -> None:
        """Add a tree whose nodes and leaves are in the same arrays, where `leaf` marks the leaves."""
        number = np.where(leaf, ~(np.cumsum(leaf) - 1), np.cumsum(~leaf) - 1)
        inner = ~leaf
        self.add(feature[inner], threshold[inner], number[left[inner]], number[right[inner]], values[leaf], class_of)

    def build(self, base: Sequence[float] = ()) -> Trees:
        feature, threshold, left, right, values, roots, class_of = (np.concatenate(part) for part in zip(*self.parts))
        joint = class_of[0] < 0
        return Trees(feature.astype(np.int32), threshold.astype(np.float64), left.astype(np.int32),
                     right.astype(np.int32), values.astype(np.float32 if joint else np.float64),
                     roots.astype(np.int32), class_of.astype(np.int32)[:0 if joint else None],
                     np.array(base, np.float64))


def from_forest(estimators: Fitted) -> Form:
    """Convert a decision tree or a forest of scikit-learn that was fitted on all classes at once."""
    builder = TreeBuilder()
    for member in getattr(estimators[0], "estimators_", estimators):
        tree = member.tree_
        shares = tree.value if tree.n_outputs > 1 else tree.value.reshape(tree.node_count, 1, -1)
        builder.add_marked(tree.children_left < 0, tree.feature, tree.threshold, tree.children_left,
                           tree.children_right, shares[:, :, 1] / shares.sum(2))            # (nodes, classes)
    return builder.build()


def from_histogram(estimators: Fitted) -> Form:
    """Convert the HistGradientBoostingClassifier of each class."""
    builder = TreeBuilder()
    for column, estimator in enumerate(estimators):
        for predictor, in estimator._predictors:
            nodes = predictor.nodes
            builder.add_marked(nodes["is_leaf"] > 0, nodes["feature_idx"], nodes["num_threshold"], nodes["left"],
                               nodes["right"], nodes["value"][:, None], column)
    return builder.build([float(estimator._baseline_prediction.item()) for estimator in estimators])


def from_lightgbm(estimators: Fitted) -> Form:
    """Convert the LGBMClassifier of each class. Its text has all digits of its numbers."""
    builder = TreeBuilder()
    for column, estimator in enumerate(estimators):
        for block in estimator.booster_.model_to_string(importance_type="gain").split("\nTree=")[1:]:
            lines = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            numbers = {name: np.array(lines.get(name, "").split(), float)
                       for name in ("split_feature", "threshold", "left_child", "right_child", "leaf_value")}
            builder.add(numbers["split_feature"], numbers["threshold"], numbers["left_child"].astype(int),
                        numbers["right_child"].astype(int), numbers["leaf_value"][:, None], column)
    return builder.build([0.0] * len(estimators))


def from_xgboost(estimators: Fitted) -> Form:
    """Convert the XGBClassifier of each class. XGBoost goes to the left below the threshold, in float32."""
    builder, base = TreeBuilder(), []
    for column, estimator in enumerate(estimators):
        learner = json.loads(estimator.get_booster().save_raw("json"))["learner"]
        probability = float(learner["learner_model_param"]["base_score"].strip("[]"))
        base.append(np.log(probability / (1 - probability)))
        for tree in learner["gradient_booster"]["model"]["trees"]:
            left, right, feature = (np.array(tree[name], int) for name in
                                    ("left_children", "right_children", "split_indices"))
            condition = np.array(tree["split_conditions"], np.float32)     # of a leaf, its value
            builder.add_marked(left < 0, feature, np.nextafter(condition, np.float32(-np.inf)), left, right,
                               condition[:, None], column)
    return builder.build(base)


def from_logistic(estimators: Fitted) -> Form:
    """Convert a scaler with the LogisticRegression of each class, which scikit-learn calls a pipeline."""
    scaler = estimators[0][0]
    models = [estimator[-1] for estimator in estimators]
    return Linear(scaler.mean_.astype(float), scaler.scale_.astype(float),
                  np.stack([model.coef_[0] for model in models], 1).astype(float),
                  np.array([model.intercept_[0] for model in models], float))


class TabularClassifier:
    """fastai's tabular learner on standardised features, fitted on all classes at once.

    Args:
        epochs, lr, batch_size: of one cycle of Adam with a rise and a fall of the learning rate.
        dropout: of the hidden layers.
        random_state: seed of the initial weights, the order of the clips and the dropout.
    """

    def __init__(self, *, epochs: int, lr: float, batch_size: int, dropout: float, random_state: int):
        self.epochs, self.lr, self.batch_size, self.dropout = epochs, lr, batch_size, dropout
        self.seed = random_state

    def fit(self, features: np.ndarray, targets: np.ndarray) -> None:
        """(clips, features) float32 and (clips, classes) 0/1."""
        import fastai.callback.all  # noqa: F401    adds fit_one_cycle and no_bar; not at the top: it takes seconds
        from fastai.data.block import MultiCategoryBlock
        from fastai.losses import BCEWithLogitsLossFlat
        from fastai.tabular.core import TabDataLoader, TabularPandas
        from fastai.tabular.data import TabularDataLoaders
        from fastai.tabular.learner import tabular_config, tabular_learner

        self.mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
        self.scale = np.where(deviation > 0, deviation, 1.0)
        names, classes = ([f"{kind}{number}" for number in range(array.shape[1])]
                          for kind, array in (("x", features), ("y", targets)))
        table = pd.DataFrame(np.hstack([(features - self.mean) / self.scale, targets]).astype(np.float32),
                             columns=names + classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            rows = TabularPandas(table, cont_names=names, y_names=classes, splits=[list(range(len(table))), [0]],
                                 y_block=MultiCategoryBlock(vocab=classes, encoded=True))
            loaders = TabularDataLoaders.from_dsets(rows.train, rows.valid, dl_type=TabDataLoader,
                                                    bs=min(self.batch_size, len(table)), num_workers=0, device="cpu")
            loaders.train.rng = random.Random(self.seed)        # of the order of the clips
            config = tabular_config(ps=[self.dropout] * len(Dense.SIZES))
            learner = tabular_learner(loaders, layers=list(Dense.SIZES), config=config, n_out=targets.shape[1],
                                      loss_func=BCEWithLogitsLossFlat())
            with learner.no_bar(), learner.no_logging():
                learner.fit_one_cycle(self.epochs, self.lr)
        self.network = learner.model.eval()

    def form(self) -> Form:
        return Dense.of_network(self.mean, self.scale, self.network)


def from_tabular(estimators: Fitted) -> Form:
    """Convert a `TabularClassifier`."""
    return estimators[0].form()
