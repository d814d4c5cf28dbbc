"""Where windows lie, and what becomes of them."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagging.data import waveforms
from tagging.data.competition import Clips
from tagging.data.waveforms import open_store, random_starts
from tagging.evaluation import predict
from tagging.evaluation.predict import WindowBatches, WindowPooling, predict_logits, predict_probabilities
from tagging.modeling.augment import View
from tagging.modeling.model import Model, ModelMetadata
from tagging.modeling.transforms import resize
from tagging.recipe import SMOKE
from tagging_lite.windows import place_windows

RATE = 8000
SIZE = 2000                     # samples of a window
LENGTHS = (5300, 700, 2000, 2001, 3999)
RECIPE = replace(SMOKE, network="timm:test_resnet", crop_seconds=SIZE / RATE, mels=16, frames=32, mask_width=(4, 4),
                 curated=replace(SMOKE.curated, sizes=(32,)))
ABOUT = ModelMetadata("curated", 1, ("a", "b", "c"), RATE, RECIPE, -30.0, 15.0)

lengths_strategy = st.lists(st.integers(0, 3000), min_size=1, max_size=6).map(np.array)
overlap_strategy = st.floats(0, 0.95)
repeatable = settings(deadline=None, derandomize=True, max_examples=200, database=None)


def by_clip(clips, starts, count):
    assert (np.diff(clips) >= 0).all()                  # in the order of the clips
    return [starts[clips == clip] for clip in range(count)]


@repeatable
@given(lengths_strategy, st.integers(1, 800), overlap_strategy)
def test_windows_cover_each_clip_evenly_and_no_more_than_needed(lengths, size, overlap):
    step = max(1, int(size * (1 - overlap)))
    clips, starts = place_windows(lengths, size, overlap)
    for length, own in zip(lengths, by_clip(clips, starts, len(lengths))):
        if length <= size:                              # one, with the clip in its middle
            assert len(own) == 1 and own[0] <= 0
            before, after = -own[0], own[0] + size - length
            assert abs(before - after) <= 1
            continue
        distances = np.diff(own)
        assert own[0] == 0 and own[-1] == length - size
        assert (distances > 0).all() and distances.max() <= step
        assert distances.max() - distances.min() <= 1
        assert (len(own) - 2) * step < length - size    # one window less would leave a wider distance


@repeatable
@given(lengths_strategy, st.integers(1, 800), overlap_strategy, st.integers(1, 4))
def test_a_limit_keeps_the_windows_even_and_a_single_one_in_the_middle(lengths, size, overlap, limit):
    every = by_clip(*place_windows(lengths, size, overlap), len(lengths))
    limited = by_clip(*place_windows(lengths, size, overlap, limit), len(lengths))
    for length, own, unlimited in zip(lengths, limited, every):
        assert len(own) == min(limit, len(unlimited))
        if len(own) == 1:
            assert abs(2 * own[0] - (length - size)) <= 1
        else:
            assert own[0] == 0 and own[-1] == length - size and np.ptp(np.diff(own)) <= 1


def test_windows_by_hand():
    clips, starts = place_windows(np.array([10, 3, 4, 5]), 4, 0.5)
    assert clips.tolist() == [0, 0, 0, 0, 1, 2, 3, 3]
    assert starts.tolist() == [0, 2, 4, 6, 0, 0, 0, 1]


def test_random_starts_reach_both_ends_and_no_further():
    long, short, equal = (random_starts(np.full(3000, length), 10, np.random.default_rng(0)) for length in (15, 6, 10))
    assert set(long) == set(range(6))
    assert set(short) == {-4, -3, -2, -1, 0}            # a short clip stays wholly inside its crop
    assert set(equal) == {0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Model(ABOUT)
    model.train()
    for _ in range(20):                                 # running statistics that are not those of a new network
        model.network(torch.randn(8, 1, 32, 32))
    return model.eval()


@pytest.fixture
def sounds():
    rng = np.random.default_rng(0)
    sounds = []
    for i, length in enumerate(LENGTHS):                # tones that rise over noise: no two windows are alike
        t = np.arange(length) / RATE
        tone = np.sin(2 * np.pi * (200 + 300 * i + 900 * t) * t)
        sounds.append((6000 * tone + 1000 * rng.standard_normal(length)).astype(np.int16))
    return sounds


@pytest.fixture
def store(tmp_path, monkeypatch, sounds):
    monkeypatch.setattr(waveforms, "MARGIN", 4000)          # the real one would write 16 MB
    paths = [tmp_path / f"{i}.wav" for i in range(len(sounds))]
    for path, samples in zip(paths, sounds):
        soundfile.write(path, samples, RATE)
    clips = Clips("test", tmp_path / "test.csv", pd.Index([path.name for path in paths]), paths,
                  np.zeros((len(paths), 0)))
    return open_store(clips, None, tmp_path / "cache")[1]


def of_recipe(model, **changes):
    """The same network under another recipe."""
    other = Model(replace(ABOUT, recipe=replace(RECIPE, **changes)))
    other.network = model.network
    return other.eval()


def cut(samples, start, size=SIZE):
    return np.pad(samples, size)[start + size:][:size]


@torch.inference_mode()
def mean_logits(model, samples, starts):
    return np.mean([model(torch.from_numpy(cut(samples, start))[None])[0].numpy() for start in starts], 0)


def test_the_logits_of_a_clip_are_the_mean_over_its_windows(model, store, sounds):
    by_hand = [0, 825, 1650, 2475, 3300], [-650], [0], [0, 1], [0, 1000, 1999]
    expected = [mean_logits(model, samples, starts) for samples, starts in zip(sounds, by_hand)]
    logits = predict_logits(model, store)
    assert logits.shape == (5, 3) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.ptp(logits, 0).min() > 1e-3               # the clips differ, or nothing would have been compared


def test_the_maximum_of_each_class_over_the_windows(model, store, sounds):
    by_hand = [0, 825, 1650, 2475, 3300], [-650], [0], [0, 1], [0, 1000, 1999]
    with torch.inference_mode():
        expected = [np.max([model(torch.from_numpy(cut(samples, start))[None])[0].numpy() for start in starts], 0)
                    for samples, starts in zip(sounds, by_hand)]
    logits = predict_logits(of_recipe(model, pooling="maximum"), store)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(logits - predict_logits(model, store)).max() > 1e-3


def test_one_window_is_the_middle_one(model, store, sounds):
    expected = [mean_logits(model, samples, [np.rint((len(samples) - SIZE) / 2).astype(int)]) for samples in sounds]
    windows = WindowBatches(model, store, limit=1)
    pooling = WindowPooling(windows)
    with torch.inference_mode():
        for place, images in windows:
            pooling.add(place, model.network(images))
    np.testing.assert_allclose(pooling.logits(), expected, atol=1e-5)


def test_a_clip_has_the_same_logits_in_other_company(model, store):
    chosen = np.array([4, 0])
    np.testing.assert_allclose(predict_logits(model, store.subset(chosen)), predict_logits(model, store)[chosen],
                               atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_batch_boundaries_do_not_matter(model, store, monkeypatch, batch):
    expected = predict_logits(model, store)
    monkeypatch.setattr(predict, "BATCH", {"cpu": batch})          # also within the windows of a clip
    np.testing.assert_allclose(predict_logits(model, store), expected, atol=1e-5)


def test_a_model_in_training_is_scored_in_evaluation_mode(model, store):
    expected = predict_logits(model, store)
    model.train()
    np.testing.assert_allclose(predict_logits(model, store), expected, atol=1e-5)
    assert not model.training


def test_views_are_reproducible_and_differ(model, store):
    views = [predict_logits(model, store, view=view) for view in range(4)]
    for view, logits in enumerate(views):
        assert np.array_equal(predict_logits(model, store, view=view), logits)
        assert all(np.abs(logits - other).max() > 1e-3 for other in views[:view])


def spy_on_images(model, monkeypatch):
    """Record each batch: its view, the waves that the front end gets, and the images before they are resized."""
    calls, view_images, images, resize = [], View.images, model.images, model.resize

    def spy_view(view, *arguments):
        calls.append({"view": view})
        return view_images(view, *arguments)

    def spy_waves(waves):
        calls[-1]["waves"] = waves.clone()
        return images(waves)

    def spy_images(found, size=None):
        calls[-1]["images"] = found.clone()
        return resize(found, size)

    monkeypatch.setattr(View, "images", spy_view)
    monkeypatch.setattr(model, "images", spy_waves)
    monkeypatch.setattr(model, "resize", spy_images)
    return calls


def test_the_plain_view_is_neither_masked_nor_lit_and_the_others_are_both(model, store, monkeypatch):
    front_end = model.images
    calls = spy_on_images(model, monkeypatch)
    predict_logits(model, store)
    predict_logits(model, store, view=1)
    assert [call["view"] for call in calls] == [View(), View(shifted=True, masked=True, lit=True)]
    changed = [call["images"] != front_end(call["waves"]) for call in calls]
    assert not changed[0].any() and changed[1].any()
    assert changed[1].flatten(1).float().mean(1).max() > 0.9            # brightness or contrast: the whole image


def test_the_first_views_are_at_the_recipes_speeds_and_otherwise_plain(model, store, sounds, monkeypatch):
    """A window at twice the speed shows twice as many samples, every other one of them."""
    two = of_recipe(model, view_speeds=(2.0, 0.5))
    calls = spy_on_images(two, monkeypatch)
    for view in range(4):
        predict_logits(two, store, view=view)
    assert [call["view"].speed for call in calls] == [1, 2, 0.5, 1]
    assert [call["view"].masked or call["view"].lit for call in calls] == [False, False, False, True]
    clips, starts = place_windows(store.lengths, 2 * SIZE, RECIPE.window_overlap)
    for window, clip, start in zip(calls[1]["waves"].numpy(), clips, starts, strict=True):
        np.testing.assert_allclose(window, cut(sounds[clip], start, 2 * SIZE)[::2] / 32768, atol=1e-6)
    assert len(place_windows(store.lengths, SIZE // 2, RECIPE.window_overlap)[0]) == len(calls[2]["waves"])
    assert calls[2]["waves"].shape[1] == SIZE


def test_the_windows_of_a_view_are_shifted_and_stay_in_their_clips(model, store, sounds, monkeypatch):
    calls = spy_on_images(model, monkeypatch)
    clips, starts = place_windows(store.lengths, SIZE, RECIPE.window_overlap)
    predict_logits(model, store, view=2)
    shifts = []
    for window, clip, start in zip(calls[0]["waves"].numpy(), clips, starts, strict=True):
        samples, room = sounds[clip], len(sounds[clip]) - SIZE
        places = [place for place in range(min(room, 0), max(room, 0) + 1)
                  if np.array_equal(cut(samples, place), window)]
        assert len(places) == 1
        shifts.append(places[0] - start)
    assert np.abs(shifts).max() <= SIZE // 4            # half the distance of two windows
    assert len(set(shifts)) > 5


def test_a_single_crop_is_one_masked_window_of_each_clip_without_lighting(model, store, sounds, monkeypatch):
    single = of_recipe(model, single_crop=True)
    front_end = single.images
    calls = spy_on_images(single, monkeypatch)
    logits = predict_logits(single, store)
    call, = calls
    crops, images = call["waves"], call["images"]
    assert call["view"] == View(masked=True)
    assert len(crops) == len(sounds)
    for crop, samples in zip(crops.numpy(), sounds):
        room = len(samples) - SIZE
        assert any(np.array_equal(cut(samples, start), crop) for start in range(min(room, 0), max(room, 0) + 1))
    plain = front_end(crops)
    changed = (images != plain)[:, 0]                   # (clips, mels, frames)
    assert (changed.all(1).sum(1) == 4).all() and (changed.all(2).sum(1) == 4).all()     # a mask each way
    with torch.inference_mode():
        np.testing.assert_allclose(logits, single.network(resize(images, 32)).numpy(), atol=1e-5)
    assert np.abs(logits - predict_logits(model, store)).max() > 1e-3


def test_probabilities_are_the_mean_over_the_views(model, store):
    views = [1 / (1 + np.exp(-predict_logits(model, store, view=view).astype(float))) for view in range(3)]
    np.testing.assert_allclose(predict_probabilities(model, store, tta=2), np.mean(views, 0), atol=1e-6)
    np.testing.assert_allclose(predict_probabilities(model, store), views[0], atol=1e-6)
