"""What an operator sees: numbers for Prometheus, and a line of JSON for each request."""
import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from tagging_lite.errors import TaggingError
from tagging_lite.tagger import ModelInfo, Tagger, TagResult

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
OTHER = "other"         # the path of requests without an answer of their own, so that nobody can add paths
disable_created_metrics()       # a second number for each counter, which Prometheus does not need
FINAL = {408, 503}      # errors of slow uploads, and of the end of the service
METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"}
SECONDS = (.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120)
WINDOWS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class ModelName:
    """The model, as each answer names it."""
    name: str       # of its file
    sha256: str     # of its file

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"x-model-name", quote(self.name).encode()), (b"x-model-sha256", self.sha256.encode())]


class Metrics:
    """The numbers at /metrics.

    Args:
        info: its classes are the tags.
        paths: the paths of the service.
    """

    def __init__(self, info: ModelInfo, model: ModelName, paths: Collection[str]):
        self.paths, self.classes = paths, info.classes
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self.counter("requests", "Answered requests.", ["path", "method", "status"])
        self.errors = self.counter("errors", "Requests with an error as their answer, by path and status.",
                                   ["path", "status"])
        self.latency = Histogram("tagging_request_seconds", "Seconds from the header of a request to the end of its "
                                 "answer.", ["path"], buckets=SECONDS, registry=self.registry)
        self.uploads = self.gauge("uploads", "Uploads in progress, with those that are processed.")
        self.waiting = self.gauge("waiting_uploads", "Uploads that wait for a place.")
        self.queue = self.gauge("queue", "Sounds that wait for their processing.")
        self.processing = self.gauge("processing", "Sounds that are processed.")
        self.connections = self.gauge("connections", "Open connections.")
        self.closed = self.counter("closed_connections", "Connections that the service closed, by reason.", ["reason"])
        self.received = self.counter("received_bytes", "Bytes of the bodies of requests.")
        self.sounds = self.counter("sounds", "Tagged sounds.")
        self.seconds = self.counter("sound_seconds", "Seconds of tagged sound.")
        self.tags = self.counter("tags", "Tagged sounds whose probability of the tag reaches its threshold: the one of "
                                 "--threshold auto, or 0.5 if the model has none.", ["tag"])
        self.strongest = self.counter("strongest_tags", "Tagged sounds by their most probable tag.", ["tag"])
        self.batches = Histogram("tagging_batch_windows", "Windows of the batches of the network.", buckets=WINDOWS,
                                 registry=self.registry)
        Gauge("tagging_model_info", "The model.", ["name", "sha256"],
              registry=self.registry).labels(model.name, model.sha256).set(1)
        self.thresholds = np.array(info.thresholds or [0.5] * len(self.classes))
        for name in self.classes:       # a rate needs the 0 from before the first sound
            self.tags.labels(name)
            self.strongest.labels(name)

    def counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"tagging_{name}", text, labels or [], registry=self.registry)

    def gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"tagging_{name}", text, registry=self.registry)

    def add_result(self, result: TagResult) -> None:
        """Count a tagged sound."""
        self.sounds.inc()
        self.seconds.inc(result.seconds)
        self.strongest.labels(self.classes[int(result.probabilities.argmax())]).inc()
        for place in np.flatnonzero(result.probabilities >= self.thresholds):
            self.tags.labels(self.classes[place]).inc()

    def add_request(self, entry: "Entry") -> None:
        """Count an answered request."""
        path = entry.path if entry.path in self.paths else OTHER
        method = entry.method if entry.method in METHODS else OTHER
        self.requests.labels(path, method, entry.status).inc()
        if entry.status >= 400:
            self.errors.labels(path, entry.status).inc()
        self.latency.labels(path).observe(entry.milliseconds / 1000)
        self.received.inc(entry.bytes)

    def text(self) -> bytes:
        """Return the numbers in the format of Prometheus."""
        return generate_latest(self.registry)


@dataclass
class Entry:
    """A line of the access log. The names of the fields are those of the JSON."""
    time: str                   # start of the request, ISO 8601 in UTC
    address: str                # of the client
    method: str
    path: str                   # without the options
    status: int = 500
    milliseconds: float = 0.0   # from the header of the request to the end of the answer
    bytes: int = 0              # of the body of the request
    model: str = ""             # SHA-256 of the file
    seconds: float | None = None                                # of sound, None if it was not tagged
    tags: list[tuple[str, float]] | None = None                 # all classes, the most probable first
    detail: str | None = None                                   # of an error

    def add_result(self, tagger: Tagger, result: TagResult) -> None:
        """Add the tags of the sound."""
        self.seconds = round(result.seconds, 3)
        self.tags = [(name, round(value, 4)) for name, value in
                     tagger.top_tags(result.probabilities, len(tagger.info.classes))]

    def text(self) -> str:
        """Return it as JSON without the fields that are None."""
        return json.dumps({name: value for name, value in vars(self).items() if value is not None})


def open_log(target: str) -> logging.Logger:
    """Open the access log.

    Args:
        target: name of a file, which is appended to, and opened again after a rotation. - is stdout.
    Raises:
        TaggingError: the file cannot be written.
    """
    try:
        handler = logging.StreamHandler(sys.stdout) if target == "-" else WatchedFileHandler(
            Path(target), encoding="utf-8")
    except OSError as error:
        raise TaggingError(f"--access-log {target} cannot be written: {error.strerror}. Choose another "
                           "file.") from error
    log = logging.Logger("access")
    log.addHandler(handler)
    return log


class Observer:
    """Wraps the service: it writes the access log, counts, and adds the model to the headers of each answer.

    It also receives the rest of an upload that is refused, because many clients read no answer before they have sent
    all. It does not if the client waits for a permission to send, or was too slow.

    Args:
        linger: longest time for the rest of an upload, in seconds.
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]], metrics: Metrics, log: logging.Logger,
                 model: ModelName, linger: float):
        self.app, self.metrics, self.log, self.model, self.linger = app, metrics, log, model, linger

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start = time.perf_counter()
        address = (scope.get("client") or ("",))[0]
        entry = Entry(datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), address,
                      scope["method"], scope["path"], model=self.model.sha256)
        scope.setdefault("state", {})["entry"] = entry
        complete = False        # whether the body of the request was received

        async def receive_counted() -> Message:
            nonlocal complete
            message = await receive()
            entry.bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            return message

        async def send_with_model(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                message["headers"] = [*message.get("headers", []), *self.model.headers()]
                waits = not entry.bytes and any(name == b"expect" for name, _ in scope["headers"])
                if not (complete or waits or entry.status in FINAL):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self.linger):
                            while not complete:
                                await receive_counted()
            await send(message)

        try:
            await self.app(scope, receive_counted, send_with_model)
        finally:
            entry.milliseconds = round((time.perf_counter() - start) * 1000, 1)
            self.metrics.add_request(entry)
            self.log.info(entry.text())
