"""Competition folders in Kaggle's and Zenodo's layout give the same classes, clips and targets."""
import csv
import shutil

import numpy as np
import pytest
from competition_folder import CLASSES, CURATED, LAYOUTS, NOISY, TEST, Folder

from tagging.data.competition import open_competition
from tagging.errors import TaggingError


@pytest.mark.parametrize("layout, header", [("Kaggle", False), ("Zenodo", False), ("Zenodo", True)])
def test_both_layouts_give_the_same_classes_clips_and_targets(tmp_path, layout, header):
    Folder(tmp_path, layout, vocabulary_header=header)
    competition = open_competition(tmp_path)
    assert competition.layout.name == layout
    assert competition.classes == CLASSES
    curated, noisy, test = map(competition.clips, ("curated", "noisy", "test"))
    assert list(curated.fnames) == ["0a.wav", "1b.wav", "2c.wav", "A3.wav"]
    assert curated.targets.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]]
    assert list(noisy.fnames) == ["10.wav", "9.wav"] and noisy.targets.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert list(test.fnames) == TEST                                            # a submission keeps this order
    for clips in (curated, noisy, test):
        assert [path.name for path in clips.paths] == list(clips.fnames) and len(clips) == len(clips.paths)
        assert all(path.is_file() for path in clips.paths)


def test_the_labels_of_zenodos_test_set_stay_unread(tmp_path):
    folder = Folder(tmp_path, "Zenodo")
    folder.replace("test", "Bark", "No class of ours")
    assert open_competition(tmp_path).clips("test").labelled is False


def test_a_vocabulary_may_be_a_bare_list_of_names(tmp_path):
    folder = Folder(tmp_path, "Zenodo")
    folder.write("classes", [(name,) for name in CLASSES])
    assert open_competition(tmp_path).classes == CLASSES


def test_the_folder_of_clips_may_itself_be_a_link(tmp_path):
    folder = Folder(tmp_path / "competition")
    moved = folder.folder("curated").rename(tmp_path / "on another disk")
    folder.folder("curated").symlink_to(moved)
    (moved / "1b.wav").rename(moved / "original.wav")
    (moved / "1b.wav").symlink_to("original.wav")                               # a link within is no way out
    clips = open_competition(folder.root).clips("curated")
    assert list(clips.fnames) == sorted(CURATED) and all(path.is_file() for path in clips.paths)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_six_bad_curated_clips_are_dropped_and_named(tmp_path, caplog, layout):
    bad = dict.fromkeys(("f76181c4.wav", "77b925c2.wav", "6a1f682a.wav", "c7db12aa.wav", "7752cc8a.wav",
                         "1d44b0bd.wav"), "Bark")
    folder = Folder(tmp_path, layout, curated=CURATED | bad, noisy=NOISY | bad)
    shutil.rmtree(folder.folder("curated"))
    folder.fill("curated", CURATED)                                             # they need not even be there
    clips = open_competition(tmp_path).clips("curated")
    assert list(clips.fnames) == sorted(CURATED) and clips.targets.sum(0).tolist() == [2, 1, 3]
    output = caplog.text
    assert "6 curated clips" in output and all(fname in output for fname in bad)
    assert output.count("wrong label") == 5 and "1d44b0bd.wav (no signal)" in output
    assert len(open_competition(tmp_path).clips("noisy")) == len(NOISY) + 6     # the organisers named curated clips


def test_nothing_is_said_of_bad_clips_where_there_are_none(tmp_path, caplog):
    Folder(tmp_path)
    open_competition(tmp_path).clips("curated")
    assert not caplog.messages


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_that_will_be_needed_later_are_announced(tmp_path, caplog, layout):
    folder = Folder(tmp_path, layout)
    competition = open_competition(tmp_path)
    competition.announce_missing("curated", "noisy", "test")
    assert not caplog.messages
    shutil.rmtree(folder.folder("test"))
    folder.csv("curated").unlink()
    shutil.rmtree(folder.folder("noisy"))
    competition.announce_missing("curated", "test")
    curated, test = caplog.messages
    assert str(folder.csv("curated")) in curated and str(folder.folder("curated")) + " " not in curated
    assert str(folder.folder("test")) in test


