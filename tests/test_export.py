"""The exported model is the model."""
import copy
import hashlib
import json
import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import soundfile
import torch
from conftest import ROOT

from tagging.errors import TaggingError
from tagging.evaluation.predict import make_tagger
from tagging.modeling.logmel import build_log_mel
from tagging.modeling.model import Model, ModelMetadata
from tagging.recipe import RECIPES, Recipe, Schedule
from tagging_lite.audio import RemoveSilence
from tagging_lite.onnx import KIND, format_info, load_onnx, parse_info
from tagging_lite.tagger import ModelInfo
from tagging_lite.windows import cut_windows, place_windows
from tools import clip_graph
from tools.clip_graph import ClipGraph
from tools.export import ConvolvedLogMel, replace_mish, synthetic_sounds, write_onnx

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


@pytest.mark.parametrize("samples", [2, 100, 3999, 8000, 8001, 12_000, 12_001, 100_003])
@pytest.mark.parametrize("batch", [1, 3])
def test_clips_of_any_length_and_number_get_torchs_probabilities(two, samples, batch):
    models, path = two
    waves = np.random.default_rng(samples).integers(-9000, 9000, (batch, samples), np.int16)
    session = onnxruntime.InferenceSession(path)
    probabilities, logits, features = session.run(None, {"waves": waves.astype(np.float32) / 32768})
    expected = np.stack([make_tagger(models).tag(wave) for wave in waves])
    assert probabilities.shape == (batch, len(CLASSES)) and logits.shape == (batch, 2, len(CLASSES))
    assert features.shape[:2] == (batch, 2)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose((1 / (1 + np.exp(-logits))).mean(1), probabilities, atol=1e-6)


def test_the_file_contains_the_classes_and_settings_and_is_valid(two):
    models, path = two
    onnx.checker.check_model(path)
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert about["kind"] == KIND
    assert json.loads(about["model_info"]) == {"classes": list(CLASSES), "sample_rate": RATE, "window": 8000,
                                            "overlap": 0.5, "trim_db": 20.0, "pooling": "mean",
                                            "thresholds": [], "precisions": []}
    found, expected = load_onnx(path), make_tagger(models)
    assert found.info == expected.info and found.checksum == expected.checksum != make_tagger(models[:1]).checksum
    assert found.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_axes_have_names_and_the_trimming_is_optional(two):
    session = onnxruntime.InferenceSession(two[1])
    shapes = {value.name: value.shape for value in [*session.get_inputs(), *session.get_outputs()]}
    features = shapes.pop("features")
    assert shapes == {"waves": ["batch", "samples"], "probabilities": ["batch", 3], "logits": ["batch", 2, 3]}
    assert features[:2] == ["batch", 2] and isinstance(features[2], int)
    assert [value.name for value in session.get_overridable_initializers()] == ["trim_db"]


def test_the_fourier_kernels_are_stored_once(two):
    kernels = ConvolvedLogMel(two[0][0].log_mel).kernels
    shapes = [tuple(each.dims) for each in onnx.load(two[1]).graph.initializer]
    assert shapes.count(tuple(kernels.shape)) == 1


def silent_ends(rng, samples, loud, quiet):
    """Noise of amplitude `loud`, and at both ends of `quiet`: (samples,) int16."""
    first, last = np.sort(rng.integers(0, samples + 1, 2))
    amplitude = np.full(samples, quiet, float)
    amplitude[first:last] = loud
    return (amplitude * rng.uniform(-1, 1, samples)).astype(np.int16)


