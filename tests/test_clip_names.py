"""Names of clips without the extension, with a folder in front, with backslashes: matched if exactly one clip fits."""
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tagging.data.clip_names import adopt_names, clip_names, find_clips, find_fits
from tagging.data.competition import Clips
from tagging.data.folds import FoldedClips
from tagging.errors import TaggingError

TABLE = Path("table.csv")


@pytest.fixture
def folder(tmp_path):
    """A folder with clips, and with files that are no clips."""
    for name in ("a.wav", "b.wav", "a b.wav", "Dog/rec 1.wav", "Dog/rec 2.flac", "Cat/rec 1.wav", "b.txt", "c.json",
                 ".hidden.wav", "v1.5.wav", "no extension", "Mo\u0308we.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(folder, *names):
    paths = find_clips(TABLE, folder, names)
    assert all(path.is_file() for path in paths)
    return clip_names(folder, paths)


@pytest.mark.parametrize("name, clip", [
    ("a.wav", "a.wav"), ("Dog/rec 1.wav", "Dog/rec 1.wav"), ("no extension", "no extension"),
    ("./a.wav", "a.wav"), ("Dog/../a.wav", "a.wav"), ("Dog//rec 1.wav", "Dog/rec 1.wav"),       # already paths to files
    ("a", "a.wav"), ("a b", "a b.wav"), ("Dog/rec 1", "Dog/rec 1.wav"), ("v1.5", "v1.5.wav"),
    ("train/a.wav", "a.wav"), ("./train/a.wav", "a.wav"), ("data/audio/a", "a.wav"), ("/home/ann/train/a.wav", "a.wav"),
    ("../train/a.wav", "a.wav"), ("https://example.org/clips/a.wav", "a.wav"),
    ("Dog\\rec 1.wav", "Dog/rec 1.wav"), ("C:\\data\\Dog\\rec 1.wav", "Dog/rec 1.wav"),
    ("..\\Dog\\rec 2", "Dog/rec 2.flac"),
    ("\\\\server\\share\\a.wav", "a.wav"), (" a.wav ", "a.wav"), ("M\u00f6we.wav", "Mo\u0308we.wav"),
    ("x/Dog/rec 1.wav", "Dog/rec 1.wav"),
])
def test_a_name_is_matched_to_the_clip_that_it_means(folder, name, clip):
    assert found(folder, name) == [clip]


@pytest.mark.parametrize("name, words", [
    ("c", ["1 clips that are missing on disk"]), ("b.mp3", ["missing on disk", "Did you mean b.wav"]),
    ("A.wav", ["missing on disk", "Did you mean a.wav"]), ("hidden.wav", ["missing"]),
    ("", ["missing"]), (".", ["missing"]),
    ("rec 1.wav", ["missing", "Did you mean Cat/rec 1.wav, Dog/rec 1.wav by rec 1.wav"]),       # no folder is guessed
    ("..", ["outside"]), ("../a", ["outside"]),
])
def test_a_name_that_fits_no_clip_is_refused(folder, name, words):
    (folder.parent / "a").touch()           # a file outside, which may be the one that is meant
    with pytest.raises(TaggingError) as caught:
        find_clips(TABLE, folder, ["a.wav", name])
    assert all(word in str(caught.value) for word in [str(TABLE), *words]), caught.value


def test_a_name_that_fits_two_clips_names_both(folder):
    (folder / "a.flac").touch()
    assert found(folder, "a.wav", "a.flac") == ["a.wav", "a.flac"]
    with pytest.raises(TaggingError, match=r"table.csv: 'a' fits 2 of the clips in .*: a.flac, a.wav. Write the whole"):
        find_clips(TABLE, folder, ["a"])
    with pytest.raises(TaggingError, match="fits 2 of"):        # also if another row names one of them
        find_clips(TABLE, folder, ["a", "a.wav"])


@pytest.mark.parametrize("names", [("a.wav", "a"), ("a", "x/a.wav"), ("x/a.wav", "y/a.wav"), ("./a.wav", "a.wav")])
def test_two_names_of_one_clip_are_refused(folder, names):
    with pytest.raises(TaggingError, match=r"'.*' (are|and '.*' are) the same clip"):
        find_clips(TABLE, folder, names)


@pytest.mark.parametrize("names, message", [
    (["b.wav", "a"], "line 3: 'a' fits 2"), (["b.wav", "c", "d"], "line 3: the csv lists 2 clips that are missing"),
    (["b.wav", "./b.wav"], "line 3: 'b.wav' and './b.wav' are the same clip"),
    (["b.wav", "b"], "line 3: 'b.wav' and 'b' are the same clip"),
    (["../table.csv"], "line 2: '../table.csv' is outside"),
    (["x" * 300], "line 2: 'xxx"), (["."], "line 2: the csv lists 1 clips")])
def test_messages_name_the_line(folder, names, message):
    (folder / "a.flac").touch()
    table = folder.parent / "table.csv"
    table.write_text("\n".join(["fname,labels", *(f"{name},A" for name in names)]))
    with pytest.raises(TaggingError) as caught:
        find_clips(table, folder, names)
    assert str(caught.value).startswith(f"{table}, {message}")


@pytest.mark.parametrize("form", ["./{}", "../{folder}/{}", "{root}/{folder}/{}", ".//{}", "sub/../{}", "{link}/{}"])
def test_one_clip_has_one_name_however_its_path_is_written(tmp_path, form):
    """The order, the folds and the organisers' bad clips depend on the names."""
    real = tmp_path / "real"
    (real / "sub").mkdir(parents=True)
    for name in ("b.wav", "a.wav", "f76181c4.wav"):
        (real / name).touch()
    (tmp_path / "linked").symlink_to(real)
    for folder in (real, tmp_path / "linked"):
        names = [form.format(name, folder=folder.name, root=tmp_path, link=tmp_path / "linked")
                 for name in ("b.wav", "f76181c4.wav")]
        names.append("a.wav")           # some of the names only
        assert clip_names(folder, find_clips(TABLE, folder, names)) == ["b.wav", "f76181c4.wav", "a.wav"]


def test_a_link_within_the_folder_keeps_its_own_name(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").symlink_to("a.wav")
    assert clip_names(tmp_path, find_clips(TABLE, tmp_path, ["./b.wav"])) == ["b.wav"]


def test_exact_names_win_and_are_not_searched_for(folder, monkeypatch):
    (folder / "train").mkdir()
    (folder / "train" / "a.wav").touch()
    assert found(folder, "train/a.wav", "a.wav") == ["train/a.wav", "a.wav"]
    assert found(folder, "x/train/a.wav") == ["train/a.wav"]             # the longest path in common
    monkeypatch.setattr("tagging.data.clip_names.list_files", lambda _: pytest.fail("the folder was searched"))
    assert found(folder, "a.wav", "Dog/rec 1.wav") == ["a.wav", "Dog/rec 1.wav"]


def test_links_to_files_elsewhere_are_not_matched(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret.wav"
    elsewhere.touch()
    (folder / "secret.wav").symlink_to(elsewhere)
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "good.wav").symlink_to("a.wav")
    assert found(folder, "good") == ["good.wav"]
    for name in ("secret", "x/secret.wav", "dangling", "x/dangling.wav"):
        with pytest.raises(TaggingError, match="missing"):
            find_clips(TABLE, folder, [name])


def test_how_many_names_were_matched_in_which_way_is_said_once(folder, caplog):
    names = ["a.wav", "b", "a b", "train\\v1.5.wav", "x/Dog/rec 1"]
    for _ in range(2):
        found(folder, *names)
    assert caplog.messages == [
        f"note: table.csv: 4 of 5 names were matched to the clips in {folder}: 2 without the extension, such as 'b' is "
        "'b.wav'; 1 with other folders in front and with backslashes, such as 'train\\v1.5.wav' is 'v1.5.wav'; 1 "
        "without the extension and with other folders in front, such as 'x/Dog/rec 1' is 'Dog/rec 1.wav'."]


def test_names_are_adopted_in_both_directions(caplog):
    def adopt(names, clips):
        return adopt_names(names, clips, TABLE, "the rows of truth.csv")
    assert adopt(["a", "x/b.wav", "c.wav"], ["c.wav", "b.wav", "a.wav"]) == ["a.wav", "b.wav", "c.wav"]
    assert adopt(["a.wav", "b.wav"], ["b", "x/a"]) == ["x/a", "b"]
    assert adopt(["a.wav", "new.wav"], ["a.wav", "b.wav"]) == ["a.wav", "new.wav"]      # the caller names the new one
    caplog.clear()
    assert adopt(["a.wav", "test/a.wav"], ["a.wav"]) == ["a.wav", "test/a.wav"]         # no clip is without a row
    assert not caplog.messages
    for names, clips in ((["a"], ["a.wav", "a.flac"]), (["a.wav", "a.flac"], ["a", "b"]),
                         (["a", "a.wav"], ["a.wav", "b"])):
        with pytest.raises(TaggingError, match=r"table\.csv: .* of the rows of truth\.csv"):
            adopt(names, clips)


def test_many_names_are_matched_quickly():
    clips = [f"{number:06}.wav" for number in range(20_000)]
    fits = find_fits([f"some/long/folder/{clip[:-4]}" for clip in clips], clips)
    assert [found for found in fits.values()] == [[clip] for clip in clips]


def test_soft_labels_are_matched_to_the_clips(tmp_path):
    """Also if some rows were removed and the others were written by a spreadsheet."""
    fnames = pd.Index([f"{number}.wav" for number in range(4)])
    store = SimpleNamespace(subset=lambda keep: keep)
    clips = FoldedClips(Clips("noisy", Path("noisy.csv"), fnames, [Path(name) for name in fnames], np.eye(4, 2)), store,
                        np.array([1, 2, 1, 2]))
    (tmp_path / "labels.csv").write_text("fname;b;a\nx\\3;0,25;1\nx\\0;0,5;0\n")
    relabelled = clips.relabelled(tmp_path / "labels.csv", ("a", "b"))
    assert list(relabelled.clips.fnames) == ["0.wav", "3.wav"] and relabelled.fold_of.tolist() == [1, 2]
    assert relabelled.clips.targets.tolist() == [[0, 0.5], [1, 0.25]]
    (tmp_path / "labels.csv").write_text("fname,a,b\n0,1,1\n0.wav,1,1\n")
    with pytest.raises(TaggingError, match="same clip"):
        clips.relabelled(tmp_path / "labels.csv", ("a", "b"))
