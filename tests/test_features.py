"""Clip features: as librosa computes them, finite for every clip, and computed once."""
import warnings
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import torch

from tagging.baselines import cache
from tagging.baselines.features import FEATURES, ROWS, STATISTICS, ClipFeatures
from tagging.data.folds import ClipDataset
from tagging.data.waveforms import WaveStore
from tagging.errors import TaggingError

RATES = [8000, 16_000, 44_100, 48_000]


def sound(samples: int, sample_rate: int, seed: int = 0) -> np.ndarray:
    """A rising tone in fading noise: (samples,) int16."""
    rng, time = np.random.default_rng(seed), np.arange(samples) / sample_rate
    tone = 8000 * np.sin(2 * np.pi * (300 + 400 * time) * time)
    return (rng.normal(0, 3000, samples) * np.exp(-time) + tone).astype(np.int16)


def pack(waves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(wave) for wave in waves])
    packed = np.zeros((len(waves), lengths.max()), np.int16)
    for row, wave in zip(packed, waves):
        row[:len(wave)] = wave
    return packed, lengths


def librosa_rows(wave: np.ndarray, features: ClipFeatures) -> np.ndarray:
    """The rows of all frames by librosa: (rows, frames)."""
    y, rate, size = wave.astype(np.float32) / 32768, features.sample_rate, features.n_fft
    hop = {"n_fft": size, "hop_length": features.hop}
    both, frames = {"y": y, "sr": rate, **hop}, {"frame_length": size, "hop_length": features.hop}
    mfcc = librosa.feature.mfcc(n_mfcc=20, **both)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # a clip shorter than a frame
        return np.concatenate([
            mfcc, librosa.feature.delta(mfcc, width=9, mode="nearest"), librosa.feature.spectral_centroid(**both),
            librosa.feature.spectral_bandwidth(**both), librosa.feature.spectral_rolloff(**both),
            librosa.feature.spectral_flatness(y=y, **hop),
            librosa.feature.spectral_contrast(fmin=min(200.0, rate / 80), **both),
            librosa.feature.zero_crossing_rate(y, **frames), librosa.feature.rms(y=y, **frames)])


@pytest.mark.slow       # librosa compiles some of its functions
@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.filterwarnings("ignore:n_fft=")
def test_the_frames_are_those_of_librosa(sample_rate):
    features = ClipFeatures(sample_rate)
    waves = [sound(samples, sample_rate, seed) for seed, samples in enumerate((600, 3001, sample_rate))]
    packed, lengths = pack(waves)
    rows, counts = features.frame_rows(torch.from_numpy(packed), torch.from_numpy(lengths))
    assert rows.shape[1] == len(ROWS)
    for wave, found, count in zip(waves, rows.numpy(), counts):
        expected = librosa_rows(wave, features)
        assert expected.shape == (len(ROWS), count)
        error = np.abs(found[:, :count] - expected).max(1) / np.abs(expected).max(1)
        # The cumulative sums of the roll-off differ in the last bit, which can move it by one bin.
        assert (error < np.where(np.array(ROWS) == "roll-off", 3e-3, 1e-3)).all(), dict(zip(ROWS, error))


