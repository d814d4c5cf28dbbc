"""Competition folders in Kaggle's and Zenodo's layout, whole and with one fault each."""
import csv
import random
import shutil

import numpy as np
import pytest

from tagging.data.competition import BAD_CURATED_CLIPS, find_clips, open_competition
from tagging.errors import TaggingError

CLASSES = ("Meow", "Chink, clink", "Bark")         # not sorted: the order is the file's
CURATED = {"0a.wav": "Bark", "1b.wav": "Meow", "2c.wav": '"Chink, clink",Bark', "A3.wav": "Meow,Bark"}
NOISY = {"9.wav": "Bark", "10.wav": 'Meow,"Chink, clink"'}
TEST = ["t2.wav", "t1.wav", "t3.wav"]
FILES = {
    "Kaggle": {"curated": ("train_curated.csv", "train_curated"), "noisy": ("train_noisy.csv", "train_noisy"),
               "test": ("sample_submission.csv", "test"), "classes": ("sample_submission.csv", None)},
    "Zenodo": {"curated": ("FSDKaggle2019.meta/train_curated_post_competition.csv",
                           "FSDKaggle2019.audio_train_curated"),
               "noisy": ("FSDKaggle2019.meta/train_noisy_post_competition.csv", "FSDKaggle2019.audio_train_noisy"),
               "test": ("FSDKaggle2019.meta/test_post_competition.csv", "FSDKaggle2019.audio_test"),
               "classes": ("FSDKaggle2019.meta/vocabulary.csv", None)},
}
LAYOUTS = list(FILES)


class Folder:
    """A competition on disk; its clips are empty files, as nothing here listens to them."""

    def __init__(self, root, layout="Kaggle", *, vocabulary_header=False, curated=CURATED, noisy=NOISY):
        self.root, self.files = root, FILES[layout]
        zenodo = layout == "Zenodo"
        for part, rows in (("curated", curated), ("noisy", noisy)):
            rows = list(rows.items())
            if zenodo:                             # its rows are in no order, and have more columns
                random.Random(0).shuffle(rows)
                self.write(part, [("fname", "labels", "freesound_id", "license"),
                                  *((*row, "5", "CC, BY") for row in rows)])
            else:
                self.write(part, [("fname", "labels"), *sorted(rows)])
            self.fill(part, [fname for fname, _ in rows])
        self.fill("test", TEST)
        if zenodo:
            self.write("test", [("fname", "labels", "usage"), *((fname, "Bark", "Private") for fname in TEST)])
            self.write("classes", [("index", "label", "mid")] * vocabulary_header
                       + [(number, name, f"/m/{number}") for number, name in enumerate(CLASSES)])
        else:
            self.write("test", [("fname", *CLASSES), *((fname, 0, 0, 0) for fname in TEST)])

    def csv(self, part):
        return self.root / self.files[part][0]

    def folder(self, part):
        return self.root / self.files[part][1]

    def write(self, part, rows):
        self.csv(part).parent.mkdir(parents=True, exist_ok=True)
        with open(self.csv(part), "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    def fill(self, part, fnames):
        self.folder(part).mkdir(parents=True, exist_ok=True)
        for fname in fnames:
            (self.folder(part) / fname).touch()

    def replace(self, part, old, new):
        text = self.csv(part).read_text(encoding="utf-8")
        assert old in text
        self.csv(part).write_text(text.replace(old, new, 1), encoding="utf-8")

    def expect_error(self, part, *words):
        with pytest.raises(TaggingError) as caught:
            open_competition(self.root).clips(part)
        for word in words:
            assert str(word) in str(caught.value)


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


@pytest.mark.parametrize("rows, words", [
    ([(0, "Bark", "/m/0"), (1, "Meow", "/m/1"), (2, "Bark", "/m/2")], ["duplicate class", "Bark"]),
    ([(0, "Bark", "/m/0")], ["1 classes"]),
    ([("index", "label", "mid")], ["0 classes"]),
    ([(0, "Bark", "/m/0"), (1, "", "/m/1"), (2, "Meow", "/m/2")], []),
    ([], ["0 classes"]),
])
def test_a_vocabulary_that_names_no_two_classes_is_refused(tmp_path, rows, words):
    folder = Folder(tmp_path, "Zenodo")
    folder.write("classes", rows)
    folder.expect_error("curated", folder.csv("classes"), *words)


def test_a_folder_that_is_no_competition_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, word in [(tmp_path / "none", "not a folder"), (tmp_path / "file", "not a folder"),
                       (tmp_path, "sample_submission.csv")]:
        with pytest.raises(TaggingError) as caught:
            open_competition(path)
        assert str(path) in str(caught.value) and word in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["curated", "noisy", "test"])
def test_a_missing_folder_of_clips_is_named(tmp_path, layout, part):
    folder = Folder(tmp_path, layout)
    shutil.rmtree(folder.folder(part))
    folder.expect_error(part, folder.folder(part), f"{part} clips")


