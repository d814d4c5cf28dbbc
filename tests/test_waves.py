"""Trimming, the wave store, and what is said of clips that cannot be used."""
import hashlib
import os
import resource
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tagging import waves
from tagging.audio import RemoveSilence
from tagging.competition import Clips
from tagging.errors import TaggingError
from tagging.waves import WaveStore, open_store

RATE = 16_000
MARGIN = 12_000
ROOT = Path(__file__).parents[1]
PARITY = ROOT / "tests" / "data" / "parity.npz"


@pytest.fixture(autouse=True)
def small_margin(monkeypatch):
    """The real margin would write 16 MB for every store."""
    monkeypatch.setattr(waves, "MARGIN", MARGIN)


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def write_clips(folder, sounds):
    """Write {name: samples} as 16-bit WAV, and describe them as a part of a competition does."""
    folder.mkdir(exist_ok=True)
    for fname, samples in sounds.items():
        soundfile.write(folder / fname, samples, RATE)
    return clips_of(folder, sounds)


def clips_of(folder, fnames):
    fnames = list(fnames)
    return Clips("curated", folder / "train.csv", pd.Index(fnames), [folder / fname for fname in fnames],
                 np.arange(len(fnames))[:, None])


def whole(store, clip):
    return store.crops(np.array([clip]), np.array([0]), int(store.lengths[clip]))[0]


def folders(cache):
    """All that lies in a cache, hidden or not, but for lock files."""
    return [path for path in cache.iterdir() if path.is_dir()]


