"""Shared by the tests of downloads: a local server with the faults of real ones, and a tiny competition for it."""
import csv
import hashlib
import io
import json
import os
import random
import re
import signal
import struct
import threading
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

COUNTS = {"audio_train_curated": 6, "audio_train_noisy": 12, "audio_test": 4}
CLASSES = ("Bark", "Meow", "Purr")


def competition_files(clip_bytes=3000) -> dict[str, dict[str, bytes]]:
    """The files of each archive by their paths. The clips are random bytes, as nothing here decodes them."""
    rng = random.Random(0)
    archives = {f"FSDKaggle2019.{part}": {
        f"FSDKaggle2019.{part}/{part[6:]}{number:02}.wav": rng.randbytes(clip_bytes + rng.randrange(clip_bytes))
        for number in range(count)} for part, count in COUNTS.items()}
    meta = {"vocabulary.csv": [(number, name, f"/m/{number}") for number, name in enumerate(CLASSES)]}
    for part in COUNTS:
        fnames = [path.split("/")[1] for path in archives[f"FSDKaggle2019.{part}"]]
        rows = [(fname, CLASSES[number % 3], "Private") for number, fname in enumerate(fnames)]
        meta[f"{part.removeprefix('audio_')}_post_competition.csv"] = [("fname", "labels", "usage"), *rows]
    archives["FSDKaggle2019.meta"] = {f"FSDKaggle2019.meta/{name}": to_csv(rows) for name, rows in meta.items()}
    archives["FSDKaggle2019.doc"] = {"FSDKaggle2019.doc/README.md": b"about the data"}
    return archives


