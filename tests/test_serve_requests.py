"""The HTTP service: forms and types of uploads, answers, metrics and logs, with a model that takes no time."""
import json
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from hashlib import sha256

import pytest
from conftest import ROOT
from serving import CLASSES, ask, form, request, sound, started, tiny_model

from tagging.evaluation.drift.logs import TagReader
from tagging_lite.serve import listen, main

FILE = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
FIELD = 'Content-Disposition: form-data; name="title"'
ORIGIN = "https://example.org"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def port(folder):
    command = [sys.executable, "-m", "tagging_lite.serve", str(tiny_model(folder / "tiny model.onnx")),
               "--max-megabytes", "1", "--access-log", str(folder / "access.jsonl"), "--allow-origin", ORIGIN,
               "--batch-wait", "100"]
    with started(command, folder, {"PYTHONPATH": str(ROOT)}) as (port, _):
        yield port
    assert (folder / "log.txt").read_text() == f"http://127.0.0.1:{port}  until Ctrl-C\n"


def tags_of(answer):
    return {tag["tag"]: tag["probability"] for tag in json.loads(answer[2])["tags"]}


def number(port, name):
    """A number of /metrics."""
    return float(re.search(rf"^{re.escape(name)} (\S+)$", ask(port, "/metrics")[2].decode(), re.M)[1])


@pytest.mark.parametrize("parts", [
    [(FILE, None)],
    [(FIELD, b"Dog"), (FILE, None), (FILE, b"another file")],
    [(FIELD + "\r\nContent-Type: audio/wav", None)],
    [('Content-Disposition: form-data; name="x"; filename*=UTF-8\'\'M%C3%B6we', None)],
])
@pytest.mark.parametrize("path", ["/tags", "/tags.png", "/spectrogram.png"])
def test_the_first_file_of_a_form_is_the_sound(port, path, parts):
    wave = sound(1)
    body, headers = form(*((head, wave if content is None else content) for head, content in parts))
    found = request(port, path, body, headers)
    assert found[0] == 200
    if path == "/tags":
        assert tags_of(found) == tags_of(ask(port, path, wave))


def test_a_boundary_in_pieces_is_found(port):
    start, part = sound(1), b"\r\n--limi" * 999
    wave = start[:5000] + part + start[5000 + len(part):]
    body, headers = form((FILE, wave))
    assert tags_of(ask(port, "/tags", body, headers)) == tags_of(ask(port, "/tags", wave))


@pytest.mark.parametrize("body, headers, status, words", [
    (*form((FILE, b"")), 422, "0 bytes"),
    (*form((FIELD, b"Dog")), 422, "no file"),
    (*form((FILE, b"hello")), 422, "Format not recognised"),
    (*form((FILE, sound(1)), end=False), 400, "last boundary is missing"),
    (b"hello", form()[1], 400, "damaged"),
    (b"hello", {"Content-Type": "multipart/form-data"}, 400, "no boundary"),
    (b"hello", {"Content-Type": "multipart/form-data; boundary=" + "x" * 300}, 400, "damaged"),
    (*form((FILE, bytes(2**20))), 413, "at most 1 MB"),
    (*form((FIELD, bytes(2**20)), (FILE, b"x")), 413, "at most 1 MB"),
])
def test_a_form_without_a_sound_is_explained(port, body, headers, status, words):
    found = request(port, "/tags", body, headers)
    assert found[0] == status and words in json.loads(found[2])["detail"]


@pytest.mark.parametrize("kind", ["", "audio/wav", "AUDIO/X-WAV; rate=1", "video/webm", "application/octet-stream",
                                  "application/x-www-form-urlencoded"])
def test_a_raw_sound_of_these_types_is_accepted(port, kind):
    assert ask(port, "/tags", sound(1), {"Content-Type": kind})[0] == 200


@pytest.mark.parametrize("kind, body", [
    ("application/json", b"{}"), ("text/plain", b"x"), ("image/png", sound(1)), ("multipart/mixed", sound(1)),
    ("application/x-www-form-urlencoded", b"file=@dog.wav"),
    ("application/x-www-form-urlencoded", b'{"url": "https://example.org/dog.wav"}')])
def test_other_types_get_the_right_command(port, kind, body):
    status, _, answer = ask(port, "/tags?top=3", body, {"Content-Type": kind})
    assert status == 415
    assert f"curl --data-binary @dog.wav http://127.0.0.1:{port}/tags " in json.loads(answer)["detail"]
    assert f"curl -F file=@dog.wav http://127.0.0.1:{port}/tags" in json.loads(answer)["detail"]


