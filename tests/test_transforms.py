"""Waves mixed, masks, lighting, resizing and mixup."""
import math

import pytest
import torch
import torch.nn.functional as F
from clips import STORED

from tagging.modeling.transforms import MIX_DB, change_speed, lighting, mask_freq, mask_time, mix_waves, mixup, resize


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def both_masks(test):
    return pytest.mark.parametrize("mask, axis", [(mask_time, 3), (mask_freq, 2)])(test)


def masked_runs(images, result, axis):
    """Start and width of the mask of each image, after checking that it is one run, and filled as it should be."""
    other = 5 - axis
    changed = result != images                                               # (batch, 1, mels, frames)
    assert torch.equal(changed.all(other), changed.any(other))               # whole columns, or whole rows
    means = images.mean((1, 2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(result[changed], means[changed])
    runs = []
    for line in changed.any(other)[:, 0]:                                    # (frames,) or (mels,)
        places = line.nonzero().flatten().tolist()
        assert places == list(range(places[0], places[-1] + 1)) if places else True
        runs.append((places[0] if places else None, len(places)))
    return runs


@both_masks
def test_a_mask_of_one_width_covers_it_exactly_and_reaches_every_place(mask, axis):
    images = noise(600, 1, *((6, 20) if axis == 3 else (20, 6)))
    runs = masked_runs(images, mask(images, (8, 8), seeded()), axis)
    assert {width for _, width in runs} == {8}
    assert {start for start, _ in runs} == set(range(13))          # from the first to the last, and between


@pytest.mark.parametrize("name", STORED)
def test_masks_equal_those_of_fastaudio(name, monkeypatch):
    """MaskTime and then MaskFreq, both 8 wide, with the same draws. The second is filled with the mean after the first.
    """
    image = torch.from_numpy(STORED[name].logmel).float()[None, None]
    expected = image.clone()
    for mask, (start, fill) in zip((mask_time, mask_freq), STORED[name].masks.tolist()):
        start = int(start)
        columns = expected if mask is mask_time else expected.mT
        columns[..., start:start + 8] = fill
        monkeypatch.setattr(torch, "rand", lambda *shape, start=start, **_: torch.full(shape, (start + 0.5) / 121))
        image = mask(image, (8, 8), seeded())
    torch.testing.assert_close(image, expected, atol=5e-3, rtol=0)


@both_masks
def test_widths_are_drawn_for_each_image_and_never_exceed_the_greatest(mask, axis):
    images = noise(1500, 1, *((3, 20) if axis == 3 else (20, 3)))
    runs = masked_runs(images, mask(images, (0, 8), seeded()), axis)
    widths = [width for _, width in runs]
    assert set(widths) == set(range(9))
    assert all(100 < widths.count(width) < 240 for width in range(9))        # 167 are expected of each
    for width in range(1, 9):
        starts = [start for start, own in runs if own == width]
        assert min(starts) == 0 and max(starts) == 20 - width


@both_masks
def test_a_mask_wider_than_the_image_fills_it(mask, axis):
    images = noise(3, 1, 5, 5)
    means = images.mean((1, 2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(mask(images, (9, 9), seeded()), means)


def test_a_mask_of_no_width_is_the_identity():
    images = noise(4, 1, 6, 9)
    assert torch.equal(mask_freq(mask_time(images, (0, 0), seeded()), (0, 0), seeded()), images)


def shift_and_scale(strength, chance, count=4000):
    """What `lighting` adds to, and multiplies, each of many images."""
    images = torch.linspace(-1, 1, 9).reshape(1, 1, 3, 3).repeat(count, 1, 1, 1)
    result = lighting(images, strength, chance, seeded()).reshape(count, 9)
    shift = result[:, 4]                                                     # the zero in the middle
    scale = (result[:, 8] - result[:, 0]) / 2
    torch.testing.assert_close(result, images.reshape(count, 9) * scale[:, None] + shift[:, None])
    return shift, scale


def test_lighting_without_a_chance_is_the_identity():
    images = noise(50, 1, 4, 4)
    assert torch.equal(lighting(images, 0.2, 0.0, seeded()), images)


@pytest.mark.parametrize("strength", [0.2, 0.6])
def test_lighting_with_certainty_changes_every_image_within_its_bounds_and_up_to_them(strength):
    shift, scale = shift_and_scale(strength, 1.0)
    limit = math.log((0.5 + strength / 2) / (0.5 - strength / 2))            # logit(0.5 + strength / 2)
    assert (shift != 0).all() and (scale != 1).all()
    assert -limit - 1e-5 <= shift.min() < -0.98 * limit and 0.98 * limit < shift.max() <= limit + 1e-5
    assert 1 - strength - 1e-5 <= scale.min() < 1.02 * (1 - strength)
    assert 0.98 / (1 - strength) < scale.max() <= 1 / (1 - strength) + 1e-5
    assert len(shift.unique()) > 3900 and len(scale.unique()) > 3900         # each image has its own


def test_brightness_and_contrast_have_each_their_own_chance():
    shift, scale = shift_and_scale(0.2, 0.75)
    lit, scaled = shift != 0, scale.sub(1).abs() > 1e-6
    for share, expected in ((lit, 0.75), (scaled, 0.75), (lit & scaled, 0.75 ** 2)):
        assert share.float().mean().item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("size", [7, 20, 33])
def test_resize_is_bilinear_interpolation(size):
    images = noise(2, 1, 16, 24)
    expected = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=False)
    assert torch.equal(resize(images, size), expected)


def test_resize_by_hand():
    image = torch.tensor([[0.0, 4.0], [0.0, 4.0]])[None, None]
    assert resize(image, 4)[0, 0].tolist() == [[0, 1, 3, 4]] * 4


def test_resize_to_the_same_size_is_the_identity():
    images = noise(2, 1, 16, 16)
    assert torch.equal(resize(images, 16), images)


@pytest.mark.parametrize("batch", [2, 3, 7, 64])
def test_waves_are_added_to_those_of_another_clip_with_the_labels_of_both(batch):
    """Each clip is loud in a place of its own, so that the sum shows who is in it, and how loud."""
    waves = torch.diag(torch.linspace(0.01, 0.9, batch))
    mixed, targets = mix_waves(waves, torch.eye(batch), 1.0, seeded())
    assert torch.equal((mixed > 0).sum(1), torch.full((batch,), 2))          # itself, and one that is not itself
    assert torch.equal(mixed.diagonal(), waves.diagonal())
    assert torch.equal(targets, (mixed > 0).float())
    decibels = 20 * torch.log10((mixed.sum(1) - mixed.diagonal()) / mixed.diagonal())
    assert (decibels <= 1e-4).all() and (decibels >= -MIX_DB - 1e-4).all()
    assert batch < 64 or (decibels.min() < -0.9 * MIX_DB and decibels.max() > -0.1 * MIX_DB)


def test_speeds_worked_by_hand():
    waves = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7]] * 4).short() * 1000
    played = change_speed(waves, torch.tensor([1.0, 2.0, 0.5, 1.25], dtype=torch.double), 4) * 32.768
    expected = [[0, 1, 2, 3], [0, 2, 4, 6], [0, 0.5, 1, 1.5], [0, 1.25, 2.5, 3.75]]
    torch.testing.assert_close(played, torch.tensor(expected))


