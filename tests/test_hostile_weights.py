"""Hostile weights, models, checkpoints and code in pickles: each is read exactly, or refused."""
import copy
import io
import json
import os
import pickle
from collections import OrderedDict
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hostile import CASES, EDITS, damage, little_growth, little_room, outcome, put, refused, run_cases
from hostile import watchdog as watchdog  # pytest runs it around every test of this file
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from tagging.modeling.model import KIND, Model, ModelMetadata, load_model
from tagging.modeling.weights import checksum, read_weights, write_weights
from tagging.recipe import SMOKE
from tagging.training import checkpoint as checkpoints
from tagging.training.checkpoint import CheckpointWriter, Progress, load_checkpoint
from tagging.training.optimizer import Ranger, decay_groups

pytestmark = pytest.mark.slow       # thousands of generated cases
WEIGHTS_KIND = "hostile test 1"
TENSORS = {"a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7, "count": torch.tensor(5)}
ABOUT = {"name": "Möwe", "sizes": [1, 2.5, None], "deep": {"x": True}}
DTYPES = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "I16", "U16", "F16", "BF16", "I32",
          "U32", "F32", "F64", "I64", "U64", "C64", "Q4", "", 5, None]
LENGTHS = st.sampled_from([0, 1, 2, 8, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, 1.5, "1", None])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 2**70) | st.floats() | st.text(max_size=4),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
                    max_leaves=6)
ODD_TEXTS = ["", "{", "nonsense", "[" * 50_000, '{"a":' * 50_000, "1" * 5_000, "NaN", "\ud83d\udc15", "\0", "{}" * 2,
             '"' + "x" * 9_000, "{}{", "null", "true", '{"a": 1e999}', '{"a": ' + "9" * 5_000 + "}"]


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def container(header, data, length=None):
    """A safetensors file of any header."""
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def sealed(tensors, about, kind=WEIGHTS_KIND):
    """A file with a right checksum, as a stranger can make it too. None leaves the description out."""
    metadata = {"kind": kind, "checksum": checksum(tensors, about or "")}
    return save(tensors, metadata if about is None else metadata | {"about": about})


def foreign(marker):
    """Files that run code when they are unpickled, in all the wrappings that weights come in."""
    payload, (zipped, plain, array) = Payload(marker), (io.BytesIO() for _ in range(3))
    torch.save({"weights": payload}, zipped)
    torch.save({"weights": payload}, plain, _use_new_zipfile_serialization=False)
    np.save(array, np.array([payload], object), allow_pickle=True)
    pickles = [pickle.dumps(payload, protocol) for protocol in range(6)]
    code = pickles[2]
    return [*pickles, zipped.getvalue(), plain.getvalue(), array.getvalue(),
            container({"__metadata__": {"kind": WEIGHTS_KIND, "about": "{}"}}, code),
            sealed({"code": torch.frombuffer(bytearray(code), dtype=torch.uint8)}, "{}"), code + sealed(TENSORS, "{}"),
            sealed(TENSORS, json.dumps({"code": code.hex()})), sealed(TENSORS, "{}") + zipped.getvalue()]


def wrong_headers(whole):
    """Files whose header says something else, of its tensors or of its own length."""
    end = 8 + int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8:end]), whole[end:]

    def change(case):
        name, field, value = case
        changed = copy.deepcopy(header)
        if field == "entry":
            changed[name] = value
        elif isinstance(changed.get(name), dict):
            changed[name][field] = value
        return container(changed, data)
    names = st.sampled_from([*header, "new"])
    fields = st.sampled_from(["entry", "dtype", "shape", "data_offsets", "kind", "about", "checksum", "more"])
    values = st.sampled_from(DTYPES) | JSON | st.lists(LENGTHS, max_size=3)
    size = st.integers(0, 2**64 - 1) | st.integers(0, 2 * len(whole)) | st.sampled_from([10**8, 10**8 + 1, 2**63])
    return st.tuples(names, fields, values).map(change) | size.map(lambda length: container(header, data, length))


# Tensors without elements, whose other sides may be of any length.
EMPTIES = st.tuples(st.lists(LENGTHS, max_size=4), st.sampled_from(DTYPES)).map(lambda case: container(
    {"a": {"dtype": case[1], "shape": [0, *case[0]], "data_offsets": [0, 0]},
     "__metadata__": {"kind": WEIGHTS_KIND, "about": "{}", "checksum": ""}}, b""))


