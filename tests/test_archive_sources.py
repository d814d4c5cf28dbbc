"""Where sounds come from: lists, pipes, archives, web servers and S3."""
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import archive_case
import pytest
from archive_case import arguments, call, load, write_sounds

from tagging_lite.archive import fetch
from tagging_lite.archive.sources import NameStream, SavedNames
from tagging_lite.command import tag_paths
from tagging_lite.errors import TaggingError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def sounds(tmp_path):
    return write_sounds(tmp_path / "sounds", 4, seconds=0.5)


def tagged(capsys, *words):
    """Tag, and return the exit code, the tags of each file and stderr."""
    code = call(*words, "--format", "jsonl")
    out, err = capsys.readouterr()
    return code, {entry["path"]: entry["tags"] for entry in map(json.loads, out.splitlines())}, err


@pytest.fixture
def expected(sounds, capsys):
    return tagged(capsys, *sounds)[1]


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("out", [False, True])
def test_a_list_names_files_relative_to_the_current_folder(tmp_path, sounds, monkeypatch, capsys, null, out):
    monkeypatch.chdir(tmp_path)
    odd = "sounds/o d.wav" if not null else "sounds/o\nd.wav"
    Path(sounds[0]).rename(odd)
    names = [odd, "./sounds/0001.wav", "nowhere.wav", sounds[2], "sounds", "sounds/0001.wav"]
    end = "\0" if null else "\r\n"
    Path("list").write_bytes(f"\ufeff{end}{end.join(names)}{end}{end}".encode() if not null else
                             end.join(names).encode())
    words = ["--list", "list", *(["--null"] if null else []), *(["--out", "out", "--format", "jsonl"] if out else [])]
    code, found, err = tagged(capsys, *words) if not out else (call(*words), None, capsys.readouterr().err)
    if out:
        found = [json.loads(line)["path"] for line in Path("out/part-00000.jsonl").read_text().splitlines()]
    assert code == 1 and list(found) == [odd, "sounds/0001.wav", sounds[2], *(["sounds/0001.wav"] if out else [])]
    assert "nowhere.wav" in err and "not found" in err and "not a regular file" in err


def test_a_list_comes_from_a_pipe(sounds):
    words = [sys.executable, archive_case.__file__, "--list", "-", "--format", "jsonl"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(f"{sounds[0]}\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["path"] == sounds[0]       # before the list is complete
    out, _ = process.communicate(f"{sounds[1]}\n", timeout=30)
    assert json.loads(out)["path"] == sounds[1] and process.returncode == 0


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"])
def test_an_empty_list_is_refused(tmp_path, content):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(TaggingError, match="list contains no name"):
        call("--list", tmp_path / "list")
    with pytest.raises(TaggingError, match="there is no such file"):
        call("--list", tmp_path / "nothing")


def test_saved_names_are_those_of_the_stream():
    names = ["a", "ü", "line\nbreak", os.fsdecode(b"\xff"), "a"]
    saved = SavedNames(names)
    assert list(saved) == names == list(saved) and saved.total == 5
    assert saved.digest != SavedNames(names[:4]).digest


def write_archive(path, sounds):
    others = {"sub/.hidden.wav": b"x", "__MACOSX/sub/0.wav": b"x", "cover.jpg": b"x", "tune.mid": b"x"}
    members = {f"sub/{Path(name).name}": Path(name).read_bytes() for name in sounds} | others
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:" + {"tar": "", "gz": "gz", "tgz": "gz", "xz": "xz"}[path.suffix[1:]]) as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.xz"])
def test_an_archive_is_read_as_a_folder(tmp_path, sounds, expected, capsys, suffix):
    path = write_archive(tmp_path / f"sounds.{suffix}", sounds)
    kind = suffix if suffix == "zip" else "tar"
    code, found, err = tagged(capsys, path, "--workers", "2")
    assert code == 0 and list(found) == [f"{kind}://sub/{Path(name).name}::{path}" for name in sounds]
    assert list(found.values()) == list(expected.values())
    assert "Not read, hidden or left by the system (2)" in err and "of unsupported formats (1)" in err
    name = list(found)[1]       # each name can be given again
    assert tagged(capsys, name)[1] == {name: found[name]}
    assert not list(Path("/tmp").glob("tagging-*/sound"))


def test_damaged_members_and_archives_are_named(tmp_path, sounds, capsys):
    path = write_archive(tmp_path / "a.zip", sounds)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("sub/0001.wav").header_offset
    content[place + 60:place + 90] = b"x" * 30
    path.write_bytes(content)
    code, found, err = tagged(capsys, path)
    assert code == 1 and len(found) == 3 and "sub/0001.wav" in err and "cannot be read (" in err
    path.write_bytes(content[:200])
    with pytest.raises(TaggingError, match=r"a\.zip cannot be read as a zip archive"):
        call(path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(TaggingError, match=r"empty\.zip holds no sound file"):
        call(tmp_path / "empty.zip")


def test_a_member_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "LARGEST", 2**24)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.wav", bytes(2**26))
    code, _, err = tagged(capsys, tmp_path / "a.zip")
    assert code == 1 and "bomb.wav" in err and "larger than" in err