@pytest.fixture(scope="module")
def sums():
    """A function for a session that trims as an exported model does. Its logits are two sums of the windows."""
    def build(rate=RATE, trim_db=20.0, window=4000, overlap=0.5):
        info = ModelInfo(("sum", "weighted sum"), rate, window, overlap, trim_db)
        weights = torch.nn.Linear(window, 2, bias=False)
        with torch.no_grad():
            weights.weight[0], weights.weight[1] = 1.0, torch.linspace(-1, 1, window)
        program = torch.onnx.export(Windowed(weights).eval(), (torch.zeros(2, window),), dynamo=True, verbose=False,
                                    dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        ClipGraph(program.model.graph, info).wrap()
        return onnxruntime.InferenceSession(ir.to_proto(program.model).SerializeToString())
    return build


class Windowed(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, windows):
        values = self.weights(windows)[:, None]
        return values, values


@pytest.mark.parametrize("rate, trim_db, overlap", [(16_000, 20.0, 0.5), (44_100, 20.0, 0.0), (8000, 45.3, 0.75)])
def test_the_graph_finds_the_silence_and_places_the_windows_as_the_tagger_does(sums, rate, trim_db, overlap):
    session = sums(rate, trim_db, overlap=overlap)
    trim, rng, hop, trimmed = RemoveSilence(trim_db), np.random.default_rng(0), int(0.02 * rate), 0
    for samples in (2, 3, hop - 1, hop, hop + 1, 1023, 1024, 1025, 2047, 2048, 2049, 3999, 4000, 4001, 30 * hop - 1,
                    30 * hop, 30 * hop + 1, *rng.integers(2, 40_000, 60)):
        wave = silent_ends(rng, int(samples), 10_000, 10 ** rng.uniform(0, 3))
        if samples % 3 == 0:        # energies at exactly 20 dB below the loudest
            wave = np.where(np.abs(wave) >= 1000, 10_000, 1000).astype(np.int16)
            wave[0] = -wave[0]
        start, stop = trim.bounds(wave, rate)
        trimmed += stop - start < samples
        windows = cut_windows(wave[start:stop], place_windows(np.array([stop - start]), 4000, overlap)[1], 4000) / 32768
        expected = np.stack([windows.sum(1), windows @ np.linspace(-1, 1, 4000)], 1).mean(0)
        logits, = session.run(["logits"], {"waves": wave[None].astype(np.float32) / 32768})
        np.testing.assert_allclose(logits[0, 0], expected, atol=2e-3)
    assert trimmed > 10


def test_each_clip_of_a_batch_gets_what_it_gets_alone(two):
    rng, session = np.random.default_rng(0), onnxruntime.InferenceSession(two[1])
    waves = np.stack([silent_ends(rng, 60_000, 9000, 3) for _ in range(5)] + [np.zeros(60_000, np.int16)])
    waves = waves.astype(np.float32) / 32768
    together = session.run(None, {"waves": waves})
    for place, wave in enumerate(waves):
        for alone, row in zip(session.run(None, {"waves": wave[None]}), together):
            np.testing.assert_allclose(alone[0], row[place], atol=1e-5)
    assert np.ptp(together[0][:5], axis=0).max() > 1e-3


@pytest.mark.parametrize("waves", [np.zeros((2, 9000)), np.full((2, 9000), 0.25), np.zeros((2, 1)), np.zeros((2, 0))])
def test_silence_has_no_tags(two, waves):
    session = onnxruntime.InferenceSession(two[1])
    probabilities, logits, features = session.run(None, {"waves": waves.astype(np.float32)})
    assert (probabilities == 0).all() and (logits == -np.inf).all() and (features == 0).all()
    as_it_is, = session.run(["probabilities"], {"waves": waves.astype(np.float32), "trim_db": np.array(-1, np.float32)})
    assert (as_it_is > 0).all()


def test_the_tagger_of_the_file_is_that_of_torch(two, tmp_path):
    rng = np.random.default_rng(1)
    for samples in (5000, 70_001):
        soundfile.write(tmp_path / "a.wav", silent_ends(rng, samples, 9000, 3), RATE)
        expected = make_tagger(two[0]).tag_file(tmp_path / "a.wav", timeline=True, embeddings=True)
        found = load_onnx(two[1]).tag_file(tmp_path / "a.wav", timeline=True, embeddings=True)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
        np.testing.assert_allclose(found.timeline, expected.timeline, atol=1e-5)
        np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)
        np.testing.assert_allclose(found.timeline_embeddings, expected.timeline_embeddings, atol=1e-5)
        assert found.embedding.shape == (2 * two[0][0].network.head.in_features,)
        parts = np.linalg.norm(found.embedding.reshape(2, -1), axis=1)
        np.testing.assert_allclose(parts, 1, atol=1e-6)
    assert found.timeline_embeddings.shape == (5, *found.embedding.shape)


