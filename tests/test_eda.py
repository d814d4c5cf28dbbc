"""What tagging.reporting.eda finds in sounds and labels, worked out by hand."""
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from tagging.data.competition import Clips, open_competition
from tagging.data.waveforms import open_store
from tagging.errors import TaggingError
from tagging.reporting import eda
from tagging_lite.audio import RemoveSilence

CLASSES = ["a", "b", "c"]
RATE = 16_000


@pytest.fixture
def measured(tmp_path):
    """Write sounds as one split, and measure them."""
    def write(split: str, labels: list | None = None, **sounds) -> tuple[Clips, pd.DataFrame]:
        paths = []
        for name, (wave, rate, subtype) in sounds.items():
            paths.append(tmp_path / f"{split}-{name}.wav")
            soundfile.write(paths[-1], wave, rate, subtype=subtype)
        clips = Clips(split, tmp_path / f"{split}.csv", pd.Index(list(sounds)), paths,
                      np.zeros((len(sounds), 0), np.uint8) if labels is None else np.array(labels, np.uint8))
        return clips, eda.measure_sounds(clips, RemoveSilence())
    return write


def square(samples: int, level: int) -> np.ndarray:
    """A square wave: its energy is that of each sample."""
    return np.resize(np.array([level, -level], np.int16), samples)


def labelled(split: str, *rows: list) -> Clips:
    names = pd.Index([f"{split}{number}" for number in range(len(rows))])
    return Clips(split, None, names, [None] * len(rows), np.array(rows, np.uint8))