def test_a_compressed_body_is_refused(port):
    assert ask(port, "/tags", b"x", {"Content-Type": "audio/wav", "Content-Encoding": "gzip"})[0] == 415


def test_a_sound_that_curl_damaged_gets_the_right_command(port):
    status, _, answer = ask(port, "/tags", sound(1).replace(b"\n", b"").replace(b"\x00", b""))
    assert status == 422 and "`curl -d` damages files" in json.loads(answer)["detail"]


@pytest.mark.parametrize("path, words", [
    ("/tags?tpo=3", "no option 'tpo'. Did you mean 'top'?"), ("/spectrogram.png?top=3", "It has no options."),
    ("/tags.png?timeline=true", "Its options are top, threshold."), ("/tags?top=0", "The option top is '0'."),
    ("/tags?threshold=half", "threshold 'half' must be"), ("/tags?threshold=auto", "no thresholds")])
def test_an_invalid_option_is_explained(port, path, words):
    status, _, answer = ask(port, path, sound(1))
    assert status == 422 and words in json.loads(answer)["detail"]


@pytest.mark.parametrize("path, body, status", [
    ("/tags", sound(1), 200), ("/tags.png", sound(1), 200), ("/spectrogram.png", sound(1), 200), ("/health", None, 200),
    ("/ready", None, 200), ("/tags", b"x", 422), ("/tags", None, 405), ("/nowhere", None, 404)])
def test_each_answer_names_the_model(port, folder, path, body, status):
    digest = sha256((folder / "tiny model.onnx").read_bytes()).hexdigest()
    found, headers, answer = request(port, path, body)
    assert found == status
    assert (headers["x-model-name"], headers["x-model-sha256"]) == ("tiny%20model.onnx", digest)
    if headers["content-type"] == "application/json":
        assert json.loads(answer)["model"] == {"name": "tiny model.onnx", "sha256": digest}


def test_health_and_readiness_also_answer_head_requests(port):
    assert [request(port, path, method="HEAD")[0] for path in ("/health", "/ready")] == [200, 200]


def test_requests_that_arrive_together_share_batches(port):
    names = "tagging_batch_windows_count", "tagging_batch_windows_sum"
    before = [number(port, name) for name in names]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seconds: ask(port, "/tags", sound(seconds)), [1, 2] * 4))
    assert [answer[0] for answer in answers] == [200] * 8
    assert [json.loads(answer[2])["seconds"] for answer in answers] == [1, 2] * 4
    batches, windows = (number(port, name) - old for name, old in zip(names, before))
    assert windows == 4 * 1 + 4 * 3 and batches < 8


def test_metrics(port):
    names = ['tagging_requests_total{method="POST",path="/tags",status="200"}', "tagging_sounds_total",
             "tagging_sound_seconds_total", 'tagging_tags_total{tag="low"}', 'tagging_strongest_tags_total{tag="low"}',
             'tagging_tags_total{tag="high"}', "tagging_received_bytes_total"]
    ask(port, "/tags", sound(1))
    ask(port, "/tags", b"x")
    before = [number(port, name) for name in names]
    errors = 'tagging_errors_total{path="/tags",status="422"}'
    old = number(port, errors)
    assert ask(port, "/tags", sound(2.5))[0] == 200 and ask(port, "/tags", b"x")[0] == 422
    # The tag low has a positive logit, high a negative one, and 0.5 is reached by the third one, too.
    assert [number(port, name) - value for name, value in zip(names, before)] == [
        1, 1, 2.5, 1, 1, 0, len(sound(2.5)) + 1]
    assert number(port, errors) == old + 1
    assert number(port, 'tagging_request_seconds_bucket{le="+Inf",path="/tags"}') > 1
    assert [number(port, name) for name in ("tagging_queue", "tagging_processing", "tagging_uploads")] == [0, 0, 0]
    assert ask(port, "/x" * 99)[0] == 404 and "/x/x" not in ask(port, "/metrics")[2].decode()


