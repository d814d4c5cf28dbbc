"""Own sounds laid out as a competition, and the scripts run on it."""
import hashlib
import os
import resource
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import TINY, Workshop

from tagging import errors
from tagging.data.competition import open_competition
from tools import labelled_sounds, make_competition

RATE = 16_000
TOOL = "tools/make_competition.py"


def sound(seed, seconds=0.3, rate=RATE, channels=1):
    wave = np.random.default_rng(seed).integers(-20_000, 20_000, (round(seconds * rate), channels), np.int16)
    return wave if channels > 1 else wave[:, 0]


def write(path, samples, rate=RATE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **how)


def digests(folder):
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*") if path.is_file()}


def table(path):
    return pd.read_csv(path, index_col=0, keep_default_na=False)


@pytest.fixture
def shop(tmp_path) -> Workshop:
    """A folder whose `data` is the competition to be made."""
    return Workshop(tmp_path, tmp_path / "out")


@pytest.fixture
def folders(tmp_path):
    """Six clips of each of two classes, in all the ways in which people keep them."""
    for number in range(5):
        write(tmp_path / f"own/Dog/rec {number}.wav", sound(number))
        write(tmp_path / f"own/Möwe, Ruf/{number}.flac", sound(10 + number, channels=2))
    write(tmp_path / "own/Dog/field 2024/ü.MP3", sound(20).astype(float) / 65536)
    write(tmp_path / "own/Möwe, Ruf/hoch.ogg", sound(21, rate=48_000), 48_000)
    return tmp_path / "own"


@pytest.fixture
def listed(tmp_path):
    """30 clips with one label or two, three of each recording, and the csv that names them."""
    rows = []
    for number in range(30):
        write(tmp_path / f"clips/{number:02}.wav", sound(number, 0.1))
        labels = ("A", "B", "C", "A,B", "B,C", "A,C")[number % 6]
        rows.append((f"{number:02}.wav", labels, f"rec{number // 3}"))
    pd.DataFrame(rows, columns=["fname", "labels", "recording"]).to_csv(tmp_path / "own.csv", index=False)
    return ["--csv", tmp_path / "own.csv", "--clips", tmp_path / "clips"]


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


def test_clips_of_a_recording_stay_together(shop, listed):
    assert shop.call(TOOL, shop.data, *listed, "--source", "recording").code == 0
    clips = table(shop.data / "clips.csv")
    assert (clips.groupby("source").part.nunique() == 1).all() and clips.source.nunique() == 10
    assert set(clips.part) == {"train_curated", "test"}
    told = table(shop.folder / "own.csv")
    for name in ("train_curated.csv", "test_post_competition.csv"):
        written = table(shop.data / name)
        assert (written.labels == told.labels[written.index]).all()


def test_a_pattern_finds_the_recording_in_the_path(shop, listed, folders):
    assert shop.call(TOOL, shop.data, *listed, "--source-pattern", r"^(\d)").code == 0
    clips = table(shop.data / "clips.csv")
    assert set(clips.source.astype(str)) == {"0", "1", "2"} and (clips.groupby("source").part.nunique() == 1).all()
    result = shop.call(TOOL, shop.folder / "by folder", "--folders", folders, "--source-pattern", "(.+)/")
    assert "too few sources for a test clip: Möwe, Ruf." in result.out      # Dog has a folder within its folder
    assert table(shop.folder / "by folder/test_post_competition.csv").index.tolist() == ["Dog-field 2024-ü.wav"]


def test_an_empty_source_is_a_recording_of_its_own(shop, listed):
    told = table(shop.folder / "own.csv")
    told.recording = ["", " "] * 15
    told.to_csv(shop.folder / "own.csv")
    result = shop.call(TOOL, shop.data, *listed, "--source", "recording")
    assert "out-of-fold" not in result.out and table(shop.data / "clips.csv").source.nunique() == 30


def test_equal_samples_tie_their_sources_together(shop, listed):
    """00 = 29 in another format, of other recordings: both recordings are on one side."""
    write(shop.folder / "clips/29.wav", np.repeat(sound(0, 0.1)[:, None], 2, 1))
    result = shop.call(TOOL, shop.data, *listed, "--source", "recording", "--seed", 3)
    assert "1 clips are duplicates of others and go to the same split" in result.out
    assert "29.wav = 00.wav (with other labels)" in result.out
    assert table(shop.data / "clips.csv").groupby("source").part.first()[["rec0", "rec9"]].nunique() == 1


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


def test_names_are_flat_unique_and_short():
    *names, long = labelled_sounds.flat_names(["Dog/a b.mp3", "Dog-a b.wav", "dog/A b.ogg", "x", "/x.wav",
                                                "ü" * 150 + "/end.wav"])
    assert names == ["Dog-a b.wav", "Dog-a b (2).wav", "dog-A b (3).wav", "x.wav", "x (2).wav"]
    assert long.endswith("üü-end.wav") and len(long.encode()) < 255


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


