"""tools.download from a local server that behaves as Zenodo does on bad days."""
import httpx
import pytest
from conftest import Workshop
from downloads import ARCHIVES, CLIPS, NOISY, TEST, assert_complete
from downloads import download as download
from downloads import no_waiting as no_waiting
from downloads import out as out
from downloads import zenodo as zenodo
from fake_zenodo import contents, http_date, zipped

from tools.download import retries


@pytest.mark.parametrize("faults, words", [
    (["429 1"], "429 Too Many Requests. Attempt 2 of 6 in 1 s"),
    (["429 " + "DATE"], "429 Too Many Requests. Attempt 2 of 6 in"),
    (["500", "503", "502"], "500 Internal Server Error"),
    (["breaks"], "Resuming"),
    (["breaks", "breaks", "500", "breaks"], "Resuming"),
    (["truncated"], "the answer of the server ended early after"),
    (["truncated", "truncated", "truncated"], "Resuming"),
    (["redirect"], ""),
    (["wrong"], "downloaded once more"),
    (["longer"], "downloaded once more"),
    (["html"], "a web page instead of the file, perhaps the login page of your network. Attempt 2"),
    (["breaks", "416"], "no such part"),
    (["breaks", "other-range"], "another part of the file")])
def test_a_fault_of_the_server_is_overcome(download, zenodo, out, faults, words):
    name = NOISY
    zenodo.faults[name] = [fault.replace("DATE", http_date(2)) for fault in faults]
    result = download("--connections", "2")
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
    ("html always", ["web page instead of the file", "attempt 2 of 2", "HTTPS_PROXY"]),
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


@pytest.mark.parametrize("address", [
    "http://127.0.0.1:99999/r", "http://:", "http://", "http://:80", "http://[::1/r", "http://127.0.0.1:x/r",
    "http://a..b/r", "https://" + "a" * 64 + ".org/r", "http://ex ample/r", "http://\u2603..\u2603/r", "http://127.0.0.1:-1/r"])
def test_an_address_that_is_none(tmp_path, expect_error, address):
    message = expect_error(Workshop(tmp_path, tmp_path).call("tools/download/__main__.py", tmp_path / "out",
                                                             "--record-url", address, "--attempts", "1"))
    assert ".. " not in message and "Check the " in message


@pytest.mark.parametrize("fault, words", [
    ("404", "404 Not Found"), ("html", "is no JSON document"), ("429 3600", "asks to wait"), ("500", "attempt 1 of 1")])
def test_a_password_in_the_address_is_not_printed(tmp_path, zenodo, expect_error, fault, words):
    zenodo.faults["record"] = [fault]
    address = zenodo.url.replace("//", "//user:se@cret@") + "/record"
    result = Workshop(tmp_path, tmp_path).call("tools/download/__main__.py", tmp_path / "out", "--record-url", address,
                                               "--attempts", "1")
    expect_error(result, f"{zenodo.url}/record: " if words[0] != "i" else f"{zenodo.url}/record is", words)
    assert "cret" not in result.out + result.err


@pytest.mark.parametrize("record, words", [
    ("<html>", "is no JSON document"), ({"message": "deleted"}, "is no Zenodo record"), ([], "is no Zenodo record"),
    ({"files": [{"key": TEST}]}, "is no Zenodo record"), ({"files": []}, "does not list FSDKaggle2019"),
    ({"files": [{"key": TEST, "size": 5, "checksum": "sha1:1", "links": {"self": "x"}}]}, "is no Zenodo record"),
    ({"files": [{"key": TEST, "size": 1 << 63, "checksum": "md5:" + "0" * 32, "links": {"self": "x"}}]}, "no Zenodo"),
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
