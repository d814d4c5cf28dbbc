"""What is taken for a sound in a user's folders, and what it is called."""
import os

import pytest
from conftest import digests
from own_sounds import TOOL, sound, write
from own_sounds import folders as folders
from own_sounds import shop as shop

from tools import labelled_sounds


def test_names_are_flat_unique_and_short():
    *names, long = labelled_sounds.flat_names(["Dog/a b.mp3", "Dog-a b.wav", "dog/A b.ogg", "x", "/x.wav",
                                                "ü" * 150 + "/end.wav"])
    assert names == ["Dog-a b.wav", "Dog-a b (2).wav", "dog-A b (3).wav", "x.wav", "x (2).wav"]
    assert long.endswith("üü-end.wav") and len(long.encode()) < 255


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
    result = shop.call(TOOL, shop.folder / "other", "--folders", folders)
    expect_error(result, "Dog/dangling.wav: a link to a file that does not exist")


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


def test_a_file_name_that_is_not_utf_8_is_written_with_escapes(shop, folders):
    (folders / "Dog/rec 0.wav").rename(folders / os.fsdecode(b"Dog/caf\xe9.wav"))
    clips, _, _ = labelled_sounds.read_folders(folders)
    assert clips.original[0] == r"Dog/caf\xe9.wav" and clips.path[0].is_file()
    assert labelled_sounds.flat_names(clips.original)[0] == "Dog-caf-xe9.wav"
