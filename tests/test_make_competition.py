"""Own sounds laid out as a competition, and the scripts run on it."""
import resource
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
from clips import RATE
from conftest import TINY, digests
from own_sounds import TOOL, sound, table, write
from own_sounds import folders as folders
from own_sounds import listed as listed
from own_sounds import shop as shop

from tagging import errors
from tagging.data.competition import open_competition
from tools import make_competition


def test_a_folder_of_classes_becomes_a_competition_of_mono_wav(shop, folders):
    result = shop.call(TOOL, shop.data, "--folders", folders)
    assert result.code == 0, result.err
    assert f"12 clips at {RATE} Hz: 5 were mixed to one channel, 1 resampled" in result.out
    competition = open_competition(shop.data)
    curated, test, clips = competition.clips("curated"), competition.clips("test"), table(shop.data / "clips.csv")
    truth = table(shop.data / "test_post_competition.csv")
    assert competition.classes == ("Dog", "Möwe, Ruf")
    assert curated.targets.sum(0).tolist() == [5, 5] and truth.labels.tolist() == ["Dog", '"Möwe, Ruf"']
    assert (table(shop.data / "sample_submission.csv") == 0).all(axis=None) and set(truth.usage) == {"Private"}
    for path in (*curated.paths, *test.paths):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert clips.loc[path.name, "part"] == path.parent.name
    assert sorted(clips.original) == sorted(path.relative_to(folders).as_posix() for path in folders.rglob("*.*"))
    assert clips.loc["Dog-field 2024-ü.wav", "original"] == "Dog/field 2024/ü.MP3"


def test_samples_that_need_no_change_are_kept_and_channels_are_averaged(shop, folders):
    shop.call(TOOL, shop.data, "--folders", folders)
    for fname, row in table(shop.data / "clips.csv").iterrows():
        samples, _ = soundfile.read(shop.data / row.part / fname, dtype="int16")
        if row.original.endswith((".wav", ".flac")):
            before, _ = soundfile.read(folders / row.original, dtype="int16", always_2d=True)
            assert np.array_equal(samples, np.round(before.mean(1)).astype(np.int16))
        else:
            assert len(samples) == round(0.3 * RATE)


def test_the_scripts_train_on_it_predict_and_score(shop, folders):
    assert shop.call(TOOL, shop.data, "--folders", folders).code == 0
    training = shop.train("train_curated.py", "own", "--from-scratch", *TINY)
    assert training.code == 0 and "10 clips of 2 classes" in training.out, training.err
    submission = shop.folder / "own.csv"
    assert shop.predict("own", "--out", submission).code == 0
    result = shop.call("lwlrap.py", submission, "--truth", shop.data / "test_post_competition.csv", "--per-class")
    assert result.code == 0 and "Möwe, Ruf" in result.out
    assert 0.5 <= float(result.out.split()[-1]) <= 1


def test_sources_are_tied_through_a_chain_of_equal_samples():
    clips = pd.DataFrame({"original": list("abcdef"), "labels": "A", "source": [1, 1, 2, 2, 3, 4],
                          "digest": [9, 8, 8, 7, 7, 6]}, index=[3, 5, 6, 7, 8, 9])
    assert make_competition.join_sources(clips).tolist() == [0, 0, 0, 0, 0, 5]


def test_a_class_of_one_clip_is_trained_and_noted(shop, folders):
    write(folders / "Owl/only.wav", sound(30))
    result = shop.call(TOOL, shop.data, "--folders", folders)
    assert "too few sources for a test clip: Owl" in result.out and "than the 5 folds: Owl" in result.out
    row = next(line.split() for line in result.out.splitlines() if line.split()[:1] == ["Owl"])
    assert row == ["Owl", "1", "0", "1"]
    assert table(shop.data / "clips.csv").loc["Owl-only.wav", "part"] == "train_curated"


