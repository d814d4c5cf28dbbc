"""Own sounds with a csv file of labels and recordings, laid out as a competition."""
import numpy as np
import pytest
from conftest import digests
from own_sounds import TOOL, sound, table, write
from own_sounds import folders as folders
from own_sounds import listed as listed
from own_sounds import shop as shop

from tagging.data.competition import open_competition


def test_clips_of_a_recording_stay_together(shop, listed):
    assert shop.call(TOOL, shop.data, *listed, "--source", "recording").code == 0
    clips = table(shop.data / "clips.csv")
    assert (clips.groupby("source").part.nunique() == 1).all() and clips.source.nunique() == 10
    curated = table(shop.data / "train_curated.csv")
    assert len(curated) == (clips.part == "train_curated").sum()
    assert curated.source.equals(clips.source[curated.index])
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
    assert "share their source" not in result.out and "source" not in table(shop.data / "train_curated.csv")
    assert table(shop.data / "clips.csv").source.nunique() == 30


def test_equal_samples_tie_their_sources_together(shop, listed):
    """00 = 29 in another format, of other recordings: both recordings are on one side."""
    write(shop.folder / "clips/29.wav", np.repeat(sound(0, 0.1)[:, None], 2, 1))
    result = shop.call(TOOL, shop.data, *listed, "--source", "recording", "--seed", 3)
    assert "1 clips are duplicates of others and go to the same split" in result.out
    assert "29.wav = 00.wav (with other labels)" in result.out
    assert table(shop.data / "clips.csv").groupby("source").part.first()[["rec0", "rec9"]].nunique() == 1


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


@pytest.mark.parametrize("name", ["._rec 1.wav", "Thumbs.db", "rec"])
def test_a_clip_that_a_csv_names_is_read_whatever_its_name(shop, name):
    for number, clip in enumerate((name, "b.wav", "c.wav", "d.wav")):
        write(shop.folder / "clips" / clip, sound(number), format="WAV")
    (shop.folder / "own.csv").write_text(f"fname,labels\n{name},A\nb.wav,A\nc.wav,B\nd.wav,B\n")
    assert shop.call(TOOL, shop.data, "--csv", shop.folder / "own.csv", "--clips", shop.folder / "clips").code == 0
    assert name in set(table(shop.data / "clips.csv").original)