def test_a_faster_tone_is_a_higher_one():
    seconds = torch.arange(12_000) / 8000
    tone = torch.sin(2 * torch.pi * 400 * seconds)[None]
    for rate in (0.8, 1.0, 1.25):
        played = change_speed(tone, torch.tensor([rate], dtype=torch.double), 8000)
        assert played.shape == (1, 8000) and torch.fft.rfft(played).abs().argmax() == 400 * rate
        torch.testing.assert_close(played[0], torch.sin(2 * torch.pi * 400 * rate * seconds[:8000]), atol=0.02, rtol=0)


def test_only_as_many_waves_are_mixed_as_the_chance_says():
    waves, targets = noise(4000, 3), torch.eye(2).repeat(2000, 1).roll(1, 0)
    mixed, both = mix_waves(waves, targets, 0.3, seeded())
    changed = (mixed != waves).any(1)
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(mixed[~changed], waves[~changed]) and torch.equal(both[~changed], targets[~changed])
    assert all(torch.equal(one, other) for one, other in zip(mix_waves(waves, targets, 0.0, seeded()),
                                                             (waves, targets)))


def test_silence_can_be_mixed():
    mixed, _ = mix_waves(torch.zeros(4, 100), torch.ones(4, 1), 1.0, seeded())
    assert torch.equal(mixed, torch.zeros(4, 100))


