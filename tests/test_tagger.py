"""tagging_lite: sound files of any format and rate as mono samples, and their tags."""
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from clips import noise
from torchaudio.functional import resample as torchaudio_resample

from tagging_lite import audio
from tagging_lite.audio import read_mono, resample
from tagging_lite.decoding import sndfile
from tagging_lite.errors import SoundError
from tagging_lite.tagger import ModelInfo, Tagger
from tagging_lite.windows import cut_windows, second_windows

INFO = ModelInfo(("low", "high"), 8000, 8000, 0.5, 0.0)


def tone(seconds, rate, hertz=440.0):
    return (12_000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


@pytest.mark.parametrize("old, new", [
    (48_000, 44_100), (22_050, 44_100), (44_100, 16_000), (8000, 44_100), (96_000, 16_000)])
def test_resampling_agrees_with_torchaudio_below_the_filter_edge(old, new):
    """Both leave 90 % of the band as it is. Above, and in their first and last samples, their filters differ."""
    spectrum = np.fft.rfft(noise(2 * old))
    spectrum[int(0.9 * min(old, new)):] = 0         # bins of 0.5 Hz
    wave = (0.5 * np.fft.irfft(spectrum)).round().astype(np.int16)
    expected = torchaudio_resample(torch.from_numpy(wave).double(), old, new, lowpass_filter_width=64).numpy()
    found = resample(wave, old, new)
    assert len(found) == len(expected) == 2 * new and found.dtype == np.int16
    middle = slice(new // 4, -new // 4)
    assert np.std((found - expected)[middle]) < 1e-3 * np.std(expected)         # -60 dB


@pytest.mark.parametrize("samples", [1, 2, 7, 500])
@pytest.mark.parametrize("old, new", [(48_000, 44_100), (44_100, 8000), (8000, 96_000)])
def test_a_constant_signal_stays_constant_at_any_rate_and_length(samples, old, new):
    found = resample(np.full(samples, -12_345, np.int16), old, new)
    assert abs(len(found) - samples * new / old) <= 1 and len(found) and set(found.tolist()) == {-12_345}


def test_a_clip_that_gets_beyond_full_scale_is_clipped_with_a_remark():
    square = np.repeat(np.array([32_767, -32_768] * 50, np.int16), 200)
    notes = []
    found = resample(square, 48_000, 44_100, notes)
    assert found.max() == 32_767 and found.min() == -32_768 and notes == [audio.CLIPPED]
    resample(square // 2, 48_000, 44_100, notes)
    assert len(notes) == 1


def test_rates_without_a_common_divisor_keep_the_pitch():
    wave = tone(3, 44_101)
    found = resample(wave, 44_101, 44_100)
    assert abs(len(found) - 3 * 44_100) <= 0.0005 * len(wave)
    peak = np.abs(np.fft.rfft(found * np.hanning(len(found)))).argmax() * 44_100 / len(found)
    assert abs(peak - 440) < 0.5


def test_a_mono_file_at_the_rate_of_the_model_is_unchanged(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(9000), 8000)
    pieces = list(read_mono(tmp_path / "a.wav", 8000))
    assert len(pieces) == 1 and (pieces[0] == noise(9000)).all()


@pytest.mark.parametrize("suffix, subtype", [("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16"), ("ogg", "VORBIS"),
                                             ("mp3", "MPEG_LAYER_III")])
def test_every_format_channel_count_and_rate_gives_the_same_sound(tmp_path, suffix, subtype):
    wave = tone(2, 48_000)
    path = tmp_path / f"name with spaces, ü.{suffix}"
    soundfile.write(path, np.stack([wave, wave / 2], 1) / 32768, 48_000, subtype=subtype)
    found = np.concatenate(list(read_mono(path, 16_000)))
    expected = 0.75 * tone(2, 16_000)       # the mean of both channels
    middle = slice(4000, 28_000)            # without the padding of mp3
    assert abs(len(found) - 32_000) < 2500
    size = np.abs(found[middle].astype(float)).mean()
    assert size == pytest.approx(np.abs(expected[middle]).mean(), rel=0.03)
    peak = np.abs(np.fft.rfft(found[middle] * np.hanning(24_000))).argmax() * 16_000 / 24_000
    assert peak == pytest.approx(440, abs=1)


def test_a_long_file_is_read_in_pieces_of_whole_seconds_without_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 20_000)
    monkeypatch.setattr(sndfile, "BLOCK", 3000)
    wave = noise(70_001)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    pieces = list(read_mono(tmp_path / "a.wav", 8000))
    assert [len(piece) for piece in pieces] == [16_000] * 4 + [6001]
    assert (np.concatenate(pieces) == wave).all()
    upsampled = list(read_mono(tmp_path / "a.wav", 16_000))
    assert [len(piece) for piece in upsampled] == [16_000] * 8 + [12_002]


def test_a_file_that_is_too_long_is_rejected_before_it_is_decoded(tmp_path):
    soundfile.write(tmp_path / "hour.flac", np.zeros(3600 * 1000, np.int16), 1000)
    with pytest.raises(SoundError, match="3600 seconds long, where at most 60 are taken"):
        next(read_mono(tmp_path / "hour.flac", 8000, longest=60))


def test_a_length_just_over_the_limit_is_not_rounded_to_the_limit(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(60_300, np.int16), 1000)
    with pytest.raises(SoundError, match="61 seconds long, where at most 60 are taken"):
        next(read_mono(tmp_path / "long.wav", 8000, longest=60))


def test_windows_around_each_second():
    assert second_windows(32_000, 8000, 8000).tolist() == [0, 8000, 16_000, 24_000]
    assert second_windows(28_001, 16_000, 8000).tolist() == [0, 4000, 12_000, 12_001]      # moved into the clip
    assert second_windows(4000, 8000, 8000).tolist() == [-2000]                            # the clip is in the middle
    assert second_windows(8001, 16_000, 8000).tolist() == [-4000, -4000]


def test_cutting_pads_with_zeros():
    assert cut_windows(np.arange(1, 6), np.array([-2, 0, 3]), 4).tolist() == [[0, 0, 1, 2], [1, 2, 3, 4], [4, 5, 0, 0]]


def low_or_high(waves):
    """Two models that classify tones by their zero crossings. The logits of the second are twice as large."""
    crossings = (np.diff(np.sign(waves.astype(int)), axis=1) != 0).mean(1)                  # (windows,)
    logits = np.stack([0.3 - crossings, crossings - 0.3], 1) * 20                           # (windows, classes)
    return np.stack([logits, 2 * logits], 1)


def test_the_probability_is_the_mean_over_models_of_the_mean_over_windows(tmp_path):
    wave = np.concatenate([tone(2, 8000, 200), tone(1, 8000, 3000)])
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    windows = np.stack([wave[start:start + 8000] for start in range(0, 16_001, 4000)])
    mean = low_or_high(windows).mean(0)                                                     # (models, classes)
    result = Tagger(INFO, low_or_high).tag_file(tmp_path / "a.wav", timeline=True)
    np.testing.assert_allclose(result.probabilities, (1 / (1 + np.exp(-mean))).mean(0))
    assert result.seconds == 3
    assert result.timeline.argmax(1).tolist() == [0, 0, 1]


def test_a_model_can_pool_the_windows_by_their_maximum(tmp_path):
    wave = np.concatenate([tone(2, 8000, 200), tone(1, 8000, 3000)])
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    windows = np.stack([wave[start:start + 8000] for start in range(0, 16_001, 4000)])
    loudest = low_or_high(windows).max(0)                                                   # (models, classes)
    tagger = Tagger(replace(INFO, pooling="maximum"), low_or_high)
    for probabilities in (tagger.tag_file(tmp_path / "a.wav").probabilities, tagger.tag(wave)):
        np.testing.assert_allclose(probabilities, (1 / (1 + np.exp(-loudest))).mean(0))


@pytest.mark.parametrize("pooling", ["mean", "maximum"])
def test_all_windows_of_a_long_file_have_the_same_weight(tmp_path, monkeypatch, pooling):
    wave = np.concatenate([tone(3, 8000, 200), tone(2, 8000, 3000)])
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    tagger = Tagger(ModelInfo(("low", "high"), 8000, 8000, 0.0, 0.0, pooling), low_or_high)
    whole = tagger.tag_file(tmp_path / "a.wav", timeline=True)
    monkeypatch.setattr(audio, "LONGEST", 16_000)
    pieces = tagger.tag_file(tmp_path / "a.wav", timeline=True)
    np.testing.assert_allclose(pieces.probabilities, whole.probabilities)
    np.testing.assert_allclose(pieces.timeline, whole.timeline)


def test_the_top_tags_are_sorted_and_above_the_threshold():
    tagger = Tagger(ModelInfo(("a", "b", "c", "d"), 8000, 8000, 0.0, 0.0), low_or_high)
    probabilities = np.array([0.2, 0.9, 0.9, 0.5])
    assert tagger.top_tags(probabilities, 3) == [("b", 0.9), ("c", 0.9), ("d", 0.5)]
    assert tagger.top_tags(probabilities, 4, 0.5) == [("b", 0.9), ("c", 0.9), ("d", 0.5)]


@pytest.mark.parametrize("content, reason", [
    (b"", "0 bytes"), (b"this is no sound at all", "unreadable"), (b"RIFF", "no data chunk")])
def test_the_error_for_a_file_that_is_not_a_sound(tmp_path, content, reason):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(SoundError, match=reason):
        Tagger(INFO, low_or_high).tag_file(tmp_path / "a.wav")


@pytest.mark.parametrize("samples, reason", [(0, "no samples"), (5000, "all silence")])
def test_silence_has_no_tags(tmp_path, samples, reason):
    soundfile.write(tmp_path / "a.wav", np.zeros(samples, np.int16), 8000)
    with pytest.raises(SoundError, match=reason):
        Tagger(INFO, low_or_high).tag_file(tmp_path / "a.wav")