@pytest.mark.parametrize(("rows", "said"), [
    ("00.wav,A\n01.wav,B\n00.wav,B\n", "line 4: duplicate fname '00.wav', first used in line 2"),
    ("00.wav,A\n01.wav,\"B,B\"\n", "duplicate label in 'B,B'"),
    ("00.wav,A\n01.wav,A\n", "1 classes"),
    ("00.wav,A\n../own.csv,B\n", "is outside"),
    ("00.wav,A\nnone.wav,B\n", "missing on disk"),
    ("00.wav,A\n01.wav,\n02.wav,B\n", "01.wav: no label"),
    ("00.wav,A\n01.wav,labels\n", "'labels' cannot be the name of a class"),
    ("00.wav,A\n01.wav,B\n", "Every class has a single source")])
def test_a_csv_that_cannot_be_used(shop, listed, expect_error, rows, said):
    (shop.folder / "own.csv").write_text("fname,labels\n" + rows)
    expect_error(shop.call(TOOL, shop.data, *listed), said)
    expect_error(shop.call(TOOL, shop.data, *listed, "--source", "recording"), "no column recording")
    assert not shop.data.exists()


@pytest.mark.parametrize(("form", "said"), [
    (lambda text: text.replace(",", ";"), "semicolons separate the labels of 15 clips, as in 'A;B'"),
    (lambda text: text.replace(",", "|"), "vertical bars separate the labels of 15 clips"),
    (lambda text: str(text.split(",")), "the labels are lists, such as ['A']"),
    (lambda text: text, "commas separate the labels of 15 clips")])
def test_labels_in_all_forms_give_the_same_competition(shop, listed, form, said):
    assert shop.call(TOOL, shop.folder / "expected", *listed).code == 0
    told = table(shop.folder / "own.csv")
    told.labels = told.labels.map(form)
    told.to_csv(shop.folder / "own.csv")
    result = shop.call(TOOL, shop.data, *listed)
    assert result.code == 0 and (said in result.out or form("A,B") == "A,B"), result.err
    assert digests(shop.data) == digests(shop.folder / "expected")


def test_missing_labels_are_clips_without_a_label(shop, listed, expect_error):
    told = table(shop.folder / "own.csv")
    told.loc[["03.wav", "04.wav", "05.wav"], "labels"] = ["nan", "None", ""]
    told.to_csv(shop.folder / "own.csv")
    result = shop.call(TOOL, shop.data, *listed)
    expect_error(result, "3 of 30 clips", "03.wav: no label", "04.wav: no label", "05.wav: no label")
    assert "2 fields are nan or None" in result.out
    result = shop.call(TOOL, shop.data, *listed, "--skip-bad-clips")
    assert result.code == 0 and open_competition(shop.data).classes == ("A", "B", "C")


def test_the_label_separator_can_be_chosen(shop, listed, expect_error):
    told = table(shop.folder / "own.csv")
    told.labels = [f"{'AB'[number % 2]}/low" for number in range(30)]
    told.to_csv(shop.folder / "own.csv")
    result = shop.call(TOOL, shop.data, *listed)
    assert result.code == 0 and open_competition(shop.data).classes == ("A/low", "B/low")
    assert "2 labels contain slashes" in result.out and "--label-separator '/'" in result.out
    result = shop.call(TOOL, shop.folder / "other", *listed, "--label-separator", "/")
    assert result.code == 0 and open_competition(shop.folder / "other").classes == ("A", "B", "low")
    result = shop.call(TOOL, shop.folder / "whole", *listed, "--label-separator", "none")
    assert result.code == 0 and open_competition(shop.folder / "whole").classes == ("A/low", "B/low")
    expect_error(shop.call(TOOL, shop.folder / "third", *listed, "--label-separator", "x"), "must be a sign")
    expect_error(shop.call(TOOL, shop.folder / "third", "--folders", shop.folder / "clips", "--label-separator", ";"),
                 "--label-separator need --csv")


@pytest.mark.parametrize("change", [
    lambda fname: fname.removesuffix(".wav"), lambda fname: f"recordings/{fname}", lambda fname: f"C:\\data\\{fname}",
    lambda fname: f"./{fname}"])
def test_names_of_clips_are_matched(shop, listed, change):
    assert shop.call(TOOL, shop.folder / "expected", *listed).code == 0
    told = table(shop.folder / "own.csv")
    told.rename(change).rename_axis("fname").to_csv(shop.folder / "own.csv")
    result = shop.call(TOOL, shop.data, *listed)
    assert result.code == 0 and ("30 of 30 names were matched" in result.out or change("a.wav") == "./a.wav")
    assert {path: sum for path, sum in digests(shop.data).items() if path != "clips.csv"} == \
        {path: sum for path, sum in digests(shop.folder / "expected").items() if path != "clips.csv"}


