"""A model as a file, and its images."""
import json
import os
import resource
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save

from tagging.errors import TaggingError
from tagging.modeling.model import KIND, Model, ModelMetadata, load_model
from tagging.modeling.transforms import resize
from tagging.modeling.weights import write_weights
from tagging.recipe import SMOKE
from tagging.utils.devices import choose_device

# A small network of timm's: the files are of 1.5 MB.
RECIPE = replace(SMOKE, network="timm:test_resnet", crop_seconds=0.25, mels=32, frames=32,
                 noisy=replace(SMOKE.noisy, sizes=(48,)), curated=replace(SMOKE.curated, sizes=(32,)))
ABOUT = ModelMetadata("curated", 3, ("Bark", "Meow", 'Drawer "open" & close', "Ñandú"), 16_000, RECIPE, -31.25, 12.5,
                      0.875)


def waves(count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-9000, 9000, (count, 4000), dtype=torch.int16, generator=generator)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Model(ABOUT)
    model.train()
    model.network(torch.randn(8, 1, 32, 32))       # so that the running statistics are not those of a new network
    return model.eval()


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "run" / "fold3.safetensors"
    model.save(path)
    return path


def header_of(path):
    """Of safetensors: eight bytes of length, JSON, then nothing but numbers."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + length]), 8 + length


def test_a_model_comes_back_bit_for_bit(model, path):
    loaded = load_model(path)
    before, after = model.network.state_dict(), loaded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(waves()), model(waves()))


def test_a_file_says_all_that_rebuilds_its_model(path):
    assert load_model(path).metadata == ABOUT


def test_a_file_holds_text_and_numbers_and_nothing_that_runs(path):
    header, start = header_of(path)
    metadata = header.pop("__metadata__")
    assert json.loads(metadata["about"])["recipe"]["network"] == "timm:test_resnet"
    places = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    ends = [end for _, end in places]
    assert [first for first, _ in places] == [0, *ends[:-1]]                # tensors without a gap, to the file's end
    assert start + ends[-1] == path.stat().st_size
    assert {entry["dtype"] for entry in header.values()} <= {"F32", "I64"}
    assert load_file(path).keys() == header.keys()                          # any other program can read it


def test_saving_over_a_model_replaces_it(model, path):
    other = Model(replace(ABOUT, fold=4))
    other.save(path)
    assert load_model(path).metadata.fold == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("room", [0, 100_000])
def test_a_disk_that_is_full_is_told_and_keeps_the_earlier_file(model, path, room):
    content = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(TaggingError, match=r"fold3\.safetensors could not be written: File too large"):
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_flipped_bit_anywhere_in_the_weights_is_found(path, share):
    data = bytearray(path.read_bytes())
    start = header_of(path)[1]
    data[start + round(share * (len(data) - 1 - start))] ^= 1
    path.write_bytes(data)
    with pytest.raises(TaggingError, match=r"fold3\.safetensors is damaged: its checksum is wrong"):
        load_model(path)


def test_a_changed_digit_in_the_description_is_found(path):
    data = path.read_bytes()
    assert data.count(b"-31.25") == 1
    path.write_bytes(data.replace(b"-31.25", b"-91.25"))
    with pytest.raises(TaggingError, match=r"fold3\.safetensors is damaged: its checksum is wrong"):
        load_model(path)


def truncate(path, share):
    os.truncate(path, int(share * path.stat().st_size))


def rewrite(path, **changes):
    """Write the file again with other metadata; None leaves an entry out."""
    metadata = header_of(path)[0]["__metadata__"] | changes
    content = save(load_file(path), {name: value for name, value in metadata.items() if value is not None})
    path.write_bytes(content)


def rewrite_about(path, **changes):
    """Write the file again with another description, and the checksum of that."""
    about = json.loads(header_of(path)[0]["__metadata__"]["about"]) | changes
    write_weights(path, KIND, load_file(path), {name: value for name, value in about.items() if value is not None})


@pytest.mark.parametrize("harm, told", [
    (lambda path: path.unlink(), "is missing"),
    (lambda path: truncate(path, 0), "is damaged"),
    (lambda path: truncate(path, 0.5), "is damaged"),
    (lambda path: truncate(path, 0.001), "is damaged"),
    (lambda path: os.truncate(path, path.stat().st_size - 1), "is damaged"),
    (lambda path: path.write_bytes(path.read_bytes() + b"more"), "is damaged"),
    (lambda path: path.write_text("404: not found\n" * 99), "is damaged"),
    (lambda path: torch.save({"weights": torch.zeros(3)}, path), "is damaged"),
    (lambda path: path.write_bytes(save({"weights": torch.zeros(3)})), "of kind ''"),
    (lambda path: rewrite(path, kind="audio-tagging model 0"), "of kind 'audio-tagging model 0'"),
    (lambda path: rewrite(path, checksum=None), "checksum"),
    (lambda path: rewrite(path, about=None), "checksum"),
    (lambda path: rewrite_about(path, classes=None), "'classes'"),
    (lambda path: rewrite_about(path, colour="red"), "'colour'"),
    (lambda path: rewrite_about(path, recipe={"noisy": {}, "curated": {}}), "network"),
    (lambda path: rewrite_about(path, classes=["one", "class", "fewer"]), "tensors do not match"),
], ids=["missing", "empty", "half", "header cut", "one byte cut", "one byte more", "text", "pickle", "no metadata",
        "kind", "no checksum", "no about", "no classes", "unknown field", "no knobs", "other classes"])
def test_a_file_that_is_none_of_ours_is_named_with_its_remedy(path, harm, told):
    harm(path)
    with pytest.raises(TaggingError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and told in message
    assert "beside it and train again" in message


def test_images_are_normalised(model):
    torch.testing.assert_close(model.images(waves()), (model.log_mel(waves()) + 31.25) / 12.5)


@pytest.mark.parametrize("stage, size", [("noisy", 48), ("curated", 32)])
def test_images_are_scored_at_the_size_that_the_stage_ends_on(model, stage, size):
    own = Model(replace(ABOUT, stage=stage))
    image = model.images(waves(1))
    assert torch.equal(own.resize(image), resize(image, size))
    assert own.resize(image, 40).shape == (1, 1, 40, 40)                   # another, while a cycle says so


def test_a_network_of_one_size_gets_it_in_both_stages():
    recipe = replace(RECIPE, network="timm:test_vit")
    for stage in ("noisy", "curated"):
        own = Model(replace(ABOUT, stage=stage, recipe=recipe))
        assert own.resize(torch.zeros(1, 1, 32, 20), 48).shape == (1, 1, 32, 32)
        assert own(waves(1)).shape == (1, 4)


def test_update_sets_what_is_known_later():
    own = Model(replace(ABOUT, mean=0.0, std=1.0, score=None))
    own.update(mean=-31.25, std=12.5, score=0.875)
    assert own.metadata == ABOUT


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda size, device: zeros(size))       # a GPU that works
    for available, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=available: answer)
        assert choose_device("auto").type == kind
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "gpu", "cuda:99", ""])
def test_a_device_that_is_not_here_is_told_with_the_choice(monkeypatch, name):
    if name == "cuda" and torch.cuda.is_available():
        def absent(*shape, device):
            raise RuntimeError("Found no NVIDIA driver")
        monkeypatch.setattr(torch, "zeros", absent)
    with pytest.raises(TaggingError, match=f"--device {name} cannot be used here: .*Choose auto, cpu or cuda"):
        choose_device(name)
