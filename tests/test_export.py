"""The exported model is the model."""
import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT

from tagging.errors import TaggingError
from tagging.evaluation.predict import make_tagger
from tagging.modeling.logmel import build_log_mel
from tagging.modeling.model import Model, ModelMetadata
from tagging.recipe import RECIPES, Recipe, Schedule
from tagging_lite.onnx import KIND, load_onnx
from tools.export import ConvolvedLogMel, synthetic_sounds, write_onnx

RATE = 16_000
CLASSES = ("a", "b", "c")


def build_model(seed=0, **knobs):
    """An untrained model, with images of another size than its log-mels."""
    recipe = Recipe(**{
        "network": "timm:test_resnet", "crop_seconds": 0.5, "mels": 32, "frames": 32, "mask_width": (0, 4),
        "curated": Schedule((1,), (1e-3,), (48,)), **knobs})
    torch.manual_seed(seed)
    return Model(ModelMetadata("curated", 1, CLASSES, RATE, recipe, mean=-30.0, std=15.0)).eval()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two models, and the file of both."""
    models, path = [build_model(0), build_model(1)], tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(copy.deepcopy(models), models, synthetic_sounds(8000), path)
    return models, path


@pytest.mark.parametrize("recipe", ["capstone", "smoke"])
@pytest.mark.parametrize("rate", [44_100, 16_000])
def test_the_convolved_front_end_is_the_front_end(recipe, rate):
    log_mel = build_log_mel(RECIPES[recipe], rate)
    waves = torch.randn(3, RECIPES[recipe].crop_samples(rate), generator=torch.Generator().manual_seed(0)) * 0.1
    waves[1, 5000:] = 0
    difference = (ConvolvedLogMel(log_mel)(waves) - log_mel(waves)).abs().max()
    assert difference < 1e-3        # dB


def test_a_model_that_pools_by_the_maximum_does_so_when_exported(tmp_path):
    models, path = [build_model(0, pooling="maximum"), build_model(1, pooling="maximum")], tmp_path / "model.onnx"
    assert write_onnx(copy.deepcopy(models), models, synthetic_sounds(8000), path) < 1e-5
    tagger, wave = load_onnx(path), np.random.default_rng(0).integers(-9000, 9000, 30_000, np.int16)
    np.testing.assert_allclose(tagger.tag(wave), make_tagger(models).tag(wave), atol=1e-5)
    mean = make_tagger([build_model(0), build_model(1)]).tag(wave)
    assert np.abs(tagger.tag(wave) - mean).max() > 1e-4


@pytest.mark.parametrize("samples", [1, 100, 3999, 8000, 8001, 12_000, 12_001, 100_003])
@pytest.mark.parametrize("batch", [1, 3])
def test_clips_of_any_length_and_number_get_torchs_probabilities(two, samples, batch):
    models, path = two
    waves = np.random.default_rng(samples).integers(-9000, 9000, (batch, samples), np.int16)
    session = onnxruntime.InferenceSession(path)
    probabilities, logits = session.run(None, {"waves": waves.astype(np.float32) / 32768})
    expected = np.stack([make_tagger(models).tag(wave) for wave in waves])
    assert probabilities.shape == (batch, len(CLASSES)) and logits.shape == (batch, 2, len(CLASSES))
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose((1 / (1 + np.exp(-logits))).mean(1), probabilities, atol=1e-6)


def test_the_file_says_what_it_hears_and_is_valid(two):
    models, path = two
    onnx.checker.check_model(path)
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert about["kind"] == KIND
    assert json.loads(about["model_info"]) == {"classes": list(CLASSES), "sample_rate": RATE, "window": 8000,
                                            "overlap": 0.5, "trim_db": 20.0, "pooling": "mean"}
    assert load_onnx(path).info == make_tagger(models).info


@pytest.mark.parametrize("change", [
    "no json", "[]", "{}", {"classes": None}, {"sample_rate": "fast"}, {"sample_rate": 0}, {"window": -1},
    {"overlap": 1.0}, {"trim_db": []}, {"classes": ["a", "b"]}])
def test_a_strange_description_is_refused(two, tmp_path, change):
    model = onnx.load(two[1])
    about = {entry.key: entry for entry in model.metadata_props}["model_info"]
    about.value = change if isinstance(change, str) else json.dumps(json.loads(about.value) | change)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(TaggingError, match="has invalid metadata"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("knobs", [
    {"network": "xresnet18"}, {"network": "timm:vit_tiny_patch16_224"}, {"normalise": False, "lighting": 0.0},
    {"window_overlap": 0.0, "top_db": 80.0}])
def test_other_networks_and_knobs(tmp_path, knobs):
    model = build_model(**knobs)
    assert write_onnx([copy.deepcopy(model)], [model], synthetic_sounds(8000), tmp_path / "model.onnx") < 1e-4


def test_a_file_that_differs_from_torch_is_not_written(tmp_path):
    with pytest.raises(TaggingError, match="was not written: its probabilities differ"):
        write_onnx([build_model(0)], [build_model(1)], synthetic_sounds(8000), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_one_fold_and_all_folds(trained, tmp_path):
    for name, words, models in (("one", ["--folds", "2"], 1), ("all", [], 2)):
        path = tmp_path / f"{name}.onnx"
        result = trained.call("tools/export.py", "--run", "first", "--models", trained.folder / "models", "--out", path,
                              *words)
        assert result.code == 0, result.err
        assert f"{models} models" in result.out and "differ from torch's by" in result.out
        logits, = onnxruntime.InferenceSession(path).run(["logits"], {"waves": np.zeros((1, 16_000), np.float32)})
        assert logits.shape == (1, models, 10)


def test_what_cannot_be_exported_is_said(trained, tmp_path, expect_error):
    call = lambda *words: trained.call("tools/export.py", "--models", trained.folder / "models", *words)  # noqa: E731
    expect_error(call("--run", "nothing"), "nothing", "train it first")
    expect_error(call("--run", "first", "--folds", "9"), "no finished fold 9")
    expect_error(call("--run", "first", "--out", tmp_path / "m.onnx", "--check", ROOT / "README.md"), "README.md",
                 "unreadable")
    assert not list(tmp_path.iterdir())