def to_csv(rows) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def zipped(files: dict[str, bytes], compression=ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with ZipFile(data, "w", compression) as archive:
        for path in sorted({path.rpartition("/")[0] for path in files} - {""}):
            archive.writestr(f"{path}/", b"")
        for path, content in files.items():
            archive.writestr(path, content)
    return data.getvalue()


def split_zip(files: dict[str, bytes], sizes: list[int], zip64=False, comment=b"") -> list[bytes]:
    """The parts of a split zip, cut after `sizes` bytes each, as `zip -s` writes them.

    Args:
        zip64: whether the directory keeps all values in its 64-bit fields, as it does for large parts.
    """
    whole = zipped(files)
    with ZipFile(io.BytesIO(whole)) as archive:
        infos = archive.infolist()
        body = b"PK\x07\x08" + whole[:archive.start_dir]
    starts = [0, *accumulate(sizes)]
    assert starts[-1] < len(body)
    directory = b""
    for info in infos:
        part, offset = locate(starts, info.header_offset + 4)
        name, extra = info.filename.encode(), b"\xfe\xca\x02\x00hi"         # another extra field stays as it is
        packed, unpacked = info.compress_size, info.file_size
        if zip64:
            extra = struct.pack("<2H3QL", 1, 28, unpacked, packed, offset, part) + extra
            packed = unpacked = offset = 0xFFFFFFFF
            part = 0xFFFF
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x031E, 45, info.flag_bits, info.compress_type, 0, 33,
                                 info.CRC, packed, unpacked, len(name), len(extra), 0, part, 0, info.external_attr,
                                 offset)
        directory += name + extra
    last, offset = locate(starts, len(body))
    count, size = len(infos), len(directory)
    end = (len(sizes), last, 0, count, size, offset)
    if zip64:
        _, here = locate(starts, len(body) + size)
        directory += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, len(sizes), last, 0, count, size, offset)
        directory += struct.pack("<4sLQL", b"PK\6\7", last, here, len(sizes) + 1)
        end = (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    stream = body + directory + struct.pack("<4s4H2LH", b"PK\5\6", *end, len(comment)) + comment
    return [stream[begin:stop] for begin, stop in zip(starts, [*starts[1:], len(stream)])]


def locate(starts: list[int], position: int) -> tuple[int, int]:
    """The part of a position in the joined parts, and the offset within it."""
    part = max(number for number, start in enumerate(starts) if start <= position)
    return part, position - starts[part]


def release(archives: dict[str, dict[str, bytes]], noisy_part=9000) -> dict[str, bytes]:
    """The files of the record: a zip for each archive, and a split one for the noisy clips."""
    files = {f"{name}.zip": zipped(content) for name, content in archives.items() if "noisy" not in name}
    name = "FSDKaggle2019.audio_train_noisy"
    total = len(zipped(archives[name]))
    parts = split_zip(archives[name], [noisy_part] * ((total - 2000) // noisy_part))
    numbers = [f"z{number:02}" for number in range(1, len(parts))] + ["zip"]
    return files | {f"{name}.{number}": part for number, part in zip(numbers, parts)}


def contents(out: Path) -> dict[str, bytes]:
    """The files of a competition folder, without those of the tool itself."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*")
            if path.is_file() and ".download" not in path.parts}


@contextmanager
def stop_at(monkeypatch, place, name: str, call: int):
    """Send SIGTERM when a function of a module is called for the `call`-th time. Yields the list of its calls."""
    real, calls = getattr(place, name), []

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        yield calls


class FakeZenodo:
    """Serves files, with faults that the tests choose."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.faults = defaultdict(list)     # name -> faults of the next requests; "... always" stays
        self.requests = []                  # (name, Range header)
        self.ranges = True
        self.pause = 0.0                    # seconds after each 1000 bytes
        self.lock, self.active, self.most = threading.Lock(), 0, 0      # requests at a time, now and at most

    def record(self) -> dict:
        return {"files": [{"key": name, "size": len(data), "checksum": f"md5:{hashlib.md5(data).hexdigest()}",
                           "links": {"self": f"{self.url}/files/{name}/content"}} for name, data in self.files.items()]}

    def asked(self, name: str) -> list[str | None]:
        return [header for asked, header in self.requests if asked == name]

    @contextmanager
    def serve(self):
        handler = type("Handler", (Handler,), {"zenodo": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None       # clients that are killed are part of the tests
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class Handler(BaseHTTPRequestHandler):
    zenodo: FakeZenodo
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        zenodo = self.zenodo
        with zenodo.lock:
            zenodo.active += 1
            zenodo.most = max(zenodo.most, zenodo.active)
        try:
            self.serve(zenodo)
        finally:
            with zenodo.lock:
                zenodo.active -= 1

    def serve(self, zenodo: FakeZenodo):
        name = "record" if self.path.endswith("/record") else self.path.split("/")[-2]
        zenodo.requests.append((name, self.headers["Range"]))
        fault = zenodo.faults[name].pop(0) if zenodo.faults[name] else ""
        if fault.endswith("always"):
            zenodo.faults[name].insert(0, fault)
        kind, _, value = fault.partition(" ")
        if kind.isdecimal():
            headers = {"Retry_After": value} if value and value != "always" else {}
            self.answer(int(kind), b"an error page", **headers)
        elif kind == "redirect":
            self.answer(302, Location=f"/moved{self.path}")
        elif kind == "html":
            self.answer(200, b"<html>Please log in</html>")
        elif name == "record":
            self.answer(200, json.dumps(zenodo.record()).encode(), Content_Type="application/json")
        elif name not in zenodo.files:
            self.answer(404)
        else:
            self.send_file(zenodo.files[name], kind)

    def send_file(self, data: bytes, fault: str):
        if fault == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        begin, status, headers = 0, 200, {}
        if self.headers["Range"] and self.zenodo.ranges:
            begin = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1])
            if fault == "416" or begin >= len(data):
                self.answer(416)
                return
            status, headers = 206, {"Content_Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
            if fault == "other-range":
                headers["Content_Range"] = f"bytes 0-{len(data) - 1}/{len(data)}"
        body = data[begin:]
        if fault == "longer":
            body += b"more"
        half = body[:max(1, len(body) // 2)]
        if fault == "truncated":
            self.answer(status, half, **headers)
        elif fault == "breaks":
            self.answer(status, half, length=len(body), **headers)
            self.close_connection = True
            self.connection.shutdown(2)
        elif fault == "silent":
            self.answer(status, length=len(body), **headers)
            threading.Event().wait(3)
        elif self.zenodo.pause:
            self.answer(status, length=len(body), **headers)
            for start in range(0, len(body), 1000):
                self.wfile.write(body[start:start + 1000])
                threading.Event().wait(self.zenodo.pause)
        else:
            self.answer(status, body, **headers)


def http_date(seconds: float) -> str:
    """A date for Retry-After, so many seconds from now."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
