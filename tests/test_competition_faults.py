"""Competition folders with one fault each: the error names the file and what is wrong."""
import shutil

import pytest
from competition_folder import LAYOUTS, NOISY, Folder

from tagging.data.competition import BAD_CURATED_CLIPS, find_clips, open_competition
from tagging.errors import TaggingError


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


@pytest.mark.parametrize("name", ["loop.wav", "a\0b.wav", "x" * 300 + ".wav"])
def test_a_name_that_the_disk_refuses_is_an_error_that_names_the_csv(tmp_path, name):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(TaggingError) as caught:
        find_clips(tmp_path / "table.csv", tmp_path, [name])
    assert str(tmp_path / "table.csv") in str(caught.value)


def test_a_class_that_has_bad_clips_only_has_none(tmp_path):
    Folder(tmp_path, curated={"0a.wav": "Bark,Meow", next(iter(BAD_CURATED_CLIPS)): '"Chink, clink"'}).expect_error(
        "curated", "Chink, clink")