def same(tensors, others):
    return tensors.keys() == others.keys() and all(
        tensors[name].dtype == others[name].dtype and tensors[name].shape == others[name].shape
        and tensors[name].numpy().tobytes() == others[name].numpy().tobytes() for name in tensors)


@pytest.fixture
def whole(tmp_path):
    write_weights(tmp_path / "whole.safetensors", WEIGHTS_KIND, TENSORS, ABOUT)
    return (tmp_path / "whole.safetensors").read_bytes()


def check_weights(path):
    """The tensors and the description that were written, or an error."""
    result = outcome(path, read_weights, [WEIGHTS_KIND], "Remedy.")
    if refused(result):
        assert str(result).endswith("Remedy.")
    else:
        assert same(result[0], TENSORS) and result[1] == ABOUT


def test_any_file_of_weights_is_read_exactly_or_refused(tmp_path, whole):
    damaged = EDITS.map(lambda edits: damage(whole, edits))
    run_cases(lambda content: check_weights(put(tmp_path / "w.safetensors", content)),
              damaged | wrong_headers(whole) | EMPTIES | st.binary(max_size=100))


def test_every_flipped_bit_of_a_file_of_weights_is_found_or_without_effect(tmp_path, whole):
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        check_weights(put(tmp_path / "w.safetensors", bytes(content)))