@pytest.fixture
def three(tmp_path):
    """Three clips of different lengths: their samples, and their open store."""
    sounds = {f"{i}.wav": noise(length, i) for i, length in enumerate((700, 1500, 90))}
    clips = write_clips(tmp_path / "clips", sounds)
    return list(sounds.values()), open_store(clips, None, tmp_path / "cache")[1]


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded, as they are."""
    names, load = [], waves.load_clip

    def spy(path, trim):
        names.append(path.name)
        return load(path, trim)

    monkeypatch.setattr(waves, "load_clip", spy)
    return names


# ---------------------------------------------------------------------------------------------- RemoveSilence

@pytest.mark.parametrize("clip", ["00", "01", "02", "03", "04", "05"])
def test_bounds_equal_fastaudios_to_the_sample(clip):
    with np.load(PARITY) as parity:
        # Stored as differences, low bytes before high ones: half the size.
        differences = parity[f"{clip}_wave"].T.copy().view("<i2").ravel()
        expected = parity[f"{clip}_trim"]
    assert RemoveSilence().bounds(np.cumsum(differences, dtype=np.int16), 44_100) == tuple(expected)


@pytest.mark.parametrize("rate, threshold", [(44_100, 20), (16_000, 20), (16_000, 45)])
@pytest.mark.parametrize("front, gap, end", [(5000, 0, 3000), (2048, 9000, 2048), (20_011, 300, 13_007)])
def test_bounds_equal_librosas_where_padding_makes_no_difference(rate, threshold, front, gap, end):
    """librosa pads with zeros since 0.9; at silent ends reflection gives zeros too."""
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


def test_no_samples_have_no_bounds():
    assert RemoveSilence().bounds(noise(0), 44_100) == (0, 0)


def test_the_store_holds_the_trimmed_clip(tmp_path):
    wave = np.concatenate([np.zeros(9000, np.int16), noise(8000), np.zeros(7000, np.int16)])
    clips = write_clips(tmp_path, {"a.wav": wave})
    first, last = RemoveSilence().bounds(wave, RATE)
    _, store = open_store(clips, RemoveSilence(), tmp_path / "cache")
    assert 8000 < store.lengths[0] < 12_000
    assert np.array_equal(whole(store, 0), wave[first:last])


# ---------------------------------------------------------------------------------------------- decoding

def test_16_bit_clips_keep_their_samples_and_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)      # a chunk is 16 clips: the order must survive its end
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


def test_floats_beyond_full_scale_are_clipped_and_do_not_wrap(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.0, 1.5, -1.5, 1.0, 0.25]), RATE, subtype="FLOAT")
    _, store = open_store(clips_of(tmp_path, ["a.wav"]), None, tmp_path / "cache")
    assert whole(store, 0).tolist() == [0, 32767, -32768, 32767, 8192]


def test_a_wav_that_was_written_to_a_pipe_is_whole(tmp_path):
    clips = write_clips(tmp_path, {"a.wav": noise(600)})
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[:40] + b"\xff" * 4 + data[44:])       # its length was unknown at the start
    assert np.array_equal(whole(open_store(clips, None, tmp_path / "cache")[1], 0), noise(600))


@pytest.mark.parametrize("missing", [0, 10])
def test_chunks_before_the_samples_are_passed_over(tmp_path, missing):
    clips = write_clips(tmp_path, {"a.wav": noise(600), "b.wav": noise(50)})
    data = (tmp_path / "a.wav").read_bytes()
    note = b"note" + struct.pack("<I", 3) + b"abc\0"          # of odd length, so one byte is added
    data = data[:4] + struct.pack("<I", len(data) + len(note) - 8) + data[8:36] + note + data[36:len(data) - missing]
    (tmp_path / "a.wav").write_bytes(data)
    if missing:
        with pytest.raises(TaggingError, match=r"a\.wav: cut short: 10 of 1200 bytes"):
            open_store(clips, None, tmp_path / "cache")
    else:
        assert np.array_equal(whole(open_store(clips, None, tmp_path / "cache")[1], 0), noise(600))


# ---------------------------------------------------------------------------------------------- crops

@pytest.mark.parametrize("size", [1, 64, 700, 3000])
def test_a_crop_is_a_slice_of_its_clip_with_zeros_outside(three, size):
    sounds, store = three
    rng = np.random.default_rng(size)
    clips = rng.integers(0, 3, 300)
    lengths = np.array([len(sounds[clip]) for clip in clips])
    starts = rng.integers(-size - 5, lengths + 6)             # from wholly before the clip to wholly after it
    starts[:3], clips[:3] = (0, -size, len(sounds[0])), 0
    for _ in range(2):                                        # what is zeroed is the crop, not the store
        crops = store.crops(clips, starts, size)
        assert crops.shape == (300, size) and crops.dtype == np.int16
        for crop, clip, start in zip(crops, clips, starts):
            around = np.pad(sounds[clip], size + 10)          # only zeros about it: no sample of a neighbour
            assert np.array_equal(crop, around[start + size + 10:][:size])


def test_a_crop_longer_than_the_margin_is_refused(three):
    with pytest.raises(TaggingError, match="--crop-seconds"):
        three[1].crops(np.array([0]), np.array([0]), MARGIN + 1)


@pytest.mark.parametrize("keep", [np.array([True, False, True]), np.array([2, 0])])
def test_a_subset_holds_the_chosen_clips(three, keep):
    sounds, store = three
    chosen = [sounds[i] for i in np.arange(3)[keep]]
    view = store.subset(keep)
    assert len(view) == 2
    assert all(np.array_equal(whole(view, i), samples) for i, samples in enumerate(chosen))
    assert len(store) == 3


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_batches_hand_over_every_crop_in_order(three, batch_size):
    _, store = three
    clips, starts = np.arange(10) % 3, np.arange(10) * 40 - 100
    batches = list(store.batches(clips, starts, 200, batch_size, torch.device("cpu")))
    places = [np.arange(10)[place] for place, _ in batches]
    assert np.array_equal(np.concatenate(places), np.arange(10))
    assert [len(crops) for _, crops in batches] == [len(place) for place in places]
    assert max(map(len, places)) <= batch_size
    assert np.array_equal(torch.cat([crops for _, crops in batches]), store.crops(clips, starts, 200))


def test_batches_can_begin_later(three):
    _, store = three
    clips, starts = np.arange(10) % 3, np.arange(10) * 40 - 100
    every = list(store.batches(clips, starts, 200, 4, torch.device("cpu")))
    later = list(store.batches(clips, starts, 200, 4, torch.device("cpu"), first=4))
    assert [place for place, _ in later] == [place for place, _ in every[1:]]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(later, every[1:], strict=True))
    assert list(store.batches(clips, starts, 200, 5, torch.device("cpu"), first=10)) == []


# ---------------------------------------------------------------------------------------------- the store's life

def test_a_store_is_made_once_and_again_when_a_file_changes(tmp_path, decoded):
    clips = write_clips(tmp_path, {"a.wav": noise(300, 1), "b.wav": noise(300, 2)})
    for _ in range(2):
        open_store(clips, None, tmp_path / "cache")
    assert sorted(decoded) == ["a.wav", "b.wav"]

    soundfile.write(tmp_path / "b.wav", noise(300, 3), RATE)          # of the same size
    os.utime(tmp_path / "b.wav", ns=(0, 1))
    _, store = open_store(clips, None, tmp_path / "cache")
    assert len(decoded) == 4
    assert np.array_equal(whole(store, 1), noise(300, 3))


def test_a_store_is_made_again_for_another_trim_or_other_clips(tmp_path, decoded):
    clips = write_clips(tmp_path, {"a.wav": noise(300, 1), "b.wav": noise(300, 2)})
    for trim in (None, RemoveSilence(), RemoveSilence(threshold=30.0)):
        open_store(clips, trim, tmp_path / "cache")
    assert len(decoded) == 6
    swapped, store = open_store(clips.subset(np.array([1, 0])), None, tmp_path / "cache")
    assert list(swapped.fnames) == ["b.wav", "a.wav"]
    assert np.array_equal(whole(store, 0), noise(300, 2))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError(), KeyboardInterrupt(), SystemExit(143)])
def test_a_build_that_is_broken_off_leaves_nothing(tmp_path, monkeypatch, error):
    clips = write_clips(tmp_path, {f"{i}.wav": noise(300, i) for i in range(3)})
    load = waves.load_clip

    def broken(path, trim):
        if path.name == "2.wav":
            raise error
        return load(path, trim)

    with monkeypatch.context() as patch:
        patch.setattr(waves, "load_clip", broken)
        with pytest.raises(type(error)):
            open_store(clips, None, tmp_path / "cache")
    assert folders(tmp_path / "cache") == []
    assert len(open_store(clips, None, tmp_path / "cache")[1]) == 3


def test_a_build_that_is_killed_leaves_no_store_and_the_next_one_clears_up(tmp_path):
    clips = write_clips(tmp_path / "clips", {f"{i}.wav": noise(300, i) for i in range(3)})
    code = """
