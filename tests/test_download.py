"""tools.download from a local server that behaves as Zenodo does on good and on bad days."""
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import httpx
import pytest
from conftest import ROOT, Workshop
from fake_zenodo import FakeZenodo, competition_files, contents, http_date, release, split_zip, stop_at, zipped
from filelock import FileLock

from tools.download import progress, retries, unpack

ARCHIVES = competition_files()
CLIPS = {path: data for content in ARCHIVES.values() for path, data in content.items() if "doc" not in path}
KILLS = int(os.environ.get("KILLS", "6"))
TEST, NOISY = "FSDKaggle2019.audio_test.zip", "FSDKaggle2019.audio_train_noisy.z01"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(retries, "backoff", lambda state: 0.0)
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture
def zenodo():
    with FakeZenodo(release(ARCHIVES)).serve() as server:
        yield server


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "fsdkaggle2019"


@pytest.fixture
def download(tmp_path, zenodo, out):
    def call(*words, folder=out):
        return Workshop(tmp_path, folder).call("tools/download/__main__.py", folder, "--record-url",
                                               f"{zenodo.url}/record", *words)
    return call


def assert_complete(result, out: Path, expected=CLIPS) -> None:
    assert result.code == 0, result.out + result.err
    assert contents(out) == expected
    assert not list((out / ".download").glob("*.partial"))


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


# Bad days of the server.

@pytest.mark.parametrize("faults, words", [
    (["429 1"], "429 Too Many Requests. Attempt 2 of 6 in 1 s"),
    (["429 " + "DATE"], "429 Too Many Requests. Attempt 2 of 6 in"),
    (["500", "503", "502"], "500 Internal Server Error"),
    (["breaks"], "Resuming"),
    (["breaks", "breaks", "500", "breaks"], "Resuming"),
    (["truncated"], "the connection ended early after"),
    (["truncated", "truncated", "truncated"], "Resuming"),
    (["redirect"], ""),
    (["wrong"], "downloaded once more"),
    (["longer"], "downloaded once more"),
    (["html"], "html"),
    (["breaks", "416"], "no such part"),
    (["breaks", "other-range"], "another part of the file")])
def test_a_fault_of_the_server_is_overcome(download, zenodo, out, faults, words):
    name = NOISY
    zenodo.faults[name] = [fault.replace("DATE", http_date(2)) for fault in faults]
    result = download("--connections", "2")
    if words == "html":         # it is shorter than the file: the rest is asked for, and then the checksum is wrong
        words = "downloaded once more"
    assert_complete(result, out)
    assert words in result.out
    assert not zenodo.faults[name]


def test_the_record_is_asked_for_again_too(download, zenodo, out):
    zenodo.faults["record"] = ["429 0", "500", "redirect"]
    assert_complete(download(), out)


def test_a_broken_connection_resumes_where_it_stopped(download, zenodo, out):
    zenodo.faults[TEST] = ["breaks"]
    assert_complete(download(), out)
    first, second = zenodo.asked(TEST)
    half = len(zenodo.files[TEST]) // 2
    assert first is None and second == f"bytes={half}-"


def test_a_server_without_ranges_starts_again(download, zenodo, out):
    zenodo.ranges = False
    zenodo.faults[TEST] = ["breaks"]
    result = download()
    assert_complete(result, out)
    assert "cannot continue a file. It starts again" in result.out


def test_a_server_without_ranges_that_always_breaks_is_an_error(download, zenodo, out, expect_error):
    zenodo.ranges = False
    zenodo.faults[TEST] = ["breaks always"]
    expect_error(download("--attempts", "3"), TEST, "attempt 3 of 3", "same command again")


@pytest.mark.parametrize("fault, words", [
    ("wrong always", ["two downloads have wrong content", "The record says", "mirror with --record-url"]),
    ("longer always", ["two downloads have wrong content", "more than"]),
    ("503 always", ["503 Service Unavailable", "attempt 2 of 2", "HTTPS_PROXY", "to resume"]),
    ("404", ["404 Not Found", "/files/", "Check that the address opens in a browser"]),
    ("403", ["403 Forbidden"]),
    ("429 3600", ["asks to wait 60 minutes", "Run the same command again to resume then."])])
def test_a_fault_that_stays_is_one_clear_error(download, zenodo, out, expect_error, fault, words):
    zenodo.faults[TEST] = [fault]
    expect_error(download("--attempts", "2"), TEST, *words)
    assert TEST not in contents(out)
    zenodo.faults.clear()
    assert_complete(download(), out)


def test_a_wrong_checksum_names_both(download, zenodo, out, expect_error):
    zenodo.faults[TEST] = ["wrong always"]
    record = next(entry for entry in zenodo.record()["files"] if entry["key"] == TEST)
    message = expect_error(download(), record["checksum"].removeprefix("md5:"), f"{record['size']} bytes")
    assert len(zenodo.asked(TEST)) == 2 and message.count("MD5") == 1


