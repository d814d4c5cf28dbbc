"""The HTTP service with hostile and slow clients, and its end, with a model that takes no time."""
import asyncio
import json
import signal
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress

import pytest
from conftest import ROOT
from fastapi import HTTPException
from serving import ask, request, sound, started, tiny_model

from tagging_lite.service.limits import Limits, Slots, Stop

UPLOAD = b"POST /tags HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
STALL = 1               # seconds
PLACES = 8              # uploads of one address

pytestmark = pytest.mark.slow


def command(model, *words):
    return [sys.executable, "-m", "tagging_lite.serve", str(tiny_model(model)), *words]


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    words = ["--max-stall", str(STALL), "--max-per-address", str(PLACES)]
    with started(command(folder / "model.onnx", *words), folder, {"PYTHONPATH": str(ROOT)}) as (port, _):
        yield port
    assert "Traceback" not in (folder / "log.txt").read_text()


@pytest.fixture
def connect(port):
    """Open connections that send some bytes, and close them at the end of the test."""
    with ExitStack() as stack:
        def call(count=1, content=b""):
            connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(count)]
            for each in connections:
                each.sendall(content)
            return connections
        yield call


def answers(connections):
    """What the service sends until it closes the connections, by the first line, "" if it sends nothing."""
    found = Counter()
    for each in connections:
        content = b""
        with suppress(ConnectionError):
            while block := each.recv(2**16):
                content += block
        found[content.split(b"\r\n")[0].decode()] += 1
    return found


def assert_served(port):
    start = time.monotonic()
    assert ask(port, "/health")[0] == 200
    assert time.monotonic() - start < 5
    assert ask(port, "/tags", sound(1))[0] == 200


@pytest.mark.parametrize("count", [199, 400])
def test_silent_connections_are_closed_and_shut_nobody_out(port, connect, count):
    silent = connect(count)
    assert_served(port)
    start = time.monotonic()
    assert answers(silent) == {"": count}
    assert time.monotonic() - start < STALL + 8


def test_an_incomplete_header_gets_a_timeout(port, connect):
    partial = connect(PLACES - 2, b"GET /health HTTP/1.1\r\nHost:")
    assert_served(port)
    assert answers(partial) == {"HTTP/1.1 408 Request Timeout": PLACES - 2}


@pytest.mark.parametrize("start", [b"GET /health HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /"])
def test_a_header_that_comes_in_drops_is_cut_off(connect, start):
    each, = connect(1, start)
    each.settimeout(0.1)
    end = time.monotonic() + STALL + 8
    content = b""
    with suppress(ConnectionError):
        while time.monotonic() < end:
            with suppress(TimeoutError):
                if not (block := each.recv(2**16)):
                    break
                content += block
            each.sendall(b"a")
    assert time.monotonic() < end and content.count(b"200 OK") == start.count(b"Host")


def test_slow_uploads_make_room_and_get_a_timeout(port, connect):
    slow = connect(4 * PLACES, UPLOAD + b"RIFF")
    end = threading.Event()

    def trickle():
        while not end.wait(0.2):
            for each in slow:
                with suppress(OSError):
                    each.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        assert_served(port)
        assert answers(slow) == {"HTTP/1.1 408 Request Timeout": 4 * PLACES}
    finally:
        end.set()
        thread.join()


def test_an_address_with_too_many_uploads_is_refused(port, connect):
    slow = connect(8 * PLACES, UPLOAD)
    assert ask(port, "/health")[0] == 200
    found = answers(slow)
    assert found["HTTP/1.1 429 Too Many Requests"] and found["HTTP/1.1 408 Request Timeout"] >= PLACES
    assert_served(port)


def test_answers_that_are_not_read_are_dropped(port, connect):
    reader = connect()[0]
    reader.settimeout(0.5)
    with suppress(OSError):
        while True:
            reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    reason = b'tagging_closed_connections_total{reason="answer not read"}'
    for _ in range(100):
        if reason in ask(port, "/metrics")[2]:
            return
        time.sleep(0.1)
    pytest.fail("The connection is open still.")


@pytest.mark.parametrize("content, status", [
    (b"GET /health HTTP/1.1\r\nA: " + b"x" * 200_000, 400), (b"\x16\x03\x01 no HTTP\r\n\r\n", 400),
    (b"POST /tags HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n", 400),
    (b"POST /tags HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
    (b"GET /health HTTP/1.0\r\n\r\n", 200)])
def test_unusual_requests_get_an_answer(port, connect, content, status):
    each = connect()[0]
    with suppress(ConnectionError):
        each.sendall(content)
        assert each.recv(100).startswith(b"HTTP/1.1 %d " % status)
    assert_served(port)


def test_the_end_of_the_service(tmp_path):
    """Answers in progress are finished, uploads that stall and idle connections are dropped, and the code is 0."""
    with started(command(tmp_path / "model.onnx", "--proxy", "127.0.0.1", "--batch-wait", "800"), tmp_path,
                 {"PYTHONPATH": str(ROOT)}) as (port, process), ExitStack() as stack:
        assert request(port, "/tags", sound(1), {"X-Forwarded-For": "9.9.9.9"})[0] == 200
        stalled, idle, kept, working = (stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
                                        for _ in range(4))
        stalled.sendall(UPLOAD + b"RIFF")
        kept.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(100).startswith(b"HTTP/1.1 200")
        wave = sound(1)
        working.sendall(b"POST /tags HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(wave) + wave)
        time.sleep(0.3)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - start < 8
        assert working.recv(100).startswith(b"HTTP/1.1 200")
        assert answers([stalled]) == {"HTTP/1.1 503 Service Unavailable": 1} and answers([idle]) == {"": 1}
    lines = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()[1:]]
    uploads = [line for line in lines if line["path"] == "/tags"]
    assert uploads[0]["address"] == "9.9.9.9" and sorted(line["status"] for line in uploads) == [200, 200, 503]


def test_places_are_given_in_turn_and_come_back():
    async def check():
        slots = Slots(Limits(uploads=3, per_address=2, wait_seconds=0.2), Stop())
        await slots.acquire("a")
        await slots.acquire("a")
        with pytest.raises(HTTPException) as error:
            await slots.acquire("a")
        assert error.value.status_code == 429 and "a" in error.value.detail
        await slots.acquire("b")
        with pytest.raises(HTTPException) as error:
            await slots.acquire("c")
        assert error.value.status_code == 503
        order = []

        async def wait(name):
            async with slots.place(name):
                order.append(name)

        first, second, third = (asyncio.create_task(wait(name)) for name in "acd")
        await asyncio.sleep(0)
        assert slots.pressed("a") and slots.pressed("b")
        first.cancel()
        slots.release("b")
        await asyncio.gather(second, third)
        assert order == ["c", "d"]
        slots.release("a")
        slots.release("a")
        assert not slots.used and not slots.queue

    asyncio.run(check())