def test_a_clip_is_measured_in_seconds_and_decibels(measured):
    """A second of silence, two of a square wave of half scale, and half a second of silence."""
    wave = np.concatenate([np.zeros(RATE, np.int16), square(2 * RATE, 16384), np.zeros(RATE // 2, np.int16)])
    _, sounds = measured("curated", loud=(wave, RATE, "PCM_16"))
    clip = sounds.loc["loud"]
    assert (clip.seconds, clip.sample_rate, clip.format, clip.channels, clip.fault) == (3.5, RATE, "PCM_16", 1, "")
    assert clip.peak == pytest.approx(20 * math.log10(0.5))
    assert clip.noise_floor == pytest.approx(-100)          # 10 of its 27 frames are nothing but silence
    assert clip.silence_start == pytest.approx(1, abs=0.1) and clip.silence_end == pytest.approx(0.5, abs=0.1)
    assert clip.silence_start < 1 and clip.silence_end < 0.5        # some is kept on either side


def test_the_noise_floor_is_the_tenth_percentile_of_the_frames():
    """Of eleven frames whose levels rise by 2 dB, a tenth lies below the second lowest."""
    wave = np.concatenate([square(2048, round(32768 * 10 ** (level / 20))) for level in -40 + 2 * np.arange(11)])
    assert eda.noise_floor(wave) == pytest.approx(-38, abs=0.05)
    assert eda.noise_floor(np.append(wave, np.zeros(2047, np.int16))) == pytest.approx(-38, abs=0.05)
    assert eda.noise_floor(square(100, 16384)) == pytest.approx(-6.02, abs=0.01)        # shorter than a frame
    sine = np.round(32767 * np.sin(np.arange(4096) * np.pi / 8)).astype(np.int16)
    assert eda.noise_floor(sine) == pytest.approx(-3.01, abs=0.01)


def test_the_clips_that_cannot_be_used_are_those_that_stop_a_training(sample, tmp_path, capsys):
    shutil.copytree(sample, tmp_path / "data")
    clips = open_competition(tmp_path / "data").clips("curated")
    stereo, silent, short, text, slow = clips.paths[:5]
    wave = square(RATE, 8000)
    soundfile.write(stereo, np.stack([wave, wave], 1), RATE)
    soundfile.write(silent, np.zeros(RATE), RATE)
    short.write_bytes(short.read_bytes()[:-500])
    text.write_text("no sound")
    soundfile.write(slow, wave, 8000)
    sounds = eda.measure_sounds(clips, RemoveSilence())
    _, store = open_store(clips, RemoveSilence(), tmp_path / "cache", skip_bad=True)
    found = eda.unusable({"curated": sounds})
    assert dict(zip(found.fname, found.fault)) == store.faults and len(found) == 5
    assert len(eda.usable(sounds)) == len(clips) - 5
    assert np.isnan(sounds.seconds[stereo.name]) and sounds.channels[stereo.name] == 2
    counts = eda.formats({"curated": sounds}).set_index(["sample_rate", "channels"]).clips
    assert counts.to_dict() == {(RATE, 2): 1, (RATE, 1): len(clips) - 4, (8000, 1): 1}     # two have no header to read


def test_a_sample_of_the_clips_is_drawn_by_seed_and_keeps_their_order():
    clips = labelled("noisy", *[[1, 0, 0]] * 50)
    some = eda.choose_clips(clips, 10)
    places = [list(clips.fnames).index(fname) for fname in some.fnames]
    assert len(some) == 10 and places == sorted(places)
    assert list(eda.choose_clips(clips, 10).fnames) == list(some.fnames)
    assert list(eda.choose_clips(clips, 10, seed=1).fnames) != list(some.fnames)
    assert len(eda.choose_clips(clips, 0)) == len(eda.choose_clips(clips, 60)) == 50


def test_labels_are_counted_by_class_by_clip_and_by_pair():
    splits = {"curated": labelled("curated", [1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 1]),
             "noisy": labelled("noisy", [0, 1, 0], [0, 0, 0]),
             "test": Clips("test", None, pd.Index(["x"]), [None], np.zeros((1, 0), np.uint8))}
    by_class = eda.labels_by_class(splits, CLASSES)
    assert by_class.to_dict("list") == {"curated": [3, 2, 2], "noisy": [0, 1, 0]} and list(by_class.index) == CLASSES
    by_clip = eda.labels_per_clip(splits)
    assert by_clip.to_dict("list") == {"curated": [0, 2, 1, 1], "noisy": [1, 1, 0, 0]}

    counts = eda.co_occurrence(splits["curated"], CLASSES)
    assert counts.to_numpy().tolist() == [[3, 2, 1], [2, 2, 1], [1, 1, 2]]
    pairs = eda.frequent_pairs(counts, 2)
    assert pairs.to_dict("records") == [
        {"class": "a", "other": "b", "clips": 2, "share of class": pytest.approx(2 / 3), "share of other": 1},
        {"class": "a", "other": "c", "clips": 1, "share of class": pytest.approx(1 / 3), "share of other": 0.5}]


def test_the_overview_is_of_all_clips_and_of_those_that_can_be_used(measured):
    clips, sounds = measured("curated", [[1, 1, 0], [1, 0, 0], [0, 0, 1]], one=(square(RATE, 9000), RATE, "PCM_16"),
                             three=(square(3 * RATE, 9000), RATE, "PCM_16"), silent=(np.zeros(RATE), RATE, "PCM_16"))
    test, test_sounds = measured("test", two=(square(2 * RATE, 9000), RATE, "PCM_24"))
    table = eda.overview({"curated": clips, "test": test}, {"curated": sounds, "test": test_sounds})
    row = table.set_index("split").loc["curated"]
    assert (row.clips, row.labels, row.measured, row.unusable) == (3, 4, 3, 1)
    assert row.hours == pytest.approx(4 / 3600)
    assert (row["shortest s"], row["median s"], row["longest s"], row["silence %"]) == (1, 2, 3, 0)
    assert pd.isna(table.labels[1]) and table["longest s"][1] == 2


def test_the_same_samples_are_found_across_parts_whatever_the_format(measured):
    wave, other = square(RATE, 9000), square(RATE, 9001)
    curated, first = measured("curated", [[1, 0, 0], [0, 1, 0]], x=(wave, RATE, "PCM_16"), y=(other, RATE, "PCM_16"))
    noisy, second = measured("noisy", [[0, 1, 1]], z=(wave, RATE, "PCM_24"))
    table = eda.duplicates({"curated": curated, "noisy": noisy}, {"curated": first, "noisy": second}, CLASSES)
    assert table.to_dict("list") == {"group": [1, 1], "split": ["curated", "noisy"], "fname": ["x", "z"],
                                     "labels": ["a", "b,c"]}


def test_the_outermost_clips_are_named(measured):
    quiet, silence = square(2 * RATE, 100), np.zeros(RATE, np.int16)
    _, sounds = measured("curated", quiet=(quiet, RATE, "PCM_16"), loud=(square(3 * RATE, 32000), RATE, "PCM_16"),
                         late=(np.concatenate([silence, square(RATE // 2, 3000)]), RATE, "PCM_16"))
    table = eda.extremes({"curated": sounds}, count=1).set_index("what")
    assert table.fname.to_dict() == {"shortest": "late", "longest": "loud", "quietest": "quiet", "noisiest": "loud",
                                     "most silence": "late"}
    assert table.value["longest"] == "3.00 s" and table.value["quietest"] == "peak -50.3 dBFS"


def test_parts_that_are_not_there_are_left_out(sample, tmp_path):
    shutil.copytree(sample, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "train_noisy")
    assert list(eda.open_splits(open_competition(tmp_path / "data"))) == ["curated", "test"]
    for folder in ("train_curated", "test"):
        shutil.rmtree(tmp_path / "data" / folder)
    with pytest.raises(TaggingError, match="holds no set of clips"):
        eda.open_splits(open_competition(tmp_path / "data"))
