"""The synthetic competition: its layout, its sounds, and what it refuses to write over."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import Result, Workshop, digests

from tools.sample_competition import CLASSES, RATE, SOUNDS, write_competition

SETS = {"train_curated": "train_curated.csv", "train_noisy": "train_noisy.csv",
        "test": "test_post_competition.csv"}


@pytest.fixture(scope="module")
def competition(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "competition"
    write_competition(out, scale=0.4)
    return out


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in [("one", 7), ("same", 7), ("other", 8)]:
        write_competition(tmp_path / name, scale=0.05, seed=seed)
    assert digests(tmp_path / "one") == digests(tmp_path / "same")
    one, other = (set(digests(tmp_path / name).values()) for name in ("one", "other"))
    assert not one & other


def test_no_two_clips_are_equal(competition):
    clips = [digest for name, digest in digests(competition).items() if name.endswith(".wav")]
    assert len(set(clips)) == len(clips) == 60 + 120 + 40


def test_layout_and_headers(competition):
    assert {path.name for path in competition.iterdir()} == {
        ".sample_competition", "sample_submission.csv", *SETS, *SETS.values()}
    for folder, csv in SETS.items():
        frame = pd.read_csv(competition / csv)
        assert list(frame.columns) == ["fname", "labels", "usage"][:3 if folder == "test" else 2]
        assert sorted(frame.fname) == sorted(path.name for path in (competition / folder).iterdir())
        assert frame.fname.str.fullmatch(r"[0-9a-f]{8}\.wav").all()
    assert '.wav,"' in (competition / "train_curated.csv").read_text()      # several labels: one quoted field


def test_sample_submission_and_usage(competition):
    blank = pd.read_csv(competition / "sample_submission.csv", index_col="fname")
    truth = pd.read_csv(competition / "test_post_competition.csv")
    assert list(blank.columns) == CLASSES == sorted(CLASSES) and len(CLASSES) == 10
    assert list(blank.index) == list(truth.fname)
    assert (blank == 0).all(axis=None)
    assert truth.usage.value_counts().to_dict() == {"Private": 30, "Public": 10}


@pytest.mark.parametrize("folder", SETS)
def test_wav_format_length_and_level(competition, folder):
    for path in (competition / folder).iterdir():
        info = sf.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert (1.5 if folder == "train_noisy" else 0.3) <= info.frames / RATE + 1e-3 <= 6.1
        assert np.abs(sf.read(path)[0]).max() > 0.02


@pytest.mark.parametrize("folder", SETS)
def test_labels(competition, folder):
    labels = pd.read_csv(competition / SETS[folder]).labels.str.split(",")
    assert set(labels.explode()) == set(CLASSES)
    assert labels.map(lambda names: len(names) == len(set(names))).all()
    assert 0.05 < (labels.map(len) > 1).mean() < 0.35


def test_every_class_is_in_every_set_at_the_smallest_scale(tmp_path):
    counts = write_competition(tmp_path, scale=0.001)
    assert counts == {"train_curated": 10, "train_noisy": 10, "test": 10}
    for csv in SETS.values():
        assert set(pd.read_csv(tmp_path / csv).labels.str.split(",").explode()) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_sound_fills_the_time_it_is_given(name):
    for seconds in (0.3, 0.77, 4.6):
        wave = SOUNDS[name](seconds, np.random.default_rng(0))
        assert wave.dtype == np.float32 and wave.shape == (round(seconds * RATE),)
        assert np.isfinite(wave).all() and np.abs(wave).max() > 0
    first, second = (SOUNDS[name](1, np.random.default_rng(seed)) for seed in (1, 2))
    assert not np.array_equal(first, second)


def features(path):
    """Mean and spread over time of the log power in 40 bands, of a clip brought to the same loudness."""
    wave = sf.read(path)[0]
    wave = np.trim_zeros(np.where(np.abs(wave) > 3e-3, wave, 0))
    frames = np.lib.stride_tricks.sliding_window_view(wave / wave.std(), 512)[::256]
    power = np.abs(np.fft.rfft(frames * np.hanning(512))) ** 2
    edges = np.unique(np.geomspace(1, 257, 40).astype(int))
    bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-2)
    return np.concatenate([bands.mean(0), bands.std(0)])


def labelled_features(competition, folder):
    """Features and labels of the clips with one label."""
    frame = pd.read_csv(competition / SETS[folder])
    frame = frame[~frame.labels.str.contains(",")]
    known = np.stack([features(competition / folder / fname) for fname in frame.fname])
    return known, frame.labels.to_numpy()


def test_classes_can_be_learnt_from_clean_clips_and_less_well_from_noisy_ones(competition):
    test, truth = labelled_features(competition, "test")

    def accuracy_of_nearest_neighbour(folder):
        known, labels = labelled_features(competition, folder)
        nearest = np.linalg.norm(test[:, None] - known, axis=2).argmin(1)
        return (labels[nearest] == truth).mean()

    assert accuracy_of_nearest_neighbour("train_curated") > 0.9
    assert accuracy_of_nearest_neighbour("train_noisy") < 0.6


def call(*words) -> Result:
    """Run the tool as the command line does."""
    out = Path(words[0])
    return Workshop(out.parent, out).call("tools/sample_competition.py", *words)


def test_our_own_folder_is_rewritten_whole(tmp_path):
    out = tmp_path / "competition"
    assert call(out, "--scale", "0.01", "--seed", "1").code == 0
    before = digests(out)
    result = call(out, "--scale", "0.01", "--seed", "2")
    assert "10 train_curated, 10 train_noisy, 10 test" in result.out.splitlines()[-1]
    assert not set(before.values()) & set(digests(out).values())
    assert sum(path.suffix == ".wav" for path in out.rglob("*")) == 30
    assert list(tmp_path.iterdir()) == [out]                                # no temporary folder is left


@pytest.mark.parametrize("ours", [False, True])
def test_a_folder_with_anything_else_in_it_is_refused(tmp_path, expect_error, ours):
    if ours:
        write_competition(tmp_path, scale=0.01)
    (tmp_path / "thesis.txt").write_text("years of work")
    before = digests(tmp_path)
    message = expect_error(call(tmp_path), str(tmp_path), "contains files that this tool did not write")
    assert message.count("\n") == 1
    assert digests(tmp_path) == before


@pytest.mark.parametrize("arguments", [["--scale", "0"], ["--scale", "nan"], ["--seed", "-1"]])
def test_impossible_settings_are_refused(tmp_path, expect_error, arguments):
    message = expect_error(call(tmp_path / "out", *arguments), arguments[0])
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_refused(tmp_path, expect_error):
    (tmp_path / "out").write_text("a file")
    expect_error(call(tmp_path / "out"), f"{tmp_path / 'out'} is a file")
    assert (tmp_path / "out").read_text() == "a file"