def test_the_statistics_are_those_of_scipy():
    from scipy import stats
    features, wave = ClipFeatures(16_000), sound(16_001, 16_000)
    packed, lengths = pack([wave, sound(40_000, 16_000, 1)])        # the first clip ends before the second
    rows, counts = features.frame_rows(torch.from_numpy(packed), torch.from_numpy(lengths))
    values = rows[0, :, :counts[0]].numpy()
    expected = np.stack([values.mean(1), values.std(1), stats.skew(values, axis=1), values.min(1), np.median(values, 1),
                         values.max(1)], 1)
    found = features(packed, lengths)[0]
    assert STATISTICS == ("mean", "std", "skewness", "min", "median", "max") and len(found) == len(FEATURES)
    np.testing.assert_allclose(found[:-1].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    assert found[-1] == pytest.approx(16_001 / 16_000)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("wave", [
    np.array([5]), np.array([-32768]), np.zeros(1), np.zeros(30_000), np.full(30_000, 32_767), np.arange(9),
    np.resize([32_767, -32_768], 5000), np.concatenate([np.zeros(20_000), [1], np.zeros(20_000)])],
    ids=["one sample", "one loud", "one zero", "silence", "constant", "nine samples", "square", "click"])
def test_the_features_of_any_clip_are_finite(wave, sample_rate):
    found = ClipFeatures(sample_rate)(wave.astype(np.int16)[None], np.array([len(wave)]))
    assert found.shape == (1, len(FEATURES)) and np.isfinite(found).all() and (np.abs(found) < 1e6).all()


def test_a_clip_has_the_same_features_in_any_batch():
    features = ClipFeatures(16_000)
    waves = [sound(samples, 16_000, samples) for samples in (1, 700, 20_000, 20_001, 90_000)]
    together = features(*pack(waves))
    for wave, found in zip(waves, together):
        np.testing.assert_allclose(features(*pack([wave]))[0], found, rtol=1e-3, atol=1e-3)


# The cache.

@pytest.fixture
def clips(tmp_path) -> ClipDataset:
    """Five clips of a store in a folder."""
    waves = [sound(samples, 16_000, samples) for samples in (900, 30_000, 8000, 8000, 12_345)]
    lengths = np.array([len(wave) for wave in waves])
    samples = np.concatenate([np.zeros(10, np.int16), *waves])
    samples.tofile(tmp_path / "samples.i16")
    store = WaveStore(np.memmap(tmp_path / "samples.i16", np.int16, "r"), 16_000, lengths,
                      10 + np.cumsum(lengths) - lengths, np.zeros(5), {}, {})
    return ClipDataset(pd.Index([f"{number}.wav" for number in range(5)]), store, np.zeros((5, 2)))


def part(clips: ClipDataset, keep: list[int]) -> ClipDataset:
    return ClipDataset(clips.fnames[keep], clips.store.subset(np.array(keep)), clips.targets[keep])


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """The names of the clips whose features are computed."""
    names, compute = [], cache.compute_features

    def count(clips: ClipDataset) -> np.ndarray:
        names.extend(clips.fnames)
        return compute(clips)
    monkeypatch.setattr(cache, "compute_features", count)
    return names


def test_the_features_of_a_clip_are_computed_once(clips, computed):
    some = cache.clip_features(part(clips, [3, 1]))
    assert computed == ["3.wav", "1.wav"]
    everything = cache.clip_features(clips)
    assert computed[2:] == ["0.wav", "2.wav", "4.wav"]
    np.testing.assert_array_equal(everything[[3, 1]], some)
    np.testing.assert_array_equal(cache.clip_features(clips), everything)
    assert len(computed) == 5
    alone = ClipFeatures(16_000)(*pack([sound(30_000, 16_000, 30_000)]))[0]
    np.testing.assert_allclose(everything[1], alone, rtol=1e-3, atol=1e-3)


def test_a_damaged_file_of_features_is_computed_again(clips, computed, tmp_path, caplog):
    before = cache.clip_features(clips)
    path = Path(tmp_path, "features.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(cache.clip_features(clips), before)
    assert len(computed) == 10 and "The features are computed again" in caplog.text


def test_a_store_in_memory_needs_no_folder(clips):
    inside = replace(clips, store=replace(clips.store, samples=np.array(clips.store.samples)))
    np.testing.assert_array_equal(cache.clip_features(inside), cache.clip_features(clips))


def test_a_feature_that_is_no_number_names_the_clip(clips, monkeypatch):
    monkeypatch.setattr(ClipFeatures, "__call__", lambda self, waves, lengths: np.where(
        (lengths == 12_345)[:, None], np.nan, np.zeros((len(lengths), len(FEATURES)), np.float32)))
    with pytest.raises(TaggingError, match=r"The features of 4\.wav are not finite numbers\. Remove"):
        cache.clip_features(clips)


def test_long_clips_are_batches_of_their_own():
    lengths = np.array([10, cache.BATCH * 3, 20, cache.BATCH // 2, cache.BATCH // 2])
    batches = cache.split_batches(np.argsort(lengths, kind="stable"), lengths)
    assert [batch.tolist() for batch in batches] == [[0, 2], [3, 4], [1]]