def test_a_file_that_has_changed_since_starts_again(download, zenodo, out):
    zenodo.faults[TEST] = ["breaks", "500 always"]
    assert download("--attempts", "1").code == 2
    assert len(list((out / ".download").glob(f"{TEST}.*.partial"))) == 1
    changed = ARCHIVES["FSDKaggle2019.audio_test"] | {"FSDKaggle2019.audio_test/test00.wav": b"another recording"}
    zenodo.files[TEST] = zipped(changed)
    zenodo.faults.clear()
    result = download()
    assert f"{TEST} has changed on the server" in result.out
    assert_complete(result, out, CLIPS | changed)


def test_a_kept_archive_of_another_version_is_set_aside(download, zenodo, out):
    download("--keep", "--parts", "test")
    old = (out / TEST).read_bytes()
    changed = ARCHIVES["FSDKaggle2019.audio_test"] | {"FSDKaggle2019.audio_test/test00.wav": b"another recording"}
    zenodo.files[TEST] = zipped(changed)
    (out / "FSDKaggle2019.audio_test/test00.wav").unlink()
    result = download()
    assert "has another checksum than in the record" in result.out
    assert (out / ".download/replaced" / TEST).read_bytes() == old
    assert result.code == 0 and (out / "FSDKaggle2019.audio_test/test00.wav").read_bytes() == b"another recording"


def test_no_answer_is_an_error_after_some_time(download, zenodo, out, expect_error, monkeypatch):
    monkeypatch.setattr(retries, "TIMEOUT", httpx.Timeout(0.2))
    zenodo.faults[TEST] = ["silent always"]
    expect_error(download("--attempts", "2"), TEST, "no data for", "attempt 2 of 2")


def test_no_server_at_all(tmp_path, expect_error):
    result = Workshop(tmp_path, tmp_path).call("tools/download/__main__.py", tmp_path / "out", "--record-url",
                                               "http://127.0.0.1:9/record", "--attempts", "2")
    expect_error(result, "http://127.0.0.1:9/record", "no connection", "HTTPS_PROXY")


@pytest.mark.parametrize("record, words", [
    ("<html>", "is no JSON document"), ({"message": "deleted"}, "is no Zenodo record"), ([], "is no Zenodo record"),
    ({"files": [{"key": TEST}]}, "is no Zenodo record"), ({"files": []}, "does not list FSDKaggle2019"),
    ({"files": [{"key": TEST, "size": 5, "checksum": "sha1:1", "links": {"self": "x"}}]}, "is no Zenodo record"),
    ({"files": [{"key": TEST, "size": "5", "checksum": "md5:" + "0" * 32, "links": {"self": "x"}}]}, "Zenodo record")])
def test_an_answer_that_is_no_record(download, zenodo, expect_error, monkeypatch, record, words):
    monkeypatch.setattr(zenodo, "record", lambda: record)
    if record == "<html>":
        zenodo.faults["record"] = ["html"]
    expect_error(download(), words, "--record-url" if words != "is no JSON document" else "login page")


def test_a_record_without_one_of_the_seven_parts(download, zenodo, expect_error):
    del zenodo.files[NOISY]
    expect_error(download(), "does not list FSDKaggle2019.audio_train_noisy.z01", "--parts")


def test_relative_links_of_a_mirror(download, zenodo, out, monkeypatch):
    record = zenodo.record()
    for entry in record["files"]:
        entry["links"]["self"] = entry["links"]["self"].removeprefix(zenodo.url)
    monkeypatch.setattr(zenodo, "record", lambda: record)
    assert_complete(download(), out)


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


# Archives.

@pytest.mark.parametrize("name", ["../outside.wav", "/outside.wav", "a/../../outside.wav", "C:\\outside.wav",
                                  "..\\outside.wav"])
def test_paths_out_of_the_folder_are_refused(download, zenodo, out, expect_error, name):
    zenodo.files[TEST] = zipped({"FSDKaggle2019.audio_test/test00.wav": b"x", name: b"evil"})
    expect_error(download("--parts", "test"), "outside its folder", "Nothing was unpacked")
    assert not (out / "FSDKaggle2019.audio_test").exists() and not list(out.parent.rglob("outside*"))


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


def test_retry_after_is_seconds_or_a_date():
    assert retries.retry_after("7") == 7
    assert 27 < retries.retry_after(http_date(30)) <= 30
    assert 27 < retries.retry_after(http_date(30).replace("GMT", "-0000")) <= 30
    assert retries.retry_after(http_date(-100)) == 0


@pytest.mark.parametrize("text", ["", "soon", "-5"])
def test_a_retry_after_that_says_nothing(text):
    assert retries.retry_after(text) is None


def test_wrong_proxy_settings_are_explained(download, monkeypatch, expect_error):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy:1")
    expect_error(download(), "HTTP_PROXY")


def test_a_proxy_is_used(download, zenodo, out, monkeypatch, expect_error):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    expect_error(download("--attempts", "1"), "no connection")
    assert zenodo.requests == []


@pytest.mark.parametrize("count", [1, 3])
def test_several_files_are_downloaded_at_a_time(download, zenodo, out, count):
    zenodo.pause = 0.005
    assert_complete(download("--connections", count), out)
    assert zenodo.most == count