def test_features_of_the_file_are_the_embedding(two, tmp_path):
    wave = silent_ends(np.random.default_rng(2), 50_000, 9000, 3)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    features, = onnxruntime.InferenceSession(two[1]).run(["features"], {"waves": wave[None].astype(np.float32) / 32768})
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    expected = make_tagger(two[0]).tag_file(tmp_path / "a.wav", embeddings=True).embedding
    np.testing.assert_allclose((features / lengths).reshape(-1), expected, atol=1e-5)


@pytest.mark.slow
def test_weights_as_float16_take_half_the_space(tmp_path):
    model = build_model(network="timm:resnet10t")
    sizes = []
    for half in (False, True):
        path = tmp_path / f"{half}.onnx"
        write_onnx([copy.deepcopy(model)], [model], synthetic_sounds(8000), path, half=half)
        sizes.append(path.stat().st_size)
        onnx.checker.check_model(path)
    assert sizes[1] < 0.6 * sizes[0]
    wave = synthetic_sounds(8000)[-1]
    assert 0 < np.abs(load_onnx(path).tag(wave) - make_tagger([model]).tag(wave)).max() < 1e-3


@pytest.mark.slow
def test_float16_that_changes_the_tags_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_graph, "SMALL_WEIGHT", 1000)
    model = build_model()
    with torch.no_grad():       # the greatest number of float16 is 65504
        next(each for each in model.network.body.parameters() if each.numel() > 1000).mul_(1e8)
    with pytest.raises(TaggingError, match=r"more than 0.001. Export without --fp16"):
        write_onnx([copy.deepcopy(model)], [model], synthetic_sounds(8000), tmp_path / "model.onnx", half=True)
    assert not list(tmp_path.iterdir())


def test_thresholds_survive_the_metadata():
    info = ModelInfo(("a", "b"), RATE, 8000, 0.5, 20.0, "mean", (0.25, math.inf), (((0.5, 0.1), (1.0, 0.3)), ()))
    assert "Infinity" not in format_info(info) and parse_info(format_info(info)) == info


@pytest.mark.parametrize("change", [
    "no json", "[]", "{}", {"classes": None}, {"sample_rate": "fast"}, {"sample_rate": 0}, {"window": -1},
    {"overlap": 1.0}, {"trim_db": []}, {"classes": ["a", "b"]}, {"thresholds": [0.5]}, {"precisions": [[], [1], []]}])
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


def test_mish_is_computed_with_exp(tmp_path):
    values = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["count"]))
    mish = ir.node("Mish", [values])
    result = ir.node("Identity", mish.outputs)
    result.outputs[0].name, result.outputs[0].type, result.outputs[0].shape = "y", values.type, values.shape
    graph = ir.Graph([values], result.outputs, nodes=[mish, result], opset_imports={"": 18}, name="mish")
    replace_mish(graph)
    assert "Mish" not in [each.op_type for each in graph]
    ir.save(ir.Model(graph, ir_version=9), tmp_path / "mish.onnx")
    numbers = np.concatenate([np.linspace(-120, 120, 4001), [-1e30, 1e30, 0]]).astype(np.float32)
    found, = onnxruntime.InferenceSession(tmp_path / "mish.onnx").run(None, {"x": numbers})
    expected = torch.nn.functional.mish(torch.from_numpy(numbers)).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