def test_an_excel_file_with_semicolons(shop, listed):
    told = table(shop.folder / "own.csv")
    told.index.name, told["recording"] = "fname", ["nan", "None", ""] * 10
    (shop.folder / "own.csv").write_bytes(told.to_csv(sep=";", lineterminator=";;\r\n").encode("utf-16"))
    result = shop.call(TOOL, shop.data, *listed, "--source", "recording")
    assert result.code == 0 and "semicolons separate the fields" in result.out, result.err
    assert table(shop.data / "clips.csv").source.nunique() == 30         # nan is no recording


@pytest.mark.parametrize("name", [" Dog", "fname", b"M\xf6we".decode(errors="surrogateescape")])
def test_a_folder_whose_name_cannot_be_a_class(shop, folders, expect_error, name):
    write(folders / "x.wav", sound(0))
    (folders / name).mkdir()
    (folders / "x.wav").rename(folders / name / "x.wav")
    expect_error(shop.call(TOOL, shop.data, "--folders", folders), "Rename")


def test_folders_and_clips_may_be_links(shop, folders, expect_error):
    (folders / "Dog").rename(shop.folder / "elsewhere")
    (folders / "Dog").symlink_to(shop.folder / "elsewhere")
    (folders / "Dog/more").symlink_to(shop.folder / "elsewhere")
    result = shop.call(TOOL, shop.data, "--folders", folders)
    assert "12 clips" in result.out and "Not read, links to folders (1): Dog/more\n" in result.out
    (folders / "Dog/dangling.wav").symlink_to("/nowhere")
    expect_error(shop.call(TOOL, shop.folder / "other", "--folders", folders), "Dog/dangling.wav: unreadable")


def test_hidden_files_and_leftovers_of_systems_are_no_clips_and_no_classes(shop, folders):
    expected = shop.call(TOOL, shop.folder / "clean", "--folders", folders)
    for name in ("Dog/.ipynb_checkpoints/rec 1-checkpoint.wav", "__MACOSX/Dog/rec 1.wav", ".Trash-1000/rec 1.wav",
                 "Dog/@eaDir/rec 1.wav/SYNOAUDIO.wav", "System Volume Information/rec 1.wav"):
        write(folders / name, sound(40))
    for name in ("Dog/._rec 1.wav", "__MACOSX/Dog/._rec 1.wav", "._loose.wav"):
        (folders / name).write_bytes(b"\0\5\x16\7" * 1024)
    (folders / "Dog/Thumbs.db").write_bytes(b"no sound")
    result = shop.call(TOOL, shop.data, "--folders", folders)
    assert result.code == 0, result.err
    assert digests(shop.data) == digests(shop.folder / "clean")
    line, = [line for line in result.out.splitlines() if line not in expected.out and "out" not in line]
    assert line == ("Not read, hidden or left by the system (7): .Trash-1000, ._loose.wav, Dog/._rec 1.wav, "
                    "Dog/.ipynb_checkpoints, Dog/@eaDir, System Volume Information, __MACOSX")


def test_what_looks_like_sound_and_is_not_read_is_in_the_report(shop, folders, expect_error):
    for name in ("rec.wav.part", "song.mid", "cover.jpg"):
        (folders / "Dog" / name).write_bytes(b"words")
    lines = ["Not read, of unsupported formats (1): Dog/song.mid",
             "Not read, backups or unfinished downloads by their names (1): Dog/rec.wav.part",
             "Not read, no sound files by their names (1): Dog/cover.jpg"]
    result = shop.call(TOOL, shop.data, "--folders", folders)
    assert result.out.split("\nwritten to")[0].splitlines()[-3:] == lines
    (folders / "Owl").mkdir()
    (folders / "Owl/hoot.mid").touch()
    said = expect_error(shop.call(TOOL, shop.folder / "other", "--folders", folders), "no sound file of 1 classes: Owl")
    assert "(2): Dog/song.mid, Owl/hoot.mid" in said and lines[1] in said


@pytest.mark.parametrize("name", ["._rec 1.wav", "Thumbs.db", "rec"])
def test_a_clip_that_a_csv_names_is_read_whatever_its_name(shop, name):
    for number, clip in enumerate((name, "b.wav", "c.wav", "d.wav")):
        write(shop.folder / "clips" / clip, sound(number), format="WAV")
    (shop.folder / "own.csv").write_text(f"fname,labels\n{name},A\nb.wav,A\nc.wav,B\nd.wav,B\n")
    assert shop.call(TOOL, shop.data, "--csv", shop.folder / "own.csv", "--clips", shop.folder / "clips").code == 0
    assert name in set(table(shop.data / "clips.csv").original)


def test_a_file_name_that_is_not_utf_8_is_written_with_escapes(shop, folders):
    (folders / "Dog/rec 0.wav").rename(folders / os.fsdecode(b"Dog/caf\xe9.wav"))
    clips, _, _ = labelled_sounds.read_folders(folders)
    assert clips.original[0] == r"Dog/caf\xe9.wav" and clips.path[0].is_file()
    assert labelled_sounds.flat_names(clips.original)[0] == "Dog-caf-xe9.wav"