def test_a_description_that_is_none_is_refused_though_its_checksum_is_right(tmp_path):
    def check(about):
        path = put(tmp_path / "w.safetensors", sealed(TENSORS, about))
        result = outcome(path, read_weights, [WEIGHTS_KIND], "Remedy.")
        if not refused(result):
            assert isinstance(result[1], dict) and repr(result[1]) == repr(json.loads(about))
    texts = st.none() | st.sampled_from([text for text in ODD_TEXTS if text.isprintable()]) | JSON.map(json.dumps)
    run_cases(check, texts, CASES // 10)


def test_weights_from_strangers_cannot_run_code(tmp_path):
    marker = tmp_path / "code was run"
    pickle.loads(pickle.dumps(Payload(marker)))
    marker.rmdir()                              # the payload is a true one
    files = foreign(marker)

    def check(case):
        path = put(tmp_path / "w.safetensors", damage(*case))
        outcome(path, read_weights, [WEIGHTS_KIND], "")
        outcome(path, load_model)
        assert not marker.exists()
    run_cases(check, st.tuples(st.sampled_from(files), st.just([]) | EDITS), CASES // 2)
    for content in files:
        check((content, []))


# A small network of timm's: the files are of 1.5 MB, so the cases of whole models are fewer.
RECIPE = replace(SMOKE, network="timm:test_resnet", crop_seconds=0.25, mels=32, frames=32,
                 noisy=replace(SMOKE.noisy, sizes=(32,)), curated=replace(SMOKE.curated, sizes=(32,)))
MODEL = ModelMetadata("curated", 1, ("Bark", "Meow"), 16_000, RECIPE, -31.25, 12.5, 0.875)
ODD_VALUES = [None, True, 0, -1, 1, 1.5, 10**6, 10**9, 10**400, float("inf"), float("nan"), 1e-300, "", "x", [], [0],
              [10**9], ["x"], [[]], {}, {"x": 1}, "timm:", "timm:hf-hub:timm/x", "timm:test_resnet.none", "../x"]
REMOVE = object()       # stands for no value at all
STAGE = [*asdict(RECIPE.noisy), "more"]
PLACES = [*((name,) for name in [*asdict(MODEL), "more"]), *(("recipe", name) for name in [*asdict(RECIPE), "more"]),
          *(("recipe", stage, name) for stage in ("noisy", "curated") for name in STAGE)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model(MODEL).eval()


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "fold1.safetensors"
    model.save(path)
    return path.read_bytes()


def test_a_damaged_model_is_the_same_or_refused(tmp_path, model, model_file):
    def check(edits):
        loaded = outcome(put(tmp_path / "m.safetensors", damage(model_file, edits)), load_model)
        if not refused(loaded):
            assert loaded.metadata == model.metadata and same(loaded.network.state_dict(), model.network.state_dict())
    edits = EDITS.map(lambda edits: [(kind, place % (9000 if value % 2 else 2**24), value)
                                     for kind, place, value in edits])     # the header is 9000 bytes of 1.5 million
    run_cases(check, edits, CASES // 20)


def change(about, names, value):
    """A copy of a description with one value replaced, added, or removed: REMOVE."""
    about = inner = json.loads(json.dumps(about))
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = value
    if value is REMOVE:
        del inner[names[-1]]
    return about


def sealed_model(model, about):
    return sealed(model.network.state_dict(), json.dumps(about), KIND)


def test_a_model_of_any_description_can_be_used_or_is_refused(tmp_path, model):
    wave = torch.randint(-9000, 9000, (1, 4000), dtype=torch.int16)

    def check(case):
        about = change(asdict(MODEL), *case)
        loaded = outcome(put(tmp_path / "m.safetensors", sealed_model(model, about)), load_model)
        if not refused(loaded):
            with torch.inference_mode():
                assert loaded(wave).shape == (1, len(about["classes"]))
            assert all(isinstance(name, str) for name in loaded.metadata.classes)
            assert loaded.metadata.score is None or f"{loaded.metadata.score:.4f}"
    with little_room():
        run_cases(check, st.tuples(st.sampled_from(PLACES), st.sampled_from([*ODD_VALUES, *[REMOVE] * 3])), CASES // 10)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux forgets a peak")
@pytest.mark.parametrize("wanted", [{"network": "timm:resnet152"}, {"network": "xresnet101"}, {"mels": 100_000}],
                         ids=["timm", "xresnet", "mels"])
def test_a_small_file_cannot_ask_for_a_large_network(tmp_path, model, wanted):
    about = asdict(MODEL)
    load_model(put(tmp_path / "good.safetensors", sealed_model(model, about)))
    about["recipe"] |= wanted
    path = put(tmp_path / "m.safetensors", sealed_model(model, about))
    with little_room(), little_growth(path):
        assert refused(outcome(path, load_model, seconds=10))


class Small(Model):
    """What a checkpoint needs of a model, without the network."""

    def __init__(self):
        nn.Module.__init__(self)
        self.metadata, self.network = MODEL, nn.Sequential(OrderedDict(head=nn.Linear(3, 2)))


def trained_small(steps=7):
    torch.manual_seed(0)
    model = Small()
    optimiser = Ranger(decay_groups(model.network), 0.1)
    for _ in range(steps):
        model.network(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    return model, optimiser


@pytest.fixture
def progress_file(tmp_path):
    path = tmp_path / "whole.safetensors"
    progress = Progress([{"epoch": 1, "loss": 0.5}], 2, [torch.tensor(0.5), torch.tensor(0.25)])
    writer = CheckpointWriter(path)
    writer.write(*trained_small(), progress)
    writer.wait()
    return path


def load_progress(path):
    model, optimiser = trained_small(0)
    return load_checkpoint(path, model, optimiser), model, optimiser


def test_a_damaged_checkpoint_is_the_same_or_refused(tmp_path, progress_file):
    content, (right, before, _) = progress_file.read_bytes(), load_progress(progress_file)

    def check(edits):
        result = outcome(put(tmp_path / "c.safetensors", damage(content, edits)), load_progress)
        if not refused(result):
            assert vars(result[0]) == vars(right) and same(result[1].state_dict(), before.state_dict())
    run_cases(check, EDITS, CASES // 4)


def test_a_checkpoint_of_another_version_is_refused(tmp_path, progress_file):
    tensors, about, _ = read_weights(progress_file, [checkpoints.KIND], "")
    tensors = {name: value.clone() for name, value in tensors.items()}
    odd = [torch.zeros(0), torch.zeros(5, 5), torch.tensor(1), torch.zeros(2, dtype=torch.bool), None]

    def check(case):
        name, tensor, key, value, remove = case
        changed = {**tensors, **({name: tensor} if name else {})}
        said = {**about, **({key: value} if key else {})}
        if remove:
            said.pop(key, None)
        content = sealed({name: value for name, value in changed.items() if value is not None}, json.dumps(said),
                         checkpoints.KIND)
        result = outcome(put(tmp_path / "c.safetensors", content), load_progress)
        if not refused(result):
            assert result[0].epoch >= 0 and result[0].step >= 0
    run_cases(check, st.tuples(st.sampled_from(["", *tensors]), st.sampled_from(odd), st.sampled_from(["", *about]),
                               st.sampled_from(ODD_VALUES), st.booleans()), CASES // 4)
