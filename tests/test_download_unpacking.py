"""tools.download unpacks nothing that is unsafe or damaged, and resumes after any interruption."""
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from zipfile import ZipFile, ZipInfo

import pytest
from conftest import ROOT
from downloads import ARCHIVES, CLIPS, TEST, assert_complete
from downloads import download as download
from downloads import no_waiting as no_waiting
from downloads import out as out
from downloads import zenodo as zenodo
from fake_zenodo import contents, split_zip, stop_at, zipped

from tools.download import unpack

KILLS = int(os.environ.get("KILLS", "6"))

# Archives.

@pytest.mark.parametrize("name", ["../outside.wav", "/outside.wav", "a/../../outside.wav", "C:\\outside.wav",
                                  "..\\outside.wav"])
def test_paths_out_of_the_folder_are_refused(download, zenodo, out, expect_error, name):
    zenodo.files[TEST] = zipped({"FSDKaggle2019.audio_test/test00.wav": b"x", name: b"evil"})
    expect_error(download("--parts", "test"), "outside its folder", "Nothing was unpacked")
    assert not (out / "FSDKaggle2019.audio_test").exists() and not list(out.parent.rglob("outside*"))


@pytest.mark.parametrize("name", [".download/test.json", "./.download/x", ".Download/x", "a\\.download. /x"])
def test_the_records_of_the_tool_are_not_written_over(download, zenodo, out, expect_error, name):
    zenodo.files[TEST] = zipped({"FSDKaggle2019.audio_test/test00.wav": b"x", name: b"{}"})
    expect_error(download("--parts", "test"), "member in .download", "Nothing was unpacked")
    assert contents(out).keys() == {TEST}


@pytest.mark.parametrize("part, change, words", [
    ("meta", lambda path: path.replace("vocabulary", "classes"), "does not contain FSDKaggle2019.meta/vocabulary.csv"),
    ("meta", lambda path: f"release/{path}", "but release/FSDKaggle2019.meta/"),
    ("audio_test", lambda path: path.split("/")[1], "does not contain FSDKaggle2019.audio_test/, but test00.wav")])
def test_an_archive_of_other_files_is_no_part(download, zenodo, out, expect_error, part, change, words):
    name, right = f"FSDKaggle2019.{part}.zip", zenodo.files[f"FSDKaggle2019.{part}.zip"]
    zenodo.files[name] = zipped({change(path): data for path, data in ARCHIVES[name[:-4]].items()})
    for _ in range(2):          # it stays an error, because nothing says that the part is complete
        expect_error(download("--parts", "meta", "test"), str(out / name), words, "--record-url")
    zenodo.files[name] = right
    result = download()
    assert result.code == 0 and "has another checksum" in result.out and CLIPS.items() <= contents(out).items()


def test_a_link_in_an_archive_is_refused(download, zenodo, out, expect_error):
    data, link = io.BytesIO(), ZipInfo("FSDKaggle2019.audio_test")
    link.external_attr = 0o120777 << 16
    with ZipFile(data, "w") as archive:
        archive.writestr(link, "/tmp")
    zenodo.files[TEST] = data.getvalue()
    expect_error(download("--parts", "test"), "a link as a member", "Nothing was unpacked")
    assert not (out / "FSDKaggle2019.audio_test").exists()


def test_an_archive_that_is_damaged_at_its_source(download, zenodo, out, expect_error):
    data = bytearray(zenodo.files[TEST])
    data[200] ^= 1
    zenodo.files[TEST] = bytes(data)
    expect_error(download(), f"{out / TEST} cannot be unpacked", "damaged at its source")
    assert (out / TEST).exists() and not list(out.rglob(unpack.PARTIAL))


def test_a_part_of_another_split_zip(download, zenodo, out, expect_error):
    parts = split_zip(ARCHIVES["FSDKaggle2019.audio_train_noisy"], [20000])
    zenodo.files["FSDKaggle2019.audio_train_noisy.zip"] = parts[-1]
    expect_error(download(), "FSDKaggle2019.audio_train_noisy.zip cannot be unpacked: the archive has 2 parts")


def test_a_clip_of_the_csv_that_no_archive_has(download, zenodo, out, expect_error):
    content = dict(ARCHIVES["FSDKaggle2019.audio_test"])
    del content["FSDKaggle2019.audio_test/test03.wav"]
    zenodo.files[TEST] = zipped(content)
    expect_error(download(), "test_post_competition.csv", "1 clips", "test03.wav")


# Interruptions.

def process(out, zenodo, *words):
    return subprocess.Popen(
        [sys.executable, ROOT / "tools/download/__main__.py", out, "--record-url", f"{zenodo.url}/record", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_download_which_resumes(download, zenodo, out, number, code):
    zenodo.pause = 0.2
    running = process(out, zenodo)
    while not list(out.glob(".download/*.partial")):
        assert running.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    running.send_signal(number)
    _, err = running.communicate(timeout=5)
    assert running.returncode == code and "Run the same command again to resume." in err and "Traceback" not in err
    zenodo.pause = 0
    result = download()
    assert "resuming at" in result.out
    assert_complete(result, out)


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_nothing(download, zenodo, out, tmp_path):
    zenodo.pause, rng = 0.02, random.Random(KILLS)
    reference = process(tmp_path / "reference", zenodo)
    reference.stdout.readline()                     # the first line, before which libraries are imported
    begun = time.monotonic()
    assert reference.communicate() and reference.returncode == 0
    span = time.monotonic() - begun
    for _ in range(KILLS):
        running = process(out, zenodo)
        running.stdout.readline()
        time.sleep(rng.uniform(0, span / 2))        # what is there already takes no time
        running.kill()
        running.communicate()
        present = {path: data for path, data in contents(out).items() if path in CLIPS}
        assert present == {path: CLIPS[path] for path in present}
    assert_complete(download(), out)


@pytest.mark.parametrize("place, name, call", [(unpack, "write_member", 3), (unpack, "write_json", 1),
                                               (unpack, "write_json", 3), (unpack, "safe_members", 2)])
def test_a_signal_while_unpacking(download, out, monkeypatch, place, name, call):
    with stop_at(monkeypatch, place, name, call):
        result = download()
    assert result.code == 143 and "to resume" in result.err
    assert {path: data for path, data in contents(out).items() if "/" in path}.items() <= CLIPS.items()
    assert_complete(download(), out)


def test_a_member_that_cannot_be_written_leaves_no_half_file(download, out, expect_error, monkeypatch):
    def full(source, target, *_):
        target.write(source.read(10))
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    expect_error(download(), "No space left on device", "same command again to resume")
    assert not [path for path in contents(out) if path.endswith((".wav", ".csv"))]
    monkeypatch.undo()
    assert_complete(download(), out)


def test_archives_left_by_a_killed_process_are_removed(download, zenodo, out):
    download("--keep")
    for path in (out / ".download").glob("*.json"):     # as if the process had been killed before it removed them
        path.write_text(json.dumps(json.loads(path.read_text()) | {"keep": False}))
    assert_complete(download(), out)
