"""Trimming, decoding, and the errors for clips that cannot be used."""
import logging
import struct

import librosa
import numpy as np
import pytest
import soundfile
from clips import RATE, STORED, clips_of, noise, whole, write_clips
from clips import small_margin as small_margin

from tagging.data.waveforms import open_store
from tagging.errors import TaggingError
from tagging.utils import progress
from tagging_lite.audio import RemoveSilence


@pytest.mark.parametrize("name", STORED)
def test_bounds_equal_those_of_fastaudio(name):
    clip = STORED[name]
    assert RemoveSilence().bounds(clip.wave, 44_100) == clip.trim


@pytest.mark.parametrize("rate, threshold", [(44_100, 20), (16_000, 20), (16_000, 45)])
@pytest.mark.parametrize("front, gap, end", [(5000, 0, 3000), (2048, 9000, 2048), (20_011, 300, 13_007)])
def test_bounds_equal_those_of_librosa_if_the_ends_are_silent(rate, threshold, front, gap, end):
    """Since version 0.9 librosa pads with zeros. Reflection of silent ends gives zeros too."""
    fade = np.concatenate([np.geomspace(1e-4, 1, 4000), np.ones(3000), np.geomspace(1, 1e-4, 4000)])
    body = (noise(11_000) * fade).astype(np.int16)
    wave = np.concatenate([np.zeros(front, np.int16), body, np.zeros(gap, np.int16), body // 2,
                           np.zeros(end, np.int16)])
    hop = int(0.02 * rate)
    loud = librosa.effects.split(wave / 32768, top_db=threshold, frame_length=2048, hop_length=hop)
    expected = max(0, loud[0, 0] - hop), min(len(wave), loud[-1, 1] + hop)
    assert expected[0] > 0 and expected[1] < len(wave)
    assert RemoveSilence(threshold=threshold).bounds(wave, rate) == expected


@pytest.mark.parametrize("samples", [1, 2, 3, 500, 2047])
def test_a_short_clip_is_trimmed_within_itself_and_never_to_nothing(samples):
    first, last = RemoveSilence().bounds(noise(samples), 44_100)
    assert 0 <= first < last <= samples


def test_the_bounds_of_an_empty_clip_are_empty():
    assert RemoveSilence().bounds(noise(0), 44_100) == (0, 0)


def test_the_store_contains_the_trimmed_clip(tmp_path):
    wave = np.concatenate([np.zeros(9000, np.int16), noise(8000), np.zeros(7000, np.int16)])
    clips = write_clips(tmp_path, {"a.wav": wave})
    first, last = RemoveSilence().bounds(wave, RATE)
    _, store = open_store(clips, RemoveSilence(), tmp_path / "cache")
    assert 8000 < store.lengths[0] < 12_000
    assert np.array_equal(whole(store, 0), wave[first:last])


# ---------------------------------------------------------------------------------------------- decoding

def test_16_bit_clips_keep_their_samples_and_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "available_cores", lambda: 1)     # chunks of 16 clips; their order must be kept
    sounds = {f"{i:02d}.wav": noise(50 + 7 * i, i) for i in range(20)}
    clips, store = open_store(write_clips(tmp_path, sounds), None, tmp_path / "cache")
    assert list(clips.fnames) == list(sounds) and store.sample_rate == RATE and len(store) == 20
    for i, samples in enumerate(sounds.values()):
        assert np.array_equal(whole(store, i), samples)
    assert store.hours == pytest.approx(sum(map(len, sounds.values())) / RATE / 3600)


@pytest.mark.parametrize("name, subtype", [
    ("a.wav", "PCM_24"), ("a.wav", "PCM_U8"), ("a.wav", "FLOAT"),
    ("a.flac", "PCM_16"), ("a.flac", "PCM_24"), ("a.ogg", "VORBIS")])
def test_other_formats_are_scaled_to_16_bits_and_rounded(tmp_path, name, subtype):
    tone = 0.5 * np.sin(np.arange(9000) / 9) + np.random.default_rng(0).normal(0, 0.05, 9000)
    soundfile.write(tmp_path / name, tone, RATE, subtype=subtype)
    _, store = open_store(clips_of(tmp_path, [name]), None, tmp_path / "cache")
    expected = np.rint(soundfile.read(tmp_path / name)[0] * 32768)
    assert np.abs(expected).max() > 10_000
    assert np.array_equal(whole(store, 0), expected)


def test_a_wav_that_was_written_to_a_pipe_is_complete(tmp_path):
    clips = write_clips(tmp_path, {"a.wav": noise(600)})
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[:40] + b"\xff" * 4 + data[44:])       # the length was unknown
    assert np.array_equal(whole(open_store(clips, None, tmp_path / "cache")[1], 0), noise(600))


@pytest.mark.parametrize("missing", [0, 10])
def test_chunks_before_the_samples_are_skipped(tmp_path, missing):
    clips = write_clips(tmp_path, {"a.wav": noise(600), "b.wav": noise(50)})
    data = (tmp_path / "a.wav").read_bytes()
    note = b"note" + struct.pack("<I", 3) + b"abc\0"          # an odd length is padded with one byte
    data = data[:4] + struct.pack("<I", len(data) + len(note) - 8) + data[8:36] + note + data[36:len(data) - missing]
    (tmp_path / "a.wav").write_bytes(data)
    if missing:
        with pytest.raises(TaggingError, match=r"a\.wav: cut short: 10 of 1200 bytes"):
            open_store(clips, None, tmp_path / "cache")
    else:
        assert np.array_equal(whole(open_store(clips, None, tmp_path / "cache")[1], 0), noise(600))


