"""The wave store: what stands in it, crops of it, and how it is made."""
import hashlib
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from clips import MARGIN, RATE, folders, noise, whole, write_clips
from clips import small_margin as small_margin

from tagging.data import waveforms
from tagging.data.waveforms import WaveStore, open_store
from tagging.errors import TaggingError
from tagging_lite.audio import RemoveSilence

ROOT = Path(__file__).parents[1]


@pytest.fixture
def three(tmp_path):
    """Three clips of different lengths: their samples, and their open store."""
    sounds = {f"{i}.wav": noise(length, i) for i, length in enumerate((700, 1500, 90))}
    clips = write_clips(tmp_path / "clips", sounds)
    return list(sounds.values()), open_store(clips, None, tmp_path / "cache")[1]


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded, as they are."""
    names, load = [], waveforms.load_clip

    def spy(path, trim):
        names.append(path.name)
        return load(path, trim)

    monkeypatch.setattr(waveforms, "load_clip", spy)
    return names


# ---------------------------------------------------------------------------------------------- RemoveSilence


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
    load = waveforms.load_clip

    def broken(path, trim):
        if path.name == "2.wav":
            raise error
        return load(path, trim)

    with monkeypatch.context() as patch:
        patch.setattr(waveforms, "load_clip", broken)
        with pytest.raises(type(error)):
            open_store(clips, None, tmp_path / "cache")
    assert folders(tmp_path / "cache") == []
    assert len(open_store(clips, None, tmp_path / "cache")[1]) == 3


def test_a_build_that_is_killed_leaves_no_store_and_the_next_one_clears_up(tmp_path):
    clips = write_clips(tmp_path / "clips", {f"{i}.wav": noise(300, i) for i in range(3)})
    code = """
import os, pathlib, signal, sys
import pandas as pd
from tagging.data import waveforms
from tagging.data.competition import Clips
load = waveforms.load_clip
waveforms.load_clip = lambda path, trim: (
    os.kill(os.getpid(), signal.SIGKILL) if path.name == "2.wav" else load(path, trim))
folder, cache = map(pathlib.Path, sys.argv[1:])
paths = sorted(folder.iterdir())
clips = Clips("curated", folder / "train.csv", pd.Index([path.name for path in paths]), paths, None)
waveforms.open_store(clips, None, cache)
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
    load = waveforms.load_clip

    def slow(path, trim):
        time.sleep(0.3)                          # the other one finds no store yet
        return load(path, trim)

    monkeypatch.setattr(waveforms, "load_clip", slow)
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
def test_a_damaged_store_is_named_and_made_again(tmp_path, name, damage, caplog):
    clips = write_clips(tmp_path, {"a.wav": noise(300, 1), "b.wav": noise(200, 2)})
    open_store(clips, None, tmp_path / "cache")
    folder, = folders(tmp_path / "cache")
    damage(folder / name)
    with pytest.raises(TaggingError) as caught:
        WaveStore.open(folder)
    assert str(folder / name) in str(caught.value)
    assert "built again" not in caplog.text
    _, store = open_store(clips, None, tmp_path / "cache")
    out = caplog.text
    assert str(folder / name) in out and "built again" in out
    assert np.array_equal(whole(store, 0), noise(300, 1)) and np.array_equal(whole(store, 1), noise(200, 2))
    caplog.clear()
    open_store(clips, None, tmp_path / "cache")
    assert not caplog.messages


def test_another_process_reads_the_same_samples(three, tmp_path):
    _, store = three
    folder, = folders(tmp_path / "cache")
    code = f"""
import hashlib, pathlib, sys
import numpy as np
from tagging.data import waveforms
waveforms.MARGIN = {MARGIN}
store = waveforms.WaveStore.open(pathlib.Path(sys.argv[1]))
print(len(store), store.sample_rate, hashlib.sha256(store.crops(np.arange(3), np.array([-9, 0, 9]), 800)).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    digest = hashlib.sha256(store.crops(np.arange(3), np.array([-9, 0, 9]), 800)).hexdigest()
    assert done.stdout.split() == ["3", str(RATE), digest]


def test_an_open_store_cannot_be_written_to(three):
    with pytest.raises(ValueError, match="read-only"):
        three[1].samples[0] = 1


def test_the_margin_holds_a_minute_at_any_usual_rate(monkeypatch):
    monkeypatch.undo()
    assert waveforms.MARGIN >= 60 * 48_000        # the longest --crop-seconds


def test_a_store_without_its_folder_is_told(tmp_path):
    with pytest.raises(TaggingError, match=r"index\.json could not be read"):
        WaveStore.open(tmp_path / "nothing")
