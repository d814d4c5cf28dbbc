"""The forms in which fitted models are kept: arrays and the code that evaluates them.

All models of all libraries become one of three forms. So a model file runs no code when it is loaded, it needs none of
the libraries that fitted it, and a new version of them cannot change its predictions.
"""
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import nn

from tagging.recipe import require

CELLS = 2**22       # clips x trees that are evaluated at once


class Form(Protocol):
    """Arrays of a fitted model. Its fields are the tensors of the model file."""
    def check(self, features: int, classes: int) -> None:
        """
        Raises:
            TaggingError: the arrays do not fit each other, or the numbers of features and classes.
        """

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(clips, features) float32 -> (clips, classes) float64."""


@dataclass(frozen=True)
class Trees:
    """Decision trees. A clip goes to the left if its feature is at most the threshold.

    The children of a node are later nodes, or leaves: leaf n is ~n = -1 - n. A tree is named by its root in the same
    way. The mean of all trees is the probability if a leaf has a value for each class. Otherwise each tree belongs to a
    class, and the logistic function of the sum of its trees and its base is the probability.
    """
    feature: np.ndarray             # (nodes,) int32
    threshold: np.ndarray           # (nodes,) float64
    left: np.ndarray                # (nodes,) int32
    right: np.ndarray               # (nodes,) int32
    values: np.ndarray              # (leaves, classes) float32, or (leaves, 1) float64
    roots: np.ndarray               # (trees,) int32
    class_of: np.ndarray            # (trees,) int32, the class of each tree; empty if a leaf has a value for each class
    base: np.ndarray                # (classes,) float64, or empty

    def check(self, features: int, classes: int) -> None:
        nodes, leaves, trees = len(self.feature), len(self.values), len(self.roots)
        require(trees and all(len(array) == nodes for array in (self.threshold, self.left, self.right)),
                "its trees have no root or arrays of different lengths")
        for name, kind, size in (("feature", np.int32, 1), ("threshold", np.float64, 1), ("left", np.int32, 1),
                                 ("right", np.int32, 1), ("roots", np.int32, 1), ("class_of", np.int32, 1),
                                 ("base", np.float64, 1), ("values", np.floating, 2)):
            array = getattr(self, name)
            require(array.ndim == size and np.issubdtype(array.dtype, kind), f"its array {name} has a wrong type")
        single = len(self.class_of) > 0
        require(self.values.shape[1] == (1 if single else classes), "its leaves have other classes")
        require(not single or (len(self.class_of) == trees and len(self.base) == classes), "a tree has no class")
        require(((self.feature >= 0) & (self.feature < features)).all(), "a node has an unknown feature")
        require(((self.class_of >= 0) & (self.class_of < classes)).all(), "a tree has an unknown class")
        require(all(np.isfinite(array).all() for array in (self.threshold, self.values, self.base)),
                "a value is not a finite number")
        for children, least in ((self.left, np.arange(nodes)), (self.right, np.arange(nodes)), (self.roots, -1)):
            # A child is later than its parent, so each clip arrives at a leaf.
            require((((children > least) & (children < nodes)) | ((children < 0) & (~children < leaves))).all(),
                    "a node has a wrong child")

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        step = max(1, CELLS // len(self.roots))
        return np.concatenate([self.evaluate(features[first:first + step])
                               for first in range(0, len(features), step)])

    def evaluate(self, features: np.ndarray) -> np.ndarray:
        clips = np.arange(len(features))[:, None]
        node = np.tile(self.roots, (len(features), 1))                                      # (clips, trees)
        while (inside := node >= 0).any():
            at = np.maximum(node, 0)
            goes_left = features[clips, self.feature[at]] <= self.threshold[at]
            node = np.where(inside, np.where(goes_left, self.left[at], self.right[at]), node)
        leaf = ~node
        if not len(self.class_of):
            total = np.zeros((len(features), self.values.shape[1]))
            for tree in leaf.T:
                total += self.values[tree]
            return total / leaf.shape[1]
        scores = np.tile(self.base, (len(features), 1))                                     # (clips, classes)
        values = self.values[leaf, 0]                                                       # (clips, trees)
        for column in range(len(self.base)):
            scores[:, column] += values[:, self.class_of == column].sum(1)
        return logistic(scores)


@dataclass(frozen=True)
class Linear:
    """Logistic regression on standardised features."""
    mean: np.ndarray                # (features,) float64
    scale: np.ndarray               # (features,) float64
    weights: np.ndarray             # (features, classes) float64
    bias: np.ndarray                # (classes,) float64

    def check(self, features: int, classes: int) -> None:
        check_arrays(self, {"mean": (features,), "scale": (features,), "weights": (features, classes),
                            "bias": (classes,)})

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        return logistic((features - self.mean) / self.scale @ self.weights + self.bias)


@dataclass(frozen=True)
class Dense:
    """The network of fastai's tabular learner on standardised features: linear layers, ReLU and batch normalisation,
    with the normalisations as a factor and a shift."""
    SIZES: ClassVar[tuple[int, ...]] = (200, 100)       # of the hidden layers

    mean: np.ndarray                # (features,) float64
    scale: np.ndarray               # (features,) float64
    weights_1: np.ndarray           # (features, 200) float64
    bias_1: np.ndarray              # (200,) float64
    weights_2: np.ndarray           # (200, 100) float64
    bias_2: np.ndarray              # (100,) float64
    weights_3: np.ndarray           # (100, classes) float64
    bias_3: np.ndarray              # (classes,) float64

    @classmethod
    def of_network(cls, mean: np.ndarray, scale: np.ndarray, network: nn.Module) -> "Dense":
        """Convert the network of a tabular learner without categories. Each batch normalisation is before a linear
        layer, which it becomes part of."""
        arrays = []
        for module in network.modules():
            values = {name: value.detach().double().numpy() for name, value in module.state_dict().items()}
            if isinstance(module, nn.BatchNorm1d):
                factor = values["weight"] / np.sqrt(values["running_var"] + module.eps)
                shift = values["bias"] - values["running_mean"] * factor
            elif isinstance(module, nn.Linear):
                weights = values["weight"]                                                  # (outputs, inputs)
                arrays += [(weights * factor).T, weights @ shift + values.get("bias", 0.0)]
        return cls(mean, scale, *arrays)

    def check(self, features: int, classes: int) -> None:
        sizes = (features, *self.SIZES, classes)
        shapes: dict[str, tuple[int, ...]] = {"mean": (features,), "scale": (features,)}
        for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            shapes |= {f"weights_{number}": (inputs, outputs), f"bias_{number}": (outputs,)}
        check_arrays(self, shapes)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        hidden = (features - self.mean) / self.scale
        hidden = np.maximum(hidden @ self.weights_1 + self.bias_1, 0)
        hidden = np.maximum(hidden @ self.weights_2 + self.bias_2, 0)
        return logistic(hidden @ self.weights_3 + self.bias_3)


FORMS: dict[str, type] = {"trees": Trees, "linear": Linear, "dense": Dense}


@dataclass(frozen=True)
class FittedClasses:
    """A fitted model. A class that all training clips have, or none, has its smoothed share as probability."""
    form: Form
    varied: np.ndarray              # (varied,) int64, the classes of the form
    prior: np.ndarray               # (classes,) float64

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(clips, features) float32 -> (clips, classes) float32."""
        result = np.tile(self.prior, (len(features), 1))
        result[:, self.varied] = self.form.probabilities(features)
        return result.astype(np.float32)