# ---------------------------------------------------------------------------------------------- faulty clips

FAULTS = {
    "empty.wav": "0 bytes",
    "stub.wav": "cut short: it has no data chunk",
    "header.wav": "cut short: 8000 of 8000 bytes are missing",
    "cut.wav": "cut short: 1001 of 8000 bytes are missing",
    "none.wav": "no samples",
    "stereo.wav": "2 channels, but a clip must be mono",
    "rate.wav": "8000 Hz where most clips have 16000 Hz",
    "slow.wav": "a sample rate of 500 Hz, but it must be from 1000 to 400000 Hz",
    "zero.wav": "all silence",
    "constant.wav": "all silence",
    "text.wav": "unreadable (",
    "cut.flac": "damaged or cut short (flac decoder lost sync.)",
    "nan.wav": "some samples are not finite numbers",
    "infinite.wav": "some samples are not finite numbers",
}
GOOD = {"a.wav": noise(900, 1), "m.wav": noise(800, 2), "z.wav": noise(700, 3)}


@pytest.fixture
def faulty(tmp_path):
    """One clip with each fault, between good clips."""
    folder = tmp_path / "clips"
    write_clips(folder, GOOD | {"zero.wav": np.zeros(4000, np.int16), "constant.wav": np.full(4000, 77, np.int16),
                                "none.wav": noise(0)})
    soundfile.write(folder / "whole.wav", noise(4000), RATE)
    data = (folder / "whole.wav").read_bytes()
    for name, size in (("empty.wav", 0), ("stub.wav", 20), ("header.wav", 44), ("cut.wav", len(data) - 1001)):
        (folder / name).write_bytes(data[:size])
    soundfile.write(folder / "stereo.wav", np.stack([noise(4000), noise(4000, 1)], 1), RATE)
    soundfile.write(folder / "rate.wav", noise(4000), 8000)
    soundfile.write(folder / "slow.wav", noise(4000), 500)
    soundfile.write(folder / "whole.flac", noise(20_000), RATE)
    (folder / "cut.flac").write_bytes((folder / "whole.flac").read_bytes()[:20_000])
    (folder / "text.wav").write_text("404: not found\n" * 40)
    for name, value in (("nan.wav", np.nan), ("infinite.wav", np.inf)):
        soundfile.write(folder / name, np.array([0.1, value, -0.1] * 100), RATE, subtype="FLOAT")
    return clips_of(folder, ["a.wav", *list(FAULTS)[:6], "m.wav", *list(FAULTS)[6:], "z.wav"])


def test_one_error_lists_all_faulty_clips_with_their_reasons(faulty, tmp_path):
    with pytest.raises(TaggingError) as caught:
        open_store(faulty, RemoveSilence(), tmp_path / "cache")
    head, *lines, remedy = str(caught.value).splitlines()
    assert head.startswith(f"{len(FAULTS)} of {len(faulty)} clips") and str(faulty.csv) in head
    listed = dict(line.strip().split(": ", 1) for line in lines)
    assert listed.keys() == FAULTS.keys() and len(lines) == len(FAULTS)
    for fname, reason in FAULTS.items():
        assert listed[fname].startswith(reason), fname
        assert reason.endswith("(") or listed[fname] == reason
    assert "--skip-bad-clips" in remedy


def test_faulty_clips_are_dropped_and_logged_and_the_others_keep_their_order(faulty, tmp_path, caplog):
    caplog.set_level(logging.INFO, "tagging")
    for _ in range(2):                        # with a new store, and with the existing one
        caplog.clear()
        clips, store = open_store(faulty, None, tmp_path / "cache", skip_bad=True)
        assert f"left out {len(FAULTS)} curated clips" in caplog.text
        assert all(f"{fname}: {reason}" in caplog.text for fname, reason in FAULTS.items())
        assert list(clips.fnames) == [path.name for path in clips.paths] == list(GOOD)
        assert clips.targets[:, 0].tolist() == [0, 7, len(faulty) - 1]
        assert all(np.array_equal(whole(store, i), samples) for i, samples in enumerate(GOOD.values()))


def test_the_error_names_the_csv_if_no_clip_can_be_used(faulty, tmp_path):
    bad = clips_of(tmp_path / "clips", ["zero.wav", "cut.wav"])
    with pytest.raises(TaggingError, match=r"No clip of .*train\.csv"):
        open_store(bad, None, tmp_path / "cache", skip_bad=True)


def test_the_error_names_both_rates_if_the_clips_have_another_one_than_the_model(tmp_path):
    clips = write_clips(tmp_path, {"a.wav": noise(300)})
    assert len(open_store(clips, None, tmp_path / "cache", sample_rate=RATE)[1]) == 1
    with pytest.raises(TaggingError, match=r"train.csv have 16000 Hz.*44100 Hz"):
        open_store(clips, None, tmp_path / "cache", sample_rate=44_100)