def test_mixup_mixes_each_image_with_one_other_and_keeps_the_larger_share():
    one_hot = torch.eye(64)
    images, targets = mixup(one_hot.reshape(64, 1, 8, 8), one_hot, 0.4, seeded(1))
    images = images.reshape(64, 64)
    assert torch.equal((images > 0).sum(1), torch.full((64,), 2))           # itself, and one that is not itself
    assert (images.diagonal() >= 0.5).all()
    torch.testing.assert_close(images.sum(1), torch.ones(64))
    torch.testing.assert_close(targets, images)                              # the same partner with the same share
    assert len(images.diagonal().unique()) > 50                              # each has its own share


def test_mixed_targets_keep_their_sum():
    targets = (noise(64, 10) > 0).float()
    targets[:, 0] = 1
    _, mixed = mixup(noise(64, 1, 4, 4), targets, 0.4, seeded())
    low, high = targets.sum(1).minimum(targets.roll(1, 0).sum(1)), targets.sum(1).maximum(targets.roll(1, 0).sum(1))
    assert ((mixed.sum(1) >= low - 1e-5) & (mixed.sum(1) <= high + 1e-5)).all()
    assert mixed.sum().item() != pytest.approx(targets.sum().item(), abs=1e-6)
    assert (mixed >= 0).all() and (mixed <= 1).all()


@pytest.mark.parametrize("alpha, mean", [(0.4, 0.8398), (1.0, 0.75), (4.0, 0.6367)])
def test_the_share_is_the_larger_part_of_a_beta_draw(alpha, mean):
    """`mean` is that of max(x, 1 - x), integrated with scipy.stats.beta(alpha, alpha)."""
    count = 20_000
    images = torch.zeros(count, 1, 1, 1)
    images[::2] = 1                                                          # each one's neighbour is the other kind
    mixed, _ = mixup(images, torch.zeros(count, 1), alpha, seeded())
    share = torch.where(images == 1, mixed, 1 - mixed)
    assert share.min() >= 0.5 and share.max() <= 1
    assert share.mean().item() == pytest.approx(mean, abs=0.005)


def test_a_tiny_alpha_mixes_almost_nothing_and_gives_no_nan():
    images, targets = mixup(noise(5000, 1, 1, 1), torch.ones(5000, 1), 1e-3, seeded())
    assert images.isfinite().all() and targets.isfinite().all()


@pytest.mark.parametrize("augment", [
    lambda images, generator: mask_time(images, (0, 8), generator),
    lambda images, generator: mask_freq(images, (0, 8), generator),
    lambda images, generator: lighting(images, 0.2, 0.75, generator),
    lambda images, generator: mix_waves(images[:, 0, 0], images[:, 0, 1], 0.5, generator)[0],
    lambda images, generator: mixup(images, images[:, 0, 0], 0.4, generator)[0],
    lambda images, generator: mixup(images, images[:, 0, 0], 0.4, generator)[1],
], ids=["mask_time", "mask_freq", "lighting", "mix_waves", "mixup", "mixup of targets"])
def test_the_generator_decides_everything(augment):
    images = noise(32, 1, 16, 16)
    before = images.clone()
    first, again, other = (augment(images, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(images, before)                                       # the batch itself is left as it was
