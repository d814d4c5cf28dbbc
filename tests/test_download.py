"""tools.download from a local server that behaves as Zenodo does on good days, into all kinds of folders."""
import shutil
import time

import pytest
from downloads import ARCHIVES, CLIPS, TEST, assert_complete
from downloads import download as download
from downloads import no_waiting as no_waiting
from downloads import out as out
from downloads import zenodo as zenodo
from fake_zenodo import contents
from filelock import FileLock

from tools.download import progress, unpack

# The normal way.

def test_the_whole_competition(download, zenodo, out):
    result = download()
    assert_complete(result, out)
    for line in ("curated: all 6 clips", "noisy: all 12 clips", "test: all 4 clips", "10 archives"):
        assert line in result.out
    assert len(zenodo.requests) == 1 + len(zenodo.files) - 1 and not any(zenodo.asked("FSDKaggle2019.doc.zip"))


def test_the_second_call_asks_the_server_nothing(download, zenodo, out):
    download()
    zenodo.requests.clear()
    begun = time.monotonic()
    result = download()
    assert_complete(result, out)
    assert zenodo.requests == [] and time.monotonic() - begun < 1
    assert "everything is in place" in result.out


def test_parts_are_added_one_by_one(download, zenodo, out):
    result = download("--parts", "test")
    assert result.code == 0 and "Download them with --parts meta" in result.out
    result = download("--parts", "meta", "test", "doc")
    assert "test: all 4 clips" in result.out and "curated" not in result.out
    assert len(zenodo.asked(TEST)) == 1
    assert_complete(download("--parts", "curated", "noisy"), out, CLIPS | ARCHIVES["FSDKaggle2019.doc"])


def test_kept_archives_are_used_again(download, zenodo, out):
    download("--keep")
    assert {name for name in contents(out) if "/" not in name} == {name for name in zenodo.files if "doc" not in name}
    clip = out / "FSDKaggle2019.audio_test/test00.wav"
    clip.unlink()
    zenodo.requests.clear()
    result = download("--parts", "test", "--keep")
    assert "1 of 4 files are missing" in result.out and result.code == 0
    assert clip.exists() and [name for name, _ in zenodo.requests] == ["record"]


def test_files_that_are_already_unpacked_are_kept(download, out):
    """A folder that was unpacked by hand, with one clip cut short and one file of the user."""
    for path, data in CLIPS.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    short = "FSDKaggle2019.audio_test/test02.wav"
    (out / short).write_bytes(CLIPS[short][:-1])
    before = {path: (out / path).stat().st_mtime_ns for path in CLIPS}
    result = download()
    assert_complete(result, out)
    assert "1 files differed" in result.out and "test02.wav" in result.out
    assert [path for path in CLIPS if (out / path).stat().st_mtime_ns != before[path]] == [short]
    assert (out / ".download/replaced/test02.wav").read_bytes() == CLIPS[short][:-1]


def test_archives_that_were_downloaded_by_hand_are_used(download, zenodo, out):
    out.mkdir()
    (out / TEST).write_bytes(zenodo.files[TEST])
    assert_complete(download(), out)
    assert zenodo.asked(TEST) == []


# The disk.

def test_the_free_space_is_checked_first(download, zenodo, out, expect_error, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    message = expect_error(download(), str(out), "free space", "still to download", "1.4 times", "10.0 kB")
    assert "Free some space" in message and [name for name, _ in zenodo.requests] == ["record"]


def test_the_free_space_is_checked_again_before_unpacking(download, out, expect_error, monkeypatch):
    usage = shutil.disk_usage("/")
    real = unpack.check_space

    def check(folder, needed, purpose):
        if purpose.startswith("for the files of"):
            monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        real(folder, needed, purpose)
    monkeypatch.setattr(unpack, "check_space", check)
    expect_error(download(), "for the files of FSDKaggle2019.meta.zip", "100 bytes")
    monkeypatch.undo()
    assert_complete(download(), out)


def test_two_processes_on_one_folder(download, out, expect_error):
    with FileLock(out / ".download/lock"):
        expect_error(download(), "Another process downloads to", str(out))


def test_a_folder_in_the_other_layout(download, out, expect_error):
    out.mkdir()
    (out / "sample_submission.csv").write_text("fname,Bark,Meow\na.wav,0,0\n")
    expect_error(download(), "has the layout of Kaggle", "Choose another OUT")


def test_a_file_in_the_place_of_the_folder(download, out, expect_error):
    out.write_text("no folder")
    expect_error(download(), str(out), "is not a folder")


@pytest.mark.parametrize("words", [("--connections", "0"), ("--connections", "99"), ("--attempts", "0"), ("--parts",),
                                   ("--record-url", "zenodo.org"), ("--from", "kaggle", "--keep")])
def test_options_out_of_range(download, expect_error, words):
    result = download(*words)
    assert result.code == 2 and words[0] in result.out + result.err and "Traceback" not in result.err


# What people see.

def test_a_line_now_and_then_without_a_terminal(download, zenodo, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    result = download()
    lines = [line for line in result.out.splitlines() if line.startswith("downloading: ")]
    assert lines and all(" of " in line and " left" in line and "B/s" in line for line in lines) and not result.err


@pytest.mark.parametrize("count, text", [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (25_300_000, "25.3 MB"),
                                         (3_300_000_000, "3.3 GB"), (4e13, "40000.0 GB")])
def test_sizes_for_people(count, text):
    assert progress.sized(count) == text


@pytest.mark.parametrize("count", [1, 3])
def test_several_files_are_downloaded_at_a_time(download, zenodo, out, count):
    zenodo.pause = 0.005
    assert_complete(download("--connections", count), out)
    assert zenodo.most == count
