"""Shared by the tests of the HTTP service: start it, and talk to it over real sockets."""
import io
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import soundfile

CLASSES = ["low", "high", "Möwe"]


@contextmanager
def serving(command, folder):
    """Start a service, wait until it answers, and yield its port."""
    with started(command, folder) as (port, _):
        yield port


@contextmanager
def started(command, folder, environment=()):
    """Start a service, wait until it answers, and yield its port and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, **dict(environment)})
    try:
        for _ in range(600):
            try:
                ask(port, "/health")
                break
            except urllib.error.URLError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                time.sleep(0.05)
        yield port, process
    finally:
        process.terminate()
        process.wait(20)


def ask(port, path, body=None, headers=()):
    """Send a request. Return status, content type and body of the answer."""
    status, found, content = request(port, path, body, headers)
    return status, found["content-type"], content


def request(port, path, body=None, headers=(), method=None):
    """Send a request. Return status, headers and body of the answer."""
    call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, headers=dict(headers), method=method)
    try:
        with urllib.request.urlopen(call, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def sound(seconds, rate=16_000, format="WAV", channels=1):
    wave = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format)
    return file.getvalue()


def form(*parts, boundary="limit", end=True):
    """Return a form, and its headers. A part is its headers and its content."""
    line = b"--" + boundary.encode()
    body = b"".join(b"%b\r\n%b\r\n\r\n%b\r\n" % (line, head.encode(), content) for head, content in parts)
    return body + (line + b"--\r\n" if end else b""), \
        {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def tiny_model(path: Path) -> Path:
    """Write an exported model that takes no time: its logits are the loudness of a window, times 1, -1 and 0."""
    window, helper = 1000, onnx.helper
    nodes = [helper.make_node("ReduceL2", ["waves", "axes"], ["loudness"]),
             helper.make_node("Unsqueeze", ["loudness", "axes"], ["column"]),
             helper.make_node("Mul", ["column", "signs"], ["logits"])]
    constants = [onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"),
                 onnx.numpy_helper.from_array(np.array([[[1, -1, 0]]], np.float32), "signs")]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(nodes, "tiny", [helper.make_tensor_value_info("waves", kind, ["batch", window])],
                              [helper.make_tensor_value_info("logits", kind, ["batch", 1, 3])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    info = {"classes": CLASSES, "sample_rate": 1000, "window": window, "overlap": 0.5, "trim_db": 0, "pooling": "mean"}
    helper.set_model_props(model, {"kind": "audio-tagging onnx 3", "model_info": json.dumps(info)})
    onnx.save(model, path)
    return path