def form_name(form: Form) -> str:
    """Return the name of a form in a model file."""
    return next(name for name, kind in FORMS.items() if isinstance(form, kind))


def arrays_of(form: Form) -> dict[str, torch.Tensor]:
    """Return the arrays of a form, as the tensors of a model file."""
    return {field.name: torch.from_numpy(np.ascontiguousarray(getattr(form, field.name)))
            for field in fields(form)}          # type: ignore[arg-type]    # each form is a dataclass


def build_form(name: str, tensors: dict[str, torch.Tensor]) -> Form:
    """Rebuild a form from the tensors of a model file. `check` must follow.

    Raises:
        TaggingError: there is no such form, or it has other arrays.
    """
    require(name in FORMS, f"there is no form '{name}'")
    require(set(tensors) == {field.name for field in fields(FORMS[name])}, f"its arrays are not those of {name}")
    return FORMS[name](**{field: tensor.numpy() for field, tensor in tensors.items()})


def check_arrays(form: Form, shapes: dict[str, tuple[int, ...]]) -> None:
    """
    Raises:
        TaggingError: an array has another shape or type, is not finite, or a scale is not above 0.
    """
    for name, shape in shapes.items():
        array = getattr(form, name)
        require(array.shape == shape and array.dtype == np.float64 and np.isfinite(array).all()
                and (name != "scale" or (array > 0).all()), f"its array {name} cannot be used")


def logistic(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
