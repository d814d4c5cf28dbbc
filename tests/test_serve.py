"""The HTTP service, over a real socket."""
import json
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from serving import ask, serving, sound

from tagging.data.tables import read_scores

LIMITS = ["--max-megabytes", "1", "--max-seconds", "20", "--max-wait", "3"]


@pytest.fixture(scope="module")
def port(exported, tmp_path_factory):
    """A service that consists only of the files that the Dockerfile copies, started by its command."""
    docker = (ROOT / "tagging_lite" / "Dockerfile").read_text()
    folder = tmp_path_factory.mktemp("image")
    for line in re.findall(r"^COPY (.+)$", docker, re.M):
        *sources, target = line.split()
        for source in sources:
            found = exported if source == "model.onnx" else ROOT / source
            if found.is_dir():
                shutil.copytree(found, folder / target)
            else:
                shutil.copy(found, folder / source.split("/")[-1])
    command = json.loads(re.search(r"^CMD (.+)$", docker, re.M)[1])
    assert command[0] == "python"
    with serving([sys.executable, *command[1:], *LIMITS], folder) as port:
        yield port
        assert "Traceback" not in (folder / "log.txt").read_text()


def test_the_health_check_of_the_image_passes(port):
    docker = (ROOT / "tagging_lite" / "Dockerfile").read_text()
    python, *words = json.loads(re.search(r"^HEALTHCHECK CMD (.+)$", docker, re.M)[1])
    words = [word.replace(":8000", f":{port}") for word in words]
    assert python == "python" and subprocess.run([sys.executable, *words]).returncode == 0
    status, _, body = ask(port, "/health")
    assert status == 200 and json.loads(body)["sample_rate"] == 16_000 and len(json.loads(body)["classes"]) == 10


def test_twenty_requests_at_once_get_the_tags_of_their_own_sounds(trained, port, tmp_path):
    out = tmp_path / "submission.csv"
    trained.predict("first", "--out", str(out))
    expected = read_scores(out)
    clips = sorted((trained.data / "test").iterdir())[:20]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda clip: ask(port, "/tags?top=10", clip.read_bytes()), clips))
    for clip, (status, _, body) in zip(clips, answers):
        assert status == 200
        found = {tag["tag"]: tag["probability"] for tag in json.loads(body)["tags"]}
        assert found == pytest.approx(expected.loc[clip.name].to_dict(), abs=2e-6)


def test_the_options(port):
    body = sound(2.5)
    answer = json.loads(ask(port, "/tags?top=2&timeline=true", body)[2])
    assert answer["seconds"] == 2.5 and len(answer["tags"]) == 2
    assert [row["second"] for row in answer["timeline"]] == [0, 1, 2]
    assert json.loads(ask(port, "/tags?threshold=1", body)[2])["tags"] == []


@pytest.mark.parametrize("format, rate, channels", [("FLAC", 48_000, 2), ("OGG", 22_050, 1), ("MP3", 44_100, 2)])
def test_other_formats(port, format, rate, channels):
    status, _, body = ask(port, "/tags", sound(1, rate, format, channels))
    assert status == 200 and len(json.loads(body)["tags"]) == 5


@pytest.mark.parametrize("path", ["/spectrogram.png", "/tags.png", "/tags.png?top=3&threshold=0.9"])
def test_pictures(port, path):
    status, kind, body = ask(port, path, sound(1))
    assert status == 200 and kind == "image/png" and body.startswith(b"\x89PNG") and len(body) > 3000


@pytest.mark.parametrize("path", ["/tags", "/tags.png", "/spectrogram.png"])
@pytest.mark.parametrize("body, status, words", [
    (b"", 422, "0 bytes"),
    (b"hello", 422, "Format not recognised"),
    (b"RIFF\x10\x00\x00\x00WAVEfmt ", 422, "cut short"),
    (sound(1)[:-1000], 422, "cut short"),
    (sound(0), 422, "no samples"),
    (np.random.default_rng(0).bytes(2**20 + 1), 413, "at most 1 MB"),
    (sound(21, 8000, "FLAC"), 422, "21 seconds long, where at most 20"),
])
def test_hostile_uploads_get_an_error_message(port, path, body, status, words):
    found, kind, answer = ask(port, path, body)
    assert (found, kind) == (status, "application/json")
    detail = json.loads(answer)["detail"]
    assert words in detail and "/tmp" not in detail


@pytest.mark.parametrize("path, body, status", [
    ("/tags?top=0", b"x", 422), ("/tags?threshold=nan", b"x", 422), ("/tags?top=many", b"x", 422), ("/tags", None, 405),
    ("/../../etc/passwd", None, 404), ("/redoc", None, 404)])
def test_other_requests_are_rejected(port, path, body, status):
    assert ask(port, path, body)[0] == status


def test_an_interrupted_upload_does_not_affect_other_requests(port):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /tags HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"RIFF" * 100)
    assert ask(port, "/tags", sound(1))[0] == 200


def test_an_upload_without_a_length_is_cut_off_at_the_limit(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /tags HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = b"10000\r\n" + bytes(2**16) + b"\r\n"
        try:
            for _ in range(100):
                connection.sendall(block)
        except OSError:
            pass            # the service closed the connection
        assert b"413" in connection.recv(100)


def test_an_upload_that_stalls_gets_a_timeout(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /tags HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nRIFF")
        assert b"408" in connection.recv(100)


def test_a_missing_model_is_an_error(tmp_path):
    done = subprocess.run([sys.executable, "-m", "tagging_lite.serve", "no.onnx"], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: no.onnx is missing")


def test_the_build_context_contains_only_the_files_that_are_copied():
    docker, ignored = ((ROOT / "tagging_lite" / name).read_text() for name in ("Dockerfile", "Dockerfile.dockerignore"))
    copied = {source.split("/")[0] for line in re.findall(r"^COPY (.+) \S+$", docker, re.M) for source in line.split()}
    lines = [line for line in ignored.splitlines() if not line.startswith("#")]
    assert lines[0] == "*" and {line[1:] for line in lines if line.startswith("!")} == copied