import os, pathlib, signal, sys
import pandas as pd
from tagging import waves
from tagging.competition import Clips
load = waves.load_clip
waves.load_clip = lambda path, trim: os.kill(os.getpid(), signal.SIGKILL) if path.name == "2.wav" else load(path, trim)
folder, cache = map(pathlib.Path, sys.argv[1:])
paths = sorted(folder.iterdir())
clips = Clips("curated", folder / "train.csv", pd.Index([path.name for path in paths]), paths, None)
waves.open_store(clips, None, cache)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "clips", tmp_path / "cache"], cwd=ROOT,
                          capture_output=True)
    assert done.returncode == -9, done.stderr
    assert all(folder.name.startswith(".") for folder in folders(tmp_path / "cache"))
    _, store = open_store(clips, None, tmp_path / "cache")
    assert np.array_equal(whole(store, 2), noise(300, 2))
    assert [folder.name.startswith("curated-") for folder in folders(tmp_path / "cache")] == [True]


def test_a_full_disk_is_told_with_its_remedy_and_leaves_nothing(tmp_path):
    clips = write_clips(tmp_path, {"a.wav": noise(300)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MARGIN, before[1]))       # no room for even the first margin
    try:
        with pytest.raises(TaggingError, match=r"cache/curated-\w+ could not be written: File too large.*--cache"):
            open_store(clips, None, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert folders(tmp_path / "cache") == []


def test_of_two_that_want_a_store_at_once_one_makes_it(tmp_path, monkeypatch, decoded):
    clips = write_clips(tmp_path, {"a.wav": noise(300)})
    load = waves.load_clip

    def slow(path, trim):
        time.sleep(0.3)                          # the other one finds no store yet
        return load(path, trim)

    monkeypatch.setattr(waves, "load_clip", slow)
    with ThreadPoolExecutor(2) as pool:
        stores = [store for _, store in pool.map(lambda _: open_store(clips, None, tmp_path / "cache"), range(2))]
    assert all(np.array_equal(whole(store, 0), noise(300)) for store in stores)
    assert decoded == ["a.wav"]
    assert len(folders(tmp_path / "cache")) == 1


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name, damage", [
    ("samples.i16", lambda path: os.truncate(path, path.stat().st_size - 2)),
    ("samples.i16", lambda path: flip(path, 2 * MARGIN)),
    ("samples.i16", lambda path: flip(path, -2 * MARGIN - 1)),
    ("samples.i16", Path.unlink),
    ("index.json", lambda path: os.truncate(path, path.stat().st_size // 2)),
    ("index.json", lambda path: path.write_text("{}")),
    ("index.json", Path.unlink)],
    ids=["cut short", "first sample", "last sample", "no samples", "index cut", "index empty", "no index"])
def test_a_damaged_store_is_named_and_made_again(tmp_path, name, damage, capsys):
    clips = write_clips(tmp_path, {"a.wav": noise(300, 1), "b.wav": noise(200, 2)})
    open_store(clips, None, tmp_path / "cache")
    folder, = folders(tmp_path / "cache")
    damage(folder / name)
    with pytest.raises(TaggingError) as caught:
        WaveStore(folder)
    assert str(folder / name) in str(caught.value)
    assert "made again" not in capsys.readouterr().out
    _, store = open_store(clips, None, tmp_path / "cache")
    out = capsys.readouterr().out
    assert str(folder / name) in out and "made again" in out
    assert np.array_equal(whole(store, 0), noise(300, 1)) and np.array_equal(whole(store, 1), noise(200, 2))
    open_store(clips, None, tmp_path / "cache")
    assert "made again" not in capsys.readouterr().out


def test_another_process_reads_the_same_samples(three, tmp_path):
    _, store = three
    folder, = folders(tmp_path / "cache")
    code = f"""
import hashlib, pathlib, sys
import numpy as np
from tagging import waves
waves.MARGIN = {MARGIN}
store = waves.WaveStore(pathlib.Path(sys.argv[1]))
print(len(store), store.sample_rate, hashlib.sha256(store.crops(np.arange(3), np.array([-9, 0, 9]), 800)).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    digest = hashlib.sha256(store.crops(np.arange(3), np.array([-9, 0, 9]), 800)).hexdigest()
    assert done.stdout.split() == ["3", str(RATE), digest]


def test_an_open_store_cannot_be_written_to(three):
    with pytest.raises(ValueError, match="read-only"):
        three[1].samples[0] = 1


# ---------------------------------------------------------------------------------------------- clips of no use

FAULTS = {
    "empty.wav": "0 bytes",
    "stub.wav": "cut short: it has no data chunk",
    "header.wav": "cut short: 8000 of 8000 bytes are missing",
    "cut.wav": "cut short: 1001 of 8000 bytes are missing",
    "none.wav": "no samples",
    "stereo.wav": "2 channels where one is expected",
    "rate.wav": "8000 Hz where most clips have 16000 Hz",
    "slow.wav": "a sample rate of 500 Hz",
    "zero.wav": "all silence",
    "constant.wav": "all silence",
    "text.wav": "unreadable (",
    "cut.flac": "unreadable (",
    "nan.wav": "samples that are not finite numbers",
    "infinite.wav": "samples that are not finite numbers",
}
GOOD = {"a.wav": noise(900, 1), "m.wav": noise(800, 2), "z.wav": noise(700, 3)}


@pytest.fixture
def faulty(tmp_path):
    """Each fault once, between good clips."""
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


def test_all_faulty_clips_are_told_at_once_each_with_its_reason(faulty, tmp_path):
    with pytest.raises(TaggingError) as caught:
        open_store(faulty, RemoveSilence(), tmp_path / "cache")
    head, *lines, remedy = str(caught.value).splitlines()
    assert head.startswith(f"{len(FAULTS)} of {len(faulty)} clips") and str(faulty.csv) in head
    told = dict(line.strip().split(": ", 1) for line in lines)
    assert told.keys() == FAULTS.keys() and len(lines) == len(FAULTS)
    for fname, reason in FAULTS.items():
        assert told[fname].startswith(reason), fname
        assert reason.endswith("(") or told[fname] == reason
    assert "--skip-bad-clips" in remedy


def test_faulty_clips_are_left_out_by_name_and_the_rest_keeps_its_order(faulty, tmp_path, capsys):
    for _ in range(2):                        # from the store that is made, and from the one that is found
        clips, store = open_store(faulty, None, tmp_path / "cache", skip_bad=True)
        out = capsys.readouterr().out
        assert f"left out {len(FAULTS)} curated clips" in out
        assert all(f"{fname}: {reason}" in out for fname, reason in FAULTS.items())
        assert list(clips.fnames) == [path.name for path in clips.paths] == list(GOOD)
        assert clips.targets[:, 0].tolist() == [0, 7, len(faulty) - 1]
        assert all(np.array_equal(whole(store, i), samples) for i, samples in enumerate(GOOD.values()))


def test_where_no_clip_is_good_the_error_names_the_csv(faulty, tmp_path):
    bad = clips_of(tmp_path / "clips", ["zero.wav", "cut.wav"])
    with pytest.raises(TaggingError, match=r"No clip of .*train\.csv"):
        open_store(bad, None, tmp_path / "cache", skip_bad=True)


def test_clips_of_another_rate_than_the_models_are_refused_with_both_rates(tmp_path):
    clips = write_clips(tmp_path, {"a.wav": noise(300)})
    assert len(open_store(clips, None, tmp_path / "cache", sample_rate=RATE)[1]) == 1
    with pytest.raises(TaggingError, match=r"train.csv have 16000 Hz.*44100 Hz"):
        open_store(clips, None, tmp_path / "cache", sample_rate=44_100)


def test_the_margin_holds_a_minute_at_any_usual_rate(monkeypatch):
    monkeypatch.undo()
    assert waves.MARGIN >= 60 * 48_000        # the longest --crop-seconds


def test_a_store_without_its_folder_is_told(tmp_path):
    with pytest.raises(TaggingError, match=r"index\.json could not be read"):
        WaveStore(tmp_path / "nothing")
