"""The log-mel against the starting system's own arrays and against librosa."""
import librosa
import numpy as np
import pytest
import torch
from clips import STORED

from tagging.modeling.logmel import LogMel, build_log_mel
from tagging.recipe import CAPSTONE

CAPSTONE_MEL = {"n_fft": 2560, "win_length": 1024, "hop_length": 690, "n_mels": 128, "fmin": 20.0, "fmax": 20_000.0}
SMALL_MEL = {"n_fft": 512, "win_length": 512, "hop_length": 100, "n_mels": 24, "fmin": 50.0, "fmax": 7000.0}
WIDE_MEL = {"n_fft": 928, "win_length": 371, "hop_length": 250, "n_mels": 40, "fmin": 20.0, "fmax": 8000.0}


def log_mel(rate, mel, top_db=60.0):
    return LogMel(sample_rate=rate, n_fft=mel["n_fft"], window=mel["win_length"], hop=mel["hop_length"],
                  mels=mel["n_mels"], f_min=mel["fmin"], f_max=mel["fmax"], top_db=top_db)


def sound(kind, rate, seconds=0.7):
    rng = np.random.default_rng(0)
    t = np.arange(int(rate * seconds)) / rate
    if kind == "noise":
        return 0.2 * rng.standard_normal(len(t))
    if kind == "tones":
        hiss = 1e-3 * rng.standard_normal(len(t))
        return hiss + sum(0.2 * np.sin(2 * np.pi * pitch * t) for pitch in (97, 440, 3100))
    return 0.5 * np.sin(2 * np.pi * 500 * t) * np.exp(-t * 12) + 1e-5 * rng.standard_normal(len(t))    # "decay"


@pytest.mark.parametrize("name", STORED)
def test_log_mel_equals_fastaudios(name):
    clip = STORED[name]
    crop = torch.zeros(1, 88_200, dtype=torch.int16)
    kept = torch.from_numpy(clip.wave[slice(*clip.trim)][:88_200])
    crop[0, :len(kept)] = kept
    images = build_log_mel(CAPSTONE, 44_100)(crop)
    assert images.shape == (1, 1, 128, 128) and images.dtype == torch.float32
    assert np.abs(images[0, 0].numpy() - clip.logmel).max() < 5e-3


@pytest.mark.parametrize("kind", ["noise", "tones", "decay"])
@pytest.mark.parametrize("rate, mel", [(44_100, CAPSTONE_MEL), (16_000, SMALL_MEL), (16_000, WIDE_MEL)])
@pytest.mark.parametrize("top_db", [60.0, 25.0])
def test_log_mel_equals_librosas(kind, rate, mel, top_db):
    wave = sound(kind, rate)
    power = librosa.feature.melspectrogram(y=wave, sr=rate, window="hann", center=True, pad_mode="reflect", power=2.0,
                                           htk=True, norm=None, **mel)
    expected = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=top_db)
    image = log_mel(rate, mel, top_db)(torch.from_numpy(wave)[None])[0, 0].numpy()
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() < 1e-3


def test_int16_and_float_waves_give_the_same_image():
    wave = torch.from_numpy((sound("tones", 16_000) * 32768).astype(np.int16))[None]
    front = log_mel(16_000, SMALL_MEL)
    assert torch.equal(front(wave), front(wave.float() / 32768))


def test_top_db_is_counted_from_the_loudest_cell_of_each_clip_alone():
    wave = torch.from_numpy(sound("decay", 16_000)).float()
    front = log_mel(16_000, SMALL_MEL, top_db=40.0)
    images = front(torch.stack([wave, wave * 1e-3]))         # 60 dB apart
    torch.testing.assert_close(images[1], images[0] - 60, atol=1e-3, rtol=0)
    assert (images.amax((1, 2, 3)) - images.amin((1, 2, 3))).tolist() == pytest.approx([40, 40], abs=1e-4)


@pytest.mark.parametrize("samples, frames", [(16_000, 161), (15_999, 160), (400, 5), (399, 4)])
def test_a_hop_starts_a_frame(samples, frames):
    waves = torch.from_numpy(sound("noise", 16_000, 1)[:samples])[None].repeat(2, 1)
    assert log_mel(16_000, SMALL_MEL)(waves).shape == (2, 1, 24, frames)


def test_zeros_give_a_finite_image():
    image = log_mel(16_000, SMALL_MEL)(torch.zeros(1, 4000, dtype=torch.int16))
    assert torch.equal(image, torch.full_like(image, -100))         # the floor of 1e-10


def test_the_front_end_adds_nothing_to_a_file_of_weights():
    """It is rebuilt from the recipe."""
    assert log_mel(16_000, SMALL_MEL).state_dict() == {}
