"""Which files of a folder are sound files, and which are named as left out."""
import os
import socket

import pytest

from tagging.errors import TaggingError
from tagging_lite.find import COPY, FORMAT, HIDDEN, LINK, NAMELESS, OTHER, SUFFIXES, class_folders, find_sounds

LATIN_1 = os.fsdecode(b"caf\xe9.wav")


def put(folder, *names, content=b"RIFF\4\0\0\0WAVE"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def left_out(folder, found):
    return {reason: names(folder, paths) for reason, paths in found.left_out.items()}


def test_sound_files_of_all_depths_are_found_in_order(tmp_path):
    sounds = ["A/a.wav", "A/deep/er/b.FLAC", "B.Mp3", LATIN_1, "x.wav/inner.m4a", "犬 1.opus"]
    put(tmp_path, *reversed(sounds), "A/cover.jpg", "README.txt", "A/rec.wav.json", "A/rec.mp3.npy")
    found = find_sounds([tmp_path])
    assert names(tmp_path, found.paths) == sounds and found.describe() == []
    assert left_out(tmp_path, found) == {OTHER: ["A/cover.jpg", "A/rec.mp3.npy", "A/rec.wav.json", "README.txt"]}


@pytest.mark.parametrize("name", [
    "._rec 1.wav", ".hidden.wav", ".ipynb_checkpoints/rec 1-checkpoint.wav", "__MACOSX/Bell/._rec 1.wav",
    "__MACOSX/Bell/rec.wav", "@eaDir/rec 1.wav/SYNOAUDIO.wav", ".Trash-1000/files/rec.wav", ".git/annex/rec.wav",
    "$RECYCLE.BIN/$R1.wav", "$Recycle.Bin/$R1.wav", "System Volume Information/a.wav", "lost+found/a.wav",
    ".AppleDouble/rec.wav", "#recycle/rec.wav", "@Recycle/rec.wav", "__pycache__/rec.wav", ".stfolder/a.wav",
    "#snapshot/daily/rec.wav", ".Spotlight-V100/a.wav"])
@pytest.mark.parametrize("depth", ["", "deep/er/"])
def test_hidden_files_and_leftovers_of_systems_are_no_clips_and_no_classes(tmp_path, depth, name):
    put(tmp_path, "Bell/rec 1.wav", "Siren/1.wav", depth + name)
    found = find_sounds([tmp_path])
    assert names(tmp_path, found.paths) == ["Bell/rec 1.wav", "Siren/1.wav"]
    assert left_out(tmp_path, found) == {HIDDEN: [depth + name.split("/")[0]]}
    assert class_folders(tmp_path) == ["Bell", "Siren", *(["deep"] if depth else [])]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini", "Icon\r", ".nomedia"])
def test_leftovers_that_are_no_sound_are_not_worth_a_line(tmp_path, name):
    put(tmp_path, "rec.wav", name)
    assert find_sounds([tmp_path]).left_out == {}


@pytest.mark.parametrize(("reason", "name"), [
    (FORMAT, "song.mid"), (FORMAT, "old.RA"), (FORMAT, "dsd.dff"), (FORMAT, "raw.pcm"), (FORMAT, "film.ogv"),
    (COPY, "rec.wav.part"), (COPY, "rec.WAV.crdownload"), (COPY, "rec.wav~"), (COPY, "rec.mp3.bak"),
    (COPY, "rec.wav.1"), (COPY, "rec.wav (1)"), (COPY, "rec.wav?download=1"), (COPY, "2024.05.rec.flac.tmp"),
    (NAMELESS, "rec"), (OTHER, "rec.wav.txt"), (OTHER, "sounds.zip"), (OTHER, "wav"), (OTHER, "rec.waveform")])
def test_what_looks_like_sound_and_is_not_read_is_named(tmp_path, reason, name):
    put(tmp_path, "a.wav")
    put(tmp_path, name, content=b"words" if reason == OTHER else b"RIFF\4\0\0\0WAVE")
    found = find_sounds([tmp_path])
    assert names(tmp_path, found.paths) == ["a.wav"] and left_out(tmp_path, found) == {reason: [name]}
    assert found.describe([reason], tmp_path) == [f"Not read, {reason} (1): {name}"]


def test_many_names_are_counted_and_the_first_ones_shown(tmp_path):
    put(tmp_path, "a.wav", *(f"{number:02}.mid" for number in range(30)))
    line, = find_sounds([tmp_path]).describe(home=tmp_path)
    assert line.startswith(f"Not read, {FORMAT} (30): 00.mid, 01.mid, ") and line.endswith("09.mid and 20 more")


def test_links_to_files_are_read_and_links_to_folders_are_named(tmp_path):
    put(tmp_path, "home/a.wav", "other/b.wav")
    for name, target in (("link.wav", "../other/b.wav"), ("folder", "../other"), ("up", ".."), ("self", "."),
                         ("x.wav", "../other"), ("broken.wav", "nowhere"), ("loop.wav", "loop.wav")):
        (tmp_path / "home" / name).symlink_to(target)
    found = find_sounds([tmp_path / "home"])
    assert names(tmp_path / "home", found.paths) == ["a.wav", "broken.wav", "link.wav", "loop.wav"]
    assert left_out(tmp_path / "home", found) == {LINK: ["folder", "self", "up", "x.wav"]}
    assert names(tmp_path, find_sounds([tmp_path / "home/folder"]).paths) == ["home/folder/b.wav"]      # it was named


def test_the_folder_of_a_class_can_be_a_link_and_never_leads_back(tmp_path):
    put(tmp_path, "home/A/a.wav", "other/b.wav", "other/deep/c.wav")
    for name, target in (("B", "../other"), ("A/more", "../../other"), ("Loop", "../home"), ("Up", "../..")):
        (tmp_path / "home" / name).symlink_to(target)
    found = find_sounds([tmp_path / "home"], follow=True)
    assert class_folders(tmp_path / "home") == ["A", "B"]
    assert names(tmp_path / "home", found.paths) == ["A/a.wav", "B/b.wav", "B/deep/c.wav"]
    assert left_out(tmp_path / "home", found) == {LINK: ["A/more", "Loop", "Up"]}


def test_pipes_and_sockets_are_not_opened(tmp_path, monkeypatch):
    put(tmp_path, "a.wav")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.wav")
    monkeypatch.chdir(tmp_path)         # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    found = find_sounds([tmp_path])
    assert names(tmp_path, found.paths) == ["a.wav", "pipe.wav"]        # the decoder refuses it by name
    assert left_out(tmp_path, found) == {OTHER: ["pipe", "socket"]}


@pytest.mark.parametrize("name", ["._rec.wav", "rec.wav~", "rec", "song.mid", "Thumbs.db", ".hidden/rec.wav", LATIN_1,
                                  "@eaDir/rec.wav", "notes.txt"])
def test_what_the_user_names_is_read_whatever_its_name(tmp_path, name):
    put(tmp_path, name)
    assert find_sounds([tmp_path / name]).paths == [tmp_path / name]
    put(tmp_path, ".hidden/@eaDir/rec.wav")
    assert find_sounds([tmp_path / ".hidden/@eaDir"]).paths == [tmp_path / ".hidden/@eaDir/rec.wav"]


@pytest.mark.parametrize(("content", "words"), [
    ((), ["holds no sound file (.wav, .flac, ", f"{len(SUFFIXES) - 8} other suffixes)", "Choose another folder"]),
    (("._a.wav", "b.mid"), [f"{HIDDEN} (1): ", "._a.wav", f"{FORMAT} (1): ", "b.mid"])])
def test_a_folder_without_sound_is_an_error_that_names_what_is_there(tmp_path, content, words):
    (tmp_path / "empty").mkdir()
    put(tmp_path / "empty", *content)
    with pytest.raises(TaggingError) as error:
        find_sounds([tmp_path / "empty"])
    assert all(word in str(error.value) for word in ["empty holds", *words])


def test_what_cannot_be_found_or_listed_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(TaggingError, match=r"nowhere\.wav does not exist"):
        find_sounds([tmp_path / "nowhere.wav"])
    put(tmp_path, "a.wav", "locked/b.wav")
    real = os.scandir

    def scandir(folder):
        if str(folder).endswith("locked"):      # permissions do not bind root
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(TaggingError, match="locked cannot be read: Permission denied"):
        find_sounds([tmp_path])


def test_the_suffixes_of_both_decoders_are_found():
    assert {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".w64", ".caf", ".m4a", ".webm", ".wma", ".amr"} < {*SUFFIXES}
    assert all(suffix == suffix.lower() for suffix in SUFFIXES) and len({*SUFFIXES}) == len(SUFFIXES)