def test_all_faults_are_listed_at_once_and_nothing_is_written(shop, folders, expect_error, monkeypatch):
    monkeypatch.setattr("tagging_lite.audio.LONGEST", RATE)
    (folders / "Dog/empty.wav").touch()
    (folders / "Dog/words.flac").write_text("no sound")
    (folders / "Dog/cut.wav").write_bytes((folders / "Dog/rec 0.wav").read_bytes()[:1000])
    write(folders / "Dog/silent.wav", np.zeros(900, np.int16))
    write(folders / "Dog/against.wav", np.stack([sound(1), -sound(1)], 1))
    write(folders / "Dog/long.wav", sound(2, 1.01))
    write(folders / "Dog/just.wav", sound(2, 1.0))
    write(folders / "loose.wav", sound(3))
    (folders / "Dog/notes.txt").write_text("left out")
    faults = ("empty.wav: 0 bytes", "words.flac: unreadable", "cut.wav: cut short", "silent.wav: all silence",
              "against.wav: all silence after its 2 channels are mixed", "long.wav: longer than 1 seconds",
              "loose.wav: no label")
    result = shop.call(TOOL, shop.data, "--folders", folders)
    expect_error(result, "7 of 20 clips", *faults, "--skip-bad-clips")
    assert "just.wav" not in result.err and "no sound files by their names (1): Dog/notes.txt" in result.err
    assert list(shop.folder.iterdir()) == [folders]
    result = shop.call(TOOL, shop.data, "--folders", folders, "--skip-bad-clips")
    assert result.code == 0 and all(fault in result.out for fault in faults)
    assert len(table(shop.data / "clips.csv")) == sum(len(list((shop.data / part).iterdir()))
                                                      for part in ("train_curated", "test")) == 13


def test_a_class_that_loses_all_clips_is_an_error(shop, folders, expect_error):
    (folders / "Owl").mkdir()
    (folders / "Owl/empty.wav").touch()
    expect_error(shop.call(TOOL, shop.data, "--folders", folders, "--skip-bad-clips"), "1 classes", "Owl")


def test_a_clip_is_resampled_whole(shop, folders, monkeypatch):
    """Pieces that are resampled one by one have audible edges."""
    long = (8000 * np.sin(np.arange(3 * 48_000) / 40)).astype(np.int16)
    write(folders / "Dog/long.wav", long, 48_000)
    monkeypatch.setattr("tagging_lite.audio.LONGEST", 3 * RATE)
    assert shop.call(TOOL, shop.data, "--folders", folders).code == 0
    samples = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in shop.data.rglob("Dog-long.wav")])
    assert len(samples) == 3 * RATE and np.abs(samples[100:-100] - long[::3][100:-100].astype(int)).max() < 10


@pytest.mark.parametrize(("rates", "words", "expected"), [
    ([RATE, RATE, 8000], (), RATE), ([RATE, 8000], (), RATE), ([RATE, RATE, 8000], ("--sample-rate", "8000"), 8000)])
def test_the_sample_rate_is_that_of_most_clips_or_the_one_asked_for(shop, rates, words, expected):
    for number, rate in enumerate(rates):
        for label in ("A", "B"):
            write(shop.folder / f"own/{label}/{number}.wav", sound(number + 10 * (label == "A"), rate=rate), rate)
    assert shop.call(TOOL, shop.data, "--folders", shop.folder / "own", *words).code == 0
    assert {soundfile.info(path).samplerate for path in shop.data.rglob("*.wav")} == {expected}


def test_the_seed_decides_every_byte(shop, listed):
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        shop.call(TOOL, shop.folder / name, *listed, "--seed", seed)
    one, same, other = (digests(shop.folder / name) for name in ("one", "same", "other"))
    assert one == same and set(one) != set(other)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_there_is_not_written_over(shop, folders, expect_error, what):
    place = shop.data / "thesis.txt" if what == "folder" else shop.data
    place.parent.mkdir(exist_ok=True)
    place.write_text("years of work")
    expect_error(shop.call(TOOL, shop.data, "--folders", folders), str(shop.data), "exists. Choose a new folder")
    assert place.read_text() == "years of work"


def test_an_empty_folder_is_filled(shop, folders):
    shop.data.mkdir()
    assert shop.call(TOOL, shop.data, "--folders", folders).code == 0 and (shop.data / "clips.csv").is_file()


def test_a_full_disk_is_one_error_and_leaves_nothing(shop, folders, monkeypatch):
    monkeypatch.setattr(sys, "argv", [TOOL, str(shop.data), "--folders", str(folders)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))        # a clip takes more
    try:
        with pytest.raises(errors.TaggingError, match=r"out could not be written: .*File too large"):
            make_competition.main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(shop.folder.iterdir()) == [folders]


@pytest.mark.parametrize(("words", "said"), [
    (("--test-share", "0"), "--test-share"), (("--test-share", "1"), "--test-share"), (("--seed", "-1"), "--seed"),
    (("--sample-rate", "10"), "1000 to"), (("--source", "column"), "--csv"), (("--clips", "."), "--csv"),
    (("--source-pattern", "("), "is not a regular expression"), (("--source-pattern", "rec"), "no group"),
    (("--source-pattern", "(rec)"), "finds no source in 7 of 12")])
def test_impossible_options_are_refused(shop, folders, expect_error, words, said):
    expect_error(shop.call(TOOL, shop.data, "--folders", folders, *words), said)
    assert not shop.data.exists()