@pytest.fixture
def server(tmp_path, sounds):
    """Serve files; some of them fail, always or only at first. Yields the URL and the requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            name = self.path.strip("/")
            requests.append(name)
            content = Path(sounds[0]).read_bytes()
            first = requests.count(name) <= 2
            status = {"missing.wav": 404, "secret.wav": 403, "broken.wav": 503}.get(name, 200)
            if name == "flaky.wav" and first:
                status = 503
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if status == 200 else 0))
            self.end_headers()
            if status == 200:
                cut = name == "cut.wav" or (name == "cutfirst.wav" and first)
                self.wfile.write(content[:len(content) // 2] if cut else content)
                self.close_connection = cut

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


def test_a_web_server_with_faults(server, sounds, expected, monkeypatch, capsys):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(fetch, "DELAYS", (0.01, 0.02, 0.03))
    url, requests = server
    names = ["good.wav", "missing.wav", "secret.wav", "broken.wav", "flaky.wav", "cut.wav", "cutfirst.wav"]
    code, found, err = tagged(capsys, *(f"{url}/{name}" for name in names), "--workers", "0")
    assert code == 1 and list(found) == [f"{url}/{name}" for name in ("good.wav", "flaky.wav", "cutfirst.wav")]
    assert all(tags == expected[sounds[0]] for tags in found.values())
    lines = {line.strip().partition(": ")[0].rpartition("/")[2]: line for line in err.splitlines() if url in line}
    assert set(lines) == {"missing.wav", "secret.wav", "broken.wav", "cut.wav"}
    assert "cannot be read (not found)" in lines["missing.wav"] and "403" in lines["secret.wav"]
    assert all("after 4 attempts" in lines[name] for name in ("broken.wav", "cut.wav"))
    assert requests.count("missing.wav") == 1 and requests.count("broken.wav") == 4


def test_a_server_that_does_not_answer_is_a_failed_file(monkeypatch, capsys):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(fetch, "DELAYS", (0.01,))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        code, found, err = tagged(capsys, f"http://127.0.0.1:{unused.getsockname()[1]}/a.wav")
    assert code == 1 and not found and "after 2 attempts" in err


@pytest.fixture(scope="module")
def bucket():
    """A local S3 server with a bucket. Yields the client."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    boto3 = pytest.importorskip("boto3")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(Bucket="birds")
        yield client
        running.stop()


@pytest.mark.slow
def test_s3_folders_files_and_archives(bucket, tmp_path, sounds, expected, capsys):
    for name in sounds:
        bucket.upload_file(name, "birds", f"2019/may/{Path(name).name}")
    bucket.put_object(Bucket="birds", Key="2019/cover.jpg", Body=b"x")
    bucket.upload_file(str(write_archive(tmp_path / "a.zip", sounds[:2])), "birds", "a.zip")
    code, found, err = tagged(capsys, "s3://birds/2019", "s3://birds/a.zip", "s3://birds/2019/may/0002.wav",
                              "s3://birds/none.wav", "--workers", "2")
    keys = [f"s3://birds/2019/may/{Path(name).name}" for name in sounds]
    assert code == 1 and list(found) == [*keys, *(f"zip://sub/{Path(name).name}::s3://birds/a.zip"
                                                  for name in sounds[:2])]
    assert [found[key] for key in keys] == list(expected.values())
    assert "s3://birds/none.wav: cannot be read (not found)" in err
    out = tmp_path / "out"
    assert call("s3://birds/2019/", "--out", out, "--format", "csv", "--shard", "2/2") == 0
    assert keys[1] in (out / "part-2-of-2-00000.csv").read_text()
    with pytest.raises(TaggingError, match="s3://nowhere/x/ does not exist or is empty"):
        call("s3://nowhere/x/")


@pytest.mark.parametrize("name, absent, package", [
    ("s3://b/a.wav", "s3fs", "s3fs"), ("https://h/a.wav", "aiohttp", "aiohttp"), ("a.zip", "fsspec", "fsspec"),
    ("zip://a.wav::s3://b/c.zip", "s3fs", "s3fs")])
def test_the_missing_package_is_named(tmp_path, sounds, monkeypatch, name, absent, package):
    monkeypatch.chdir(tmp_path)
    write_archive(Path("a.zip"), sounds)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(TaggingError, match=f"{name} is read with the package {package}.*pip install {package}"):
        call(name)


def test_an_unknown_protocol_is_refused_and_in_a_list_it_is_a_failed_file(tmp_path, capsys):
    with pytest.raises(TaggingError, match="nothing reads nonsense://"):
        call("nonsense://a.wav")
    (tmp_path / "list").write_text("nonsense://a.wav\n")
    code, _, err = tagged(capsys, "--list", tmp_path / "list")
    assert code == 1 and "nonsense://a.wav: " in err


def test_the_stream_of_a_large_folder_is_not_kept(tmp_path):
    """The names come one by one, sorted as `find_sounds` sorts them."""
    for name in ("b/2.wav", "b/10.wav", "a.wav", "b.wav", "c/d/e.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = iter(NameStream([str(tmp_path)]))
    assert next(names) == str(tmp_path / "a.wav")
    assert [Path(name).relative_to(tmp_path).as_posix() for name in names] == ["b/10.wav", "b/2.wav", "b.wav",
                                                                             "c/d/e.flac"]


def test_load_is_called_once_and_after_the_names_are_checked():
    calls = []
    with pytest.raises(TaggingError, match=r"nowhere.wav does not exist"):
        tag_paths(lambda: calls.append(0) or load(), arguments("nowhere.wav"))
    assert not calls