def test_the_access_log_has_the_tags_for_the_drift_report(port, folder):
    log, wave, noise = folder / "access.jsonl", sound(2.375), b"x" * 41
    ask(port, "/tags?top=1", wave, {"X-Forwarded-For": "9.9.9.9"})
    ask(port, "/tags", noise)

    def logged(body):
        return [entry for entry in map(json.loads, log.read_text().splitlines()) if entry.get("bytes") == len(body)]

    deadline = time.monotonic() + 10        # a line is written after its answer
    while not (logged(wave) and logged(noise)) and time.monotonic() < deadline:
        time.sleep(0.02)
    tagged, failed = logged(wave)[-1], logged(noise)[-1]
    assert datetime.fromisoformat(tagged["time"]).tzinfo is not None
    assert {name: tagged[name] for name in ("address", "method", "path", "status", "bytes", "seconds")} == {
        "address": "127.0.0.1", "method": "POST", "path": "/tags", "status": 200, "bytes": len(wave), "seconds": 2.375}
    assert tagged["milliseconds"] > 0
    assert tagged["model"] == sha256((folder / "tiny model.onnx").read_bytes()).hexdigest()
    assert [name for name, _ in tagged["tags"]] == ["low", "Möwe", "high"] and tagged["tags"][1][1] == 0.5
    assert failed["status"] == 422 and "tags" not in failed and "Format not recognised" in failed["detail"]
    reader = TagReader()
    sounds = list(reader.read(log))
    assert any({*each.tags} == {*CLASSES} and each.model == tagged["model"] for each in sounds)


def test_pages_of_the_given_origin_may_use_the_service(port):
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "content-type"}
    status, headers, _ = request(port, "/tags", headers=asked, method="OPTIONS")
    assert status == 200 and headers["access-control-allow-origin"] == ORIGIN
    for body in (sound(1), b"x"):
        assert request(port, "/tags", body, {"Origin": ORIGIN})[1]["access-control-allow-origin"] == ORIGIN
    assert request(port, "/tags", sound(1), {"Origin": "https://other.org"})[1]["access-control-allow-origin"] is None


def test_the_schema_describes_bodies_options_and_answers(port):
    schema = json.loads(ask(port, "/openapi.json")[2])
    assert {*schema["paths"]} == {"/tags", "/tags.png", "/spectrogram.png", "/health", "/ready", "/metrics"}
    tags = schema["paths"]["/tags"]["post"]
    assert {"multipart/form-data", "application/octet-stream"} <= {*tags["requestBody"]["content"]}
    assert {option["name"] for option in tags["parameters"]} == {"top", "threshold", "timeline"}
    assert {"200", "400", "408", "413", "415", "422", "429", "503"} <= {*tags["responses"]}
    assert tags["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("Error")


def test_the_documentation_loads_nothing(port):
    status, headers, page = request(port, "/docs")
    assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
    text = page.decode()
    assert all(f" {path}</code></h2>" in text for path in ("/tags", "/spectrogram.png", "/metrics"))
    assert not re.search(r"<script|<link|<img|src=|url\(|https?://", text)
    assert 'enctype=\'multipart/form-data\'' in text


@pytest.mark.parametrize("words, message", [
    (["none.onnx"], "none.onnx is missing"), (["bad.onnx"], "bad.onnx is damaged"),
    (["tiny.onnx", "--port", "70000"], "--port must be"), (["tiny.onnx", "--max-stall", "nan"], "--max-stall must be"),
    (["tiny.onnx", "--allow-origin", "example.org/x"], "--allow-origin example.org/x is no origin"),
    (["tiny.onnx", "--proxy", "10.0.0.1,nginx"], "--proxy nginx is no address"),
    (["tiny.onnx", "--proxy", "10.0.0.1/24"], "--proxy 10.0.0.1/24 is no address"),
    (["tiny.onnx", "--access-log", "no/such/folder"], "--access-log no/such/folder cannot be written"),
    (["tiny.onnx", "--host", "256.1.1.1"], "--host 256.1.1.1")])
def test_a_wrong_start_is_one_clear_error(tmp_path, monkeypatch, capsys, words, message):
    tiny_model(tmp_path / "tiny.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["serve", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out and err.startswith(f"error: {message}") and err.count("\n") == 1, err


def test_answers_are_not_held_back():
    """Otherwise a client waits 40 ms for the rest of an answer."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_used_port_is_one_clear_error(port, folder):
    done = subprocess.run([sys.executable, "-m", "tagging_lite.serve", "tiny model.onnx", "--port", str(port)],
                          cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port} cannot be used: Address already in use.")
