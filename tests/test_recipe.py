"""The knobs, their limits, and the named recipes."""
import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from tagging.errors import TaggingError
from tagging.modeling.logmel import build_log_mel
from tagging.recipe import CAPSTONE, CAPSTONE_EXECUTED, PODIUM, RECIPES, SMOKE, Schedule
from tagging.settings import recipe_from_dict
from tagging_lite.audio import make_trim


def knobs_of(recipe):
    """As they come back from a file."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def flat(recipe):
    knobs = dataclasses.asdict(recipe)
    for stage in ("noisy", "curated"):
        knobs |= {f"{stage}.{name}": value for name, value in knobs.pop(stage).items()}
    return knobs


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    assert recipe_from_dict(knobs_of(RECIPES[name])) == RECIPES[name]


def test_an_unknown_knob_is_named():
    with pytest.raises(TaggingError, match="The knobs reverb are unknown"):
        recipe_from_dict(knobs_of(CAPSTONE) | {"reverb": 1})


def test_a_missing_knob_is_named():
    knobs = knobs_of(CAPSTONE)
    del knobs["top_db"]
    with pytest.raises(TaggingError, match="The knobs top_db are missing"):
        recipe_from_dict(knobs)


def test_a_knob_from_a_file_is_checked_as_one_from_the_command_line():
    with pytest.raises(TaggingError, match="--batch-size"):
        recipe_from_dict(knobs_of(CAPSTONE) | {"batch_size": 1})


def test_true_is_no_number():
    with pytest.raises(TaggingError, match="top_db has a wrong value: True"):
        recipe_from_dict(knobs_of(CAPSTONE) | {"top_db": True})


@pytest.mark.parametrize("flag, changes", [
    ("--trim-db", {"trim_db": -1.0}),
    ("--crop-seconds", {"crop_seconds": 0.0}),
    ("--crop-seconds", {"crop_seconds": 60.1}),
    ("--crop-seconds", {"crop_seconds": float("nan")}),
    ("--window-overlap", {"window_overlap": -0.1}),
    ("--window-overlap", {"window_overlap": 1.0}),
    ("--n-window", {"n_window": 15}),
    ("--n-fft", {"n_fft": 1000, "n_window": 1001}),
    ("--mels", {"mels": 7}),
    ("--frames", {"frames": 7}),
    ("--f-min", {"f_min": -1.0}),
    ("--f-max", {"f_min": 500.0, "f_max": 500.0}),
    ("--top-db", {"top_db": 0.0}),
    ("--mask-width", {"mask_width": (-1, 8)}),
    ("--mask-width", {"mask_width": (8, 4)}),
    ("--lighting", {"lighting": 1.0}),
    ("--lighting", {"lighting": -0.1}),
    ("--lighting", {"lighting_chance": 1.1}),
    ("--lighting", {"lighting_chance": -0.1}),
    ("--normalise", {"normalise": False}),
    ("--batch-size", {"batch_size": 1}),
    ("--noisy-share", {"noisy_share": 1.0}),
    ("--noisy-share", {"noisy_share": -0.1}),
    ("--epoch-windows", {"epoch_windows": -1}),
    ("--view-speeds", {"view_speeds": (1.0, 0.49)}),
    ("--view-speeds", {"view_speeds": (2.01,)}),
    ("--view-speeds", {"view_speeds": (float("nan"),)}),
])
def test_a_knob_out_of_its_range_is_named(flag, changes):
    with pytest.raises(TaggingError, match=flag):
        replace(CAPSTONE, **changes)


@pytest.mark.parametrize("stage", ["noisy", "curated"])
@pytest.mark.parametrize("knob, changes", [
    ("epochs", {"epochs": (1, 2, 3)}),
    ("lrs", {"lrs": (1e-3, 1e-3, 1e-3)}),
    ("sizes", {"sizes": (64, 64, 64)}),
    ("epochs", {"epochs": (0,), "lrs": (1e-3,), "sizes": (64,)}),
    ("lrs", {"epochs": (1,), "lrs": (0.0,), "sizes": (64,)}),
    ("lrs", {"epochs": (1,), "lrs": (10.0,), "sizes": (64,)}),
    ("sizes", {"epochs": (1,), "lrs": (1e-3,), "sizes": (31,)}),
    ("mixup", {"mixup": -0.1}),
    ("speed", {"speed": 1.1}),
    ("speed", {"speed": -0.1}),
    ("wave-mix", {"wave_mix": 1.1}),
    ("wave-mix", {"wave_mix": -0.1}),
])
def test_a_knob_of_a_stage_out_of_its_range_is_named(stage, knob, changes):
    with pytest.raises(TaggingError, match=f"--{stage}.{knob}"):
        replace(CAPSTONE, **{stage: replace(getattr(CAPSTONE, stage), **changes)})


def test_a_recipe_can_be_without_stage_1_and_not_without_stage_2():
    nothing = Schedule(epochs=(), lrs=(), sizes=())
    assert replace(CAPSTONE, noisy=nothing).noisy.epochs == ()
    with pytest.raises(TaggingError, match=r"--curated\.epochs needs a value"):
        replace(CAPSTONE, curated=nothing)


@pytest.mark.parametrize("changes", [
    {"trim_db": 0.0}, {"crop_seconds": 60.0}, {"window_overlap": 0.0}, {"n_fft": 16, "n_window": 16},
    {"mels": 8, "frames": 8}, {"f_min": 0.0}, {"mask_width": (0, 0)}, {"lighting": 0.0, "normalise": False},
    {"lighting_chance": 1.0}, {"batch_size": 2}, {"epoch_windows": 0},
    {"view_speeds": (0.5, 2.0)}])
def test_the_limits_themselves_are_allowed(changes):
    assert flat(replace(CAPSTONE, **changes)) == flat(CAPSTONE) | changes


def test_no_trim_keeps_the_silence():
    assert make_trim(0.0) is None
    assert make_trim(33.0).threshold == 33


def test_capstones_front_end_is_the_published_one():
    front = build_log_mel(CAPSTONE, 44_100)
    assert (front.n_fft, len(front.window), front.hop, front.top_db) == (2560, 1024, 690, 60)
    assert CAPSTONE.crop_samples(44_100) == 88_200
    assert front(torch.zeros(1, 88_200)).shape == (1, 1, 128, 128)


def test_the_front_end_lasts_as_long_at_another_rate():
    front = build_log_mel(CAPSTONE, 16_000)
    for samples, at_44100 in ((front.n_fft, 2560), (len(front.window), 1024), (front.hop, 690)):
        assert samples / 16_000 == pytest.approx(at_44100 / 44_100, abs=1 / 16_000)
    assert CAPSTONE.crop_samples(16_000) == 32_000
    assert front(torch.zeros(1, 32_000)).shape == (1, 1, 128, 128)


def test_frequencies_above_half_the_rate_are_not_asked_for():
    """Filters up to 20 kHz at 16 kHz would leave the upper rows without a frequency."""
    assert (build_log_mel(CAPSTONE, 16_000).bank.sum(1) > 0).all()


def test_capstone_and_what_was_executed_differ_in_just_these_knobs():
    described, executed = flat(CAPSTONE), flat(CAPSTONE_EXECUTED)
    assert {name: value for name, value in executed.items() if described[name] != value} == {
        "normalise": False, "lighting": 0.0, "mask_width": (8, 8), "noisy.sizes": (128, 128), "curated.sizes": (128,)}


def test_capstone_is_the_published_schedule():
    knobs = flat(RECIPES["capstone"])
    assert knobs["noisy.epochs"] == (10, 10) and knobs["noisy.lrs"] == (3e-3, 1e-3)
    assert knobs["noisy.sizes"] == (128, 256) and knobs["noisy.mixup"] == 0
    assert knobs["curated.epochs"] == (50,) and knobs["curated.lrs"] == (3e-4,)
    assert knobs["curated.sizes"] == (256,) and knobs["curated.mixup"] == 0.4
    assert (knobs["network"], knobs["fold_count"], knobs["fold_seed"], knobs["batch_size"]) == ("xresnet50", 5, 42, 64)


def test_podium_sees_more_crops_than_capstone_and_fewer_pixels():
    """Of four fifths of 4,964 curated and 19,815 noisy clips, in whole batches."""
    capstone = [(clips // 64 * 64 * epochs, size)
                for clips, schedule in ((15_852, CAPSTONE.noisy), (3971, CAPSTONE.curated))
                for epochs, size in zip(schedule.epochs, schedule.sizes)]
    own = 3971 // round(64 * (1 - PODIUM.noisy_share)) * 64 * sum(PODIUM.curated.epochs)
    assert own == pytest.approx(1.54 * sum(crops for crops, _ in capstone), rel=0.01)
    pixels = sum(crops * size**2 for crops, size in capstone)
    assert PODIUM.curated.sizes == (128,) and own * 128**2 < 0.6 * pixels


def test_the_smoke_recipe_goes_the_same_way_in_small():
    assert SMOKE.network == "xresnet18" and max(SMOKE.noisy.sizes + SMOKE.curated.sizes) <= 64
    assert SMOKE.lighting and SMOKE.normalise and SMOKE.curated.mixup and SMOKE.mask_width[1]
