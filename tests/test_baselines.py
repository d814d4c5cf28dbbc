"""The models: fitted, kept as arrays, and read again."""
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tagging.baselines import cache, models
from tagging.baselines.features import FEATURES
from tagging.baselines.forms import FORMS, FittedClasses
from tagging.baselines.models import BASELINES, Baseline, estimator_class, fit_classes
from tagging.baselines.runs import KIND, BaselineMetadata, BaselineModel, load_baseline
from tagging.errors import TaggingError
from tagging.modeling.weights import write_weights

# The same models, small.
SMALL = {"lightgbm": {"n_estimators": 8, "num_leaves": 5}, "histogram": {"max_iter": 8, "max_leaf_nodes": 5},
         "xgboost": {"n_estimators": 8}, "forest": {"n_estimators": 8, "n_jobs": 1},
         "extra-trees": {"n_estimators": 8, "n_jobs": 1}, "tabular": {"epochs": 2}}
NAMES = [pytest.param(name, marks=[] if importlib.util.find_spec(baseline.estimator.split(":")[0].split(".")[0])
                      else pytest.mark.skip(f"{baseline.package} is not installed"))
         for name, baseline in BASELINES.items()]
RNG = np.random.default_rng(0)
CLIPS = RNG.normal(0, 1, (90, len(FEATURES))).astype(np.float32)
TARGETS = np.stack([CLIPS[:, 0] > 0, CLIPS[:, 1] + CLIPS[:, 2] > 0.5, CLIPS[:, 3] > 1], 1).astype(np.uint8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, settings in SMALL.items():
        monkeypatch.setitem(BASELINES, name, replace(BASELINES[name], settings=BASELINES[name].settings | settings))


def fitted_by_library(name: str, monkeypatch) -> tuple[FittedClasses, list]:
    """A model, and the estimators of the library that it was converted from."""
    kept, baseline = [], BASELINES[name]

    def convert(estimators):
        kept.extend(estimators)
        return baseline.convert(estimators)
    monkeypatch.setitem(BASELINES, name, replace(baseline, convert=convert))
    return fit_classes(name, CLIPS, TARGETS, 0), kept


def library_probabilities(name: str, estimators: list) -> np.ndarray:
    """(clips, classes) by the library's own code."""
    if name == "tabular":
        with torch.inference_mode():
            scaled = torch.from_numpy(((CLIPS - estimators[0].mean) / estimators[0].scale).astype(np.float32))
            return estimators[0].network(torch.empty(len(CLIPS), 0), scaled).sigmoid().numpy()
    if BASELINES[name].joint:
        return np.stack([shares[:, 1] for shares in estimators[0].predict_proba(CLIPS)], 1)
    return np.stack([estimator.predict_proba(CLIPS)[:, 1] for estimator in estimators], 1)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", NAMES)
def test_a_model_predicts_as_its_library_does(name, monkeypatch, tmp_path):
    fitted, estimators = fitted_by_library(name, monkeypatch)
    found = fitted.probabilities(CLIPS)
    np.testing.assert_allclose(found, library_probabilities(name, estimators), atol=2e-6)
    assert found.std(0).min() > 0.01                     # it has learned something
    # The file gives the same bits, and so does a second fit.
    model = BaselineModel(metadata(name), fitted)
    model.save(tmp_path / "one.safetensors")
    np.testing.assert_array_equal(load_baseline(tmp_path / "one.safetensors").fitted.probabilities(CLIPS), found)
    BaselineModel(metadata(name), fit_classes(name, CLIPS, TARGETS, 0)).save(tmp_path / "two.safetensors")
    (one, about), (two, other) = (contents(tmp_path / f"{number}.safetensors") for number in ("one", "two"))
    assert about == other and one.keys() == two.keys() and all(one[key].equal(two[key]) for key in one)


def metadata(name: str, classes: int = 3) -> BaselineMetadata:
    return BaselineMetadata("curated", 1, tuple(f"class {number}" for number in range(classes)), 44_100, name,
                            BASELINES[name].settings, "", cache.VERSION, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_rare_classes(name):
    """A class with one clip, one without a clip, and one that all clips have."""
    rare = np.zeros((len(CLIPS), 3), np.uint8)
    rare[4, 0], rare[:, 2] = 1, 1
    targets = np.concatenate([TARGETS[:, :1], rare], 1)
    found = fit_classes(name, CLIPS, targets, 0).probabilities(CLIPS)
    assert found.shape == (90, 4) and np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()
    assert (found[:, 2] == np.float32(0.5 / 91)).all() and (found[:, 3] == np.float32(90.5 / 91)).all()
    assert found[:, 1].mean() < (0.6 if name == "tabular" else 0.4)     # two epochs move a network very little


@pytest.mark.parametrize("name", ["lightgbm", "tree", "logistic"])
def test_a_single_class_that_varies_is_enough(name):
    targets = np.stack([TARGETS[:, 0], np.zeros(90, np.uint8)], 1)
    found = fit_classes(name, CLIPS, targets, 0).probabilities(CLIPS)
    assert found[TARGETS[:, 0] == 1, 0].min() > found[TARGETS[:, 0] == 0, 0].mean()


def test_labels_that_are_all_the_same_are_refused():
    with pytest.raises(TaggingError, match=r"All 90 training clips have the same labels.* Add clips"):
        fit_classes("tree", CLIPS, np.ones((90, 3), np.uint8), 0)


def test_a_missing_package_has_a_remedy(monkeypatch):
    monkeypatch.setitem(BASELINES, "other", Baseline("other", "other-package", "no_such_module:Model", list))
    with pytest.raises(TaggingError, match=r"--model other needs a package .*`pip install other-package`"):
        estimator_class("other")


def test_every_entry_says_what_it_is():
    for name, baseline in BASELINES.items():
        assert name and baseline.summary and baseline.package and json.dumps(baseline.settings)
    assert models.available_cores() >= 1 and next(iter(BASELINES)) == "lightgbm"


# Model files.

@pytest.fixture
def model_file(tmp_path) -> Path:
    BaselineModel(metadata("lightgbm"), fit_classes("lightgbm", CLIPS, TARGETS, 0)).save(tmp_path / "fold1.safetensors")
    return tmp_path / "fold1.safetensors"


def contents(path: Path) -> tuple[dict, dict]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118


def test_a_damaged_file_is_refused(model_file):
    content = model_file.read_bytes()
    for damaged in (content[:-9], content[:-1] + bytes([content[-1] ^ 1]), b"", b"x" * 50):
        model_file.write_bytes(damaged)
        with pytest.raises(TaggingError, match=r"fold1\.safetensors is damaged.*Delete fold1\.json beside it and run "
                                               "tools.baseline again"):
            load_baseline(model_file)
    model_file.unlink()
    with pytest.raises(TaggingError, match=r"fold1\.safetensors is missing"):
        load_baseline(model_file)


def cyclic(tensors: dict) -> None:
    tensors["left"][0] = 0


def outside(tensors: dict) -> None:
    tensors["right"][-1] = 10**6


@pytest.mark.parametrize("change", [
    cyclic, outside, lambda tensors: tensors["feature"].fill_(len(FEATURES)),
    lambda tensors: tensors["feature"].fill_(-1), lambda tensors: tensors["roots"].fill_(-10**6),
    lambda tensors: tensors["class_of"].fill_(3), lambda tensors: tensors["values"].fill_(torch.nan),
    lambda tensors: tensors["varied"].fill_(1), lambda tensors: tensors["prior"].fill_(2),
    lambda tensors: tensors.pop("base"), lambda tensors: tensors.update(threshold=tensors["threshold"].float()),
    lambda tensors: tensors.update(roots=tensors["roots"][:0]),
    lambda tensors: tensors.update(left=tensors["left"][1:]),
    lambda tensors: tensors.update(varied=torch.tensor([0, 1, 7]))])
def test_arrays_that_do_not_fit_are_refused(model_file, change):
    tensors, about = contents(model_file)
    change(tensors)
    write_weights(model_file, KIND, tensors, about)
    with pytest.raises(TaggingError, match=r"fold1\.safetensors does not fit this version: "):
        load_baseline(model_file)


@pytest.mark.parametrize("change", [{"form": "pickle"}, {"features": 99}, {"classes": ["a"]}, {"classes": None},
                                    {"sample_rate": "fast"}, {"fold": True}, {"extra": 1}])
def test_a_description_that_does_not_fit_is_refused(model_file, change):
    tensors, about = contents(model_file)
    write_weights(model_file, KIND, tensors, about | change)
    with pytest.raises(TaggingError, match=r"fold1\.safetensors does not fit this version: "):
        load_baseline(model_file)


@pytest.mark.parametrize("name, array, value", [
    ("logistic", "weights", torch.nan), ("logistic", "scale", 0.0), ("tabular", "bias_2", torch.inf)])
def test_other_forms_are_checked_too(tmp_path, name, array, value):
    path = tmp_path / "fold1.safetensors"
    BaselineModel(metadata(name), fit_classes(name, CLIPS, TARGETS, 0)).save(path)
    tensors, about = contents(path)
    assert about["form"] in FORMS
    tensors[array].fill_(value)
    write_weights(path, KIND, tensors, about)
    with pytest.raises(TaggingError, match=f"its array {array} cannot be used"):
        load_baseline(path)
