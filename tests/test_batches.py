"""The batches of a training: which clips stand in them, and what becomes of their waves and targets."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tagging.data import waveforms
from tagging.data.competition import Clips
from tagging.data.folds import ClipDataset
from tagging.data.waveforms import WaveStore, open_store
from tagging.modeling.model import Model, ModelMetadata
from tagging.recipe import SMOKE
from tagging.training.batches import TrainingBatches

RATE, SIZE = 8000, 2000
RECIPE = replace(SMOKE, network="timm:test_resnet", crop_seconds=SIZE / RATE, mels=16, frames=32, mask_width=(0, 0),
                 lighting=0.0, batch_size=8, noisy_share=0.25,
                 curated=replace(SMOKE.curated, sizes=(32,), mixup=0.0))
CURATED, NOISY = 20, 7


def make_examples(folder, name, count, first):
    """Clips whose target says which they are."""
    rng, paths = np.random.default_rng(first), [folder / f"{name}{i}.wav" for i in range(count)]
    for path in paths:
        soundfile.write(path, rng.integers(-9000, 9000, 3000).astype(np.int16), RATE)
    clips = Clips("noisy", folder / "a.csv", pd.Index([path.name for path in paths]), paths,
                  np.zeros((count, 0)))
    return ClipDataset(clips.fnames, open_store(clips, None, folder / "cache")[1],
                    np.eye(CURATED + NOISY, dtype=int)[first:first + count])


@pytest.fixture
def both(tmp_path, monkeypatch):
    monkeypatch.setattr(waveforms, "MARGIN", 4000)
    return make_examples(tmp_path, "c", CURATED, 0), make_examples(tmp_path, "n", NOISY, CURATED)


def batches_of(both, step=0, **knobs):
    of_stage = {"mixup", "wave_mix", "speed"} & knobs.keys()
    curated = replace(RECIPE.curated, **{name: knobs.pop(name) for name in of_stage})
    classes = tuple(map(str, range(CURATED + NOISY)))
    model = Model(ModelMetadata("curated", 1, classes, RATE, replace(RECIPE, curated=curated, **knobs)))
    batches = TrainingBatches(model, *both)
    batches.image_size, batches.progress.step = 32, step
    return batches


def test_each_batch_holds_its_share_of_the_noisy_set(both):
    batches = batches_of(both)
    found = list(batches)
    assert len(batches) == len(found) == 3                      # 20 curated clips, six a batch
    whole = [targets.argmax(1) for _, targets in found]
    assert all(images.shape == (8, 1, 32, 32) and (clips >= CURATED).sum() == 2
               for (images, _), clips in zip(found, whole))
    curated = torch.cat(whole)[torch.cat(whole) < CURATED]
    assert len(curated.unique()) == 18                          # none twice in an epoch
    assert any((clips[:6] >= CURATED).any() for clips in whole)     # any clip can be any other's neighbour
    for step, clips in enumerate(whole):
        names = [f"c{clip}.wav" if clip < CURATED else f"n{clip - CURATED}.wav" for clip in clips]
        assert sorted(batches.names(step)) == sorted(names)


def test_a_small_noisy_set_comes_round_again_and_no_clip_is_left_out(both):
    found = torch.cat([targets.argmax(1) for _, targets in batches_of(both, noisy_share=0.75)])
    counts = torch.bincount(found, minlength=CURATED + NOISY)
    assert counts[:CURATED].eq(1).all()
    assert counts[CURATED:].sum() == 60 and np.ptp(counts[CURATED:].numpy()) <= 1


@pytest.mark.parametrize("knobs", [{}, {"wave_mix": 0.5, "mixup": 0.4, "speed": 0.2}])
def test_an_epoch_can_be_entered_at_any_step(both, knobs):
    whole, later = list(batches_of(both, **knobs)), list(batches_of(both, step=1, **knobs))
    assert len(later) == 2
    for ours, theirs in zip(whole[1:], later):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs))


def test_without_a_share_no_noisy_clip_is_seen(both):
    for batches in (batches_of(both, noisy_share=0.0), batches_of((both[0],))):
        assert all((targets.argmax(1) < CURATED).all() and len(targets) == 8 for _, targets in batches)


def test_mixed_waves_reach_the_images_with_both_labels_of_one_set(both):
    """The curated half is not given the wrong labels of the noisy one."""
    knobs = {"batch_size": 16, "noisy_share": 0.5}
    for _, targets in batches_of(both, wave_mix=1.0, **knobs):
        curated, noisy = targets[:, :CURATED].sum(1), targets[:, CURATED:].sum(1)
        assert sorted(zip(curated.tolist(), noisy.tolist())) == [(0, 2)] * 8 + [(2, 0)] * 8
    plain, mixed = (torch.cat([images for images, _ in batches_of(both, wave_mix=chance, **knobs)])
                    for chance in (0.0, 1.0))
    assert all((image != plain).any((1, 2, 3)).all() for image in mixed)


@pytest.mark.parametrize("knobs, mixes", [({"mask_width": (8, 8)}, False), ({"mixup": 0.4}, True)])
def test_masks_and_mixup_reach_the_batches(both, knobs, mixes):
    for (images, targets), (expected, whole) in zip(batches_of(both, **knobs), batches_of(both)):
        assert not torch.equal(images, expected)
        assert torch.equal(targets, whole) != mixes


def test_a_crop_at_another_speed_holds_a_short_clip_whole_and_a_long_one_without_a_gap(both, monkeypatch):
    """Every sample of the clips is 0.5, so that what is not zero shows how long they last."""
    monkeypatch.setattr(WaveStore, "crops", constant_crops)
    batches = batches_of(both, speed=0.25)
    long = torch.cat([waves for waves, _ in batches.stream(batches.sources[0], batches.draw()[0], 0)])
    assert long.shape == (18, SIZE) and long.eq(0.5).all()           # clips of 3000 samples
    for source in batches.sources:
        source.dataset.store.lengths[:] = 1000
    crops = batches.draw()[0]
    short = torch.cat([waves for waves, _ in batches.stream(batches.sources[0], crops, 0)])
    np.testing.assert_allclose(short.sum(1) / 0.5, 1000 / crops.speeds, atol=2)
    assert 0.8 <= crops.speeds.min() < 0.9 and 1.1 < crops.speeds.max() <= 1.25


def constant_crops(store, clips, starts, size):
    place = starts[:, None] + np.arange(size)
    return np.where((place >= 0) & (place < store.lengths[clips][:, None]), 2**14, 0).astype(np.int16)