def test_a_subset_keeps_names_paths_and_targets_together(tmp_path):
    Folder(tmp_path)
    clips = open_competition(tmp_path).clips("curated")
    for keep in (np.array([3, 1]), np.array([False, True, False, True])):
        subset = clips.subset(keep)
        expected = {"A3.wav": [1, 0, 1], "1b.wav": [1, 0, 0]}
        assert dict(zip(subset.fnames, subset.targets.tolist())) == expected
        assert [path.name for path in subset.paths] == list(subset.fnames)
    test = open_competition(tmp_path).clips("test").subset(np.array([2]))
    assert list(test.fnames) == ["t3.wav"] and test.targets.shape == (1, 0) and not test.labelled


def rename(folder, part, change):
    """Change the names of clips in the csv of a split. The files stay."""
    with open(folder.csv(part), newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    folder.write(part, [header, *((change(row[0]), *row[1:]) for row in rows)])


@pytest.mark.parametrize("change", [lambda name: name.removesuffix(".wav"), lambda name: f"train/{name}",
                                    lambda name: f"C:\\data\\{name}", lambda name: name if name < "1" else f"z/{name}",
                                    lambda name: name if name < "1" else f"./{name}", lambda name: f".//{name}"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_however_the_names_are_written_the_clips_their_order_and_their_names_are_the_same(
        tmp_path, caplog, layout, change):
    bad = {"f76181c4.wav": "Bark"}
    exact, folder = Folder(tmp_path / "exact", layout, curated=CURATED | bad), Folder(
        tmp_path / "changed", layout, curated=CURATED | bad)
    for part in ("curated", "noisy", "test"):
        rename(folder, part, change)
        expected = open_competition(exact.root).clips(part)
        caplog.clear()
        clips = open_competition(folder.root).clips(part)
        assert [path.relative_to(folder.root) for path in clips.paths] == [
            path.relative_to(exact.root) for path in expected.paths]
        assert np.array_equal(clips.targets, expected.targets)
        # A submission needs the names of the sample submission. The names of training clips decide their folds.
        assert list(clips.fnames) == (list(map(change, TEST)) if part == "test" else list(expected.fnames))
        matched = "./" not in change("9")       # otherwise, they are paths to the files
        assert sum("names were matched to the clips in" in message for message in caplog.messages) == matched
        assert part != "curated" or "f76181c4.wav (wrong label)" in caplog.text


def test_a_test_clip_that_fits_none_or_two_is_found_before_training(tmp_path):
    folder = Folder(tmp_path)
    open_competition(tmp_path).check_test()
    rename(folder, "test", lambda name: name.removesuffix(".wav"))
    open_competition(tmp_path).check_test()
    (folder.folder("test") / "t1.flac").touch()
    with pytest.raises(TaggingError, match=r"after the training\. .*'t1' fits 2 of .*t1\.flac, t1\.wav.*rename .*test"):
        open_competition(tmp_path).check_test()
    rename(folder, "test", lambda name: f"other-{name}")
    with pytest.raises(TaggingError, match=r"sample_submission\.csv, line 2: the csv lists 3 clips that are missing"):
        open_competition(tmp_path).check_test()
    shutil.rmtree(folder.folder("test"))            # Kaggle's data without the test clips
    open_competition(tmp_path).check_test()


def test_a_sample_submission_with_an_index_has_the_same_classes(tmp_path):
    folder = Folder(tmp_path)
    folder.write("test", [("", "fname", *CLASSES), *((number, fname, 0, 0, 0) for number, fname in enumerate(TEST))])
    competition = open_competition(tmp_path)
    assert competition.classes == CLASSES and list(competition.clips("test").fnames) == TEST


def test_training_clips_without_a_label_are_said(tmp_path, caplog):
    Folder(tmp_path, noisy=NOISY | {"11.wav": "", "12.wav": "nan"})
    assert open_competition(tmp_path).clips("noisy").targets.sum(1).tolist() == [2, 0, 0, 1]
    assert "2 clips have no label: 11.wav, 12.wav" in caplog.text