@pytest.mark.parametrize("layout, part", [("Kaggle", "curated"), ("Kaggle", "noisy"), ("Zenodo", "curated"),
                                          ("Zenodo", "noisy"), ("Zenodo", "test")])
def test_a_missing_csv_is_named(tmp_path, layout, part):
    folder = Folder(tmp_path, layout)
    folder.csv(part).unlink()
    folder.expect_error(part, folder.csv(part), "could not be read")


FAULTS = {
    "column": (lambda folder: folder.replace("curated", "labels", "tags"), ["no column labels", "fname, tags"]),
    "unknown label": (lambda folder: folder.replace("curated", "Meow", "Growl"), ["line 3", "1b.wav", "'Growl'"]),
    "unquoted commas": (lambda folder: folder.replace("curated", '"Meow,Bark"', "Meow,Bark"), ["line 5", "3 fields"]),
    "clip missing on disk": (lambda folder: (folder.folder("curated") / "2c.wav").unlink(), ["2c.wav", "1 clips"]),
    "clip that is a folder": (lambda folder: folder.replace("curated", "0a.wav", "."), ["missing on disk"]),
    "duplicate": (lambda folder: folder.replace("curated", "1b.wav", "0a.wav"), ["line 3", "'0a.wav'", "line 2"]),
    "class without clip": (lambda folder: folder.replace("curated", '"""Chink, clink"",Bark"', "Bark"),
                           ["1 classes", "Chink, clink", "sample_submission.csv"]),
    "no rows": (lambda folder: folder.write("curated", [("fname", "labels")]), ["no rows"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_curated_csv_is_named(tmp_path, fault):
    folder = Folder(tmp_path)
    damage, words = FAULTS[fault]
    damage(folder)
    folder.expect_error("curated", folder.csv("curated"), *words)
    assert len(open_competition(tmp_path).clips("noisy")) == len(NOISY)         # the other splits are not affected


def test_a_duplicate_test_clip_is_named(tmp_path):
    folder = Folder(tmp_path)
    folder.replace("test", "t1.wav", "t2.wav")
    folder.expect_error("test", folder.csv("test"), "line 3", "'t2.wav'")


def test_many_missing_clips_are_counted_and_some_named(tmp_path):
    many = {f"{number:03}.wav": '"Chink, clink",Bark,Meow' for number in range(30)}
    folder = Folder(tmp_path, curated=many)
    for fname in list(many)[10:]:
        (folder.folder("curated") / fname).unlink()
    folder.expect_error("curated", "20 clips", "010.wav", "014.wav", "15 more")


@pytest.mark.parametrize("part", ["curated", "noisy", "test"])
@pytest.mark.parametrize("how", ["parent", "absolute", "link", "link to a folder"])
def test_a_clip_outside_its_folder_is_refused_although_it_exists(tmp_path, part, how):
    root = tmp_path / "competition"
    folder = Folder(root)
    old = {"curated": "1b.wav", "noisy": "10.wav", "test": "t1.wav"}[part]
    secret = tmp_path / "secret.wav"
    secret.touch()
    name = {"parent": "../../secret.wav", "absolute": str(secret), "link": "link.wav",
            "link to a folder": "elsewhere/secret.wav"}[how]
    folder.replace(part, old, name)
    (folder.folder(part) / "link.wav").symlink_to(secret)
    (folder.folder(part) / "elsewhere").symlink_to(tmp_path)
    assert (folder.folder(part) / name).is_file()
    folder.expect_error(part, folder.csv(part), name, "outside")


def test_the_folder_of_clips_may_itself_be_a_link(tmp_path):
    folder = Folder(tmp_path / "competition")
    moved = folder.folder("curated").rename(tmp_path / "on another disk")
    folder.folder("curated").symlink_to(moved)
    (moved / "1b.wav").rename(moved / "original.wav")
    (moved / "1b.wav").symlink_to("original.wav")                               # a link within is no way out
    clips = open_competition(folder.root).clips("curated")
    assert list(clips.fnames) == sorted(CURATED) and all(path.is_file() for path in clips.paths)


@pytest.mark.parametrize("name", ["loop.wav", "a\0b.wav", "x" * 300 + ".wav"])
def test_a_name_that_the_disk_refuses_is_an_error_that_names_the_csv(tmp_path, name):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(TaggingError) as caught:
        find_clips(tmp_path / "table.csv", tmp_path, [name])
    assert str(tmp_path / "table.csv") in str(caught.value)


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


def test_a_class_that_has_bad_clips_only_has_none(tmp_path):
    Folder(tmp_path, curated={"0a.wav": "Bark,Meow", next(iter(BAD_CURATED_CLIPS)): '"Chink, clink"'}).expect_error(
        "curated", "Chink, clink")


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
                                    lambda name: f"C:\\data\\{name}", lambda name: name if name < "1" else f"z/{name}"])
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
        assert sum("names were matched to the clips in" in message for message in caplog.messages) == 1
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
    with pytest.raises(TaggingError, match=r"sample_submission\.csv lists 3 clips that are missing"):
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
