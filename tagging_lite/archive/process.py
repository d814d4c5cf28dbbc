"""Decode a file, in this process or in another one.

A process confines a decoder that crashes on a file. The samples come through a pipe: a shared memory file would need
space in /dev/shm, of which containers have 64 MB.
"""
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tagging_lite.archive.fetch import local_file
from tagging_lite.audio import Piece, make_trim, read_pieces
from tagging_lite.errors import SoundError

ROOT = Path(__file__).resolve().parents[2]      # the folder that contains tagging_lite


class Source(NamedTuple):
    """A file to tag."""
    place: int      # in the list of the files of this shard
    name: str       # local path or URL


class End(NamedTuple):
    """Follows the pieces of a file."""
    notes: tuple[str, ...]
    fault: str              # the reason why the file cannot be used, or ""


Event = Piece | End


@dataclass(frozen=True)
class Decoding:
    """How sounds are decoded."""
    sample_rate: int        # Hz
    trim_db: float          # as in `ModelInfo`


def decode_source(name: str, how: Decoding) -> Iterator[Event]:
    """Yield the pieces of a file, and its end. It raises nothing: any fault is in the end."""
    notes: list[str] = []
    fault = ""
    try:
        with local_file(name) as path:
            yield from read_pieces(path, how.sample_rate, make_trim(how.trim_db), notes=notes)
    except SoundError as error:
        fault = str(error)
    except MemoryError:
        fault = "too little memory to decode it"
    except Exception as error:      # it must not end the work on a million others
        fault = f"decoding failed ({type(error).__name__}: {error})"
    yield End(tuple(notes), fault)


class DecoderProcess:
    """A process that decodes one file at a time. If it ends while it decodes a file, another one tries again once."""

    def __init__(self, how: Decoding):
        self.how = how
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe: Connection | None = None

    def start(self) -> Connection:
        """Start the process. It is no fork of this one, whose threads and GPU a fork could not use."""
        self.pipe, other = Pipe()
        code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
                "from tagging_lite.archive.process import serve_decoder; serve_decoder()")
        with other:
            self.process = subprocess.Popen([sys.executable, "-c", code, str(other.fileno()),
                                             json.dumps(asdict(self.how))], pass_fds=[other.fileno()],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return self.pipe

    def decode(self, name: str) -> Iterator[Event]:
        """Yield as `decode_source` does."""
        sent = 0                    # samples
        for last in (False, True):
            place = 0
            try:
                pipe = self.pipe or self.start()
                pipe.send(name)
                while True:
                    event = receive(pipe)
                    if isinstance(event, End):
                        yield event
                        return
                    place += len(event.wave)
                    if place > sent:        # the second attempt repeats the pieces of the first
                        sent = place
                        yield event
            except (EOFError, OSError):
                code = self.stop()
                if last:
                    yield End((), f"the decoder crashed on it ({describe_exit(code)})")

    def stop(self) -> int:
        """Stop the process, if it runs, and return its exit status."""
        if self.pipe:
            self.pipe.close()
        code = 0
        if self.process:
            try:
                code = self.process.wait(5)     # it ends when its pipe is closed
            except subprocess.TimeoutExpired:
                self.process.kill()
                code = self.process.wait()
        self.process = self.pipe = None
        return code


def describe_exit(code: int) -> str:
    """Describe the exit status of a process."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"{name}, perhaps by lack of memory" if name == "SIGKILL" else name
    return f"signal {-code}"


def receive(pipe: Connection) -> Event:
    """Receive what `serve_decoder` sends."""
    message = pipe.recv()
    if isinstance(message, End):
        return message
    samples, start, stop = message
    wave = np.empty(samples, np.int16)
    if samples:
        pipe.recv_bytes_into(wave)
    return Piece(wave, start, stop)


def serve_decoder() -> None:
    """Decode the files whose names come through a pipe until it is closed. The process of `DecoderProcess` runs it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C reaches all processes, and the parent handles it
    with suppress(OSError):
        os.nice(5)          # if the network computes on the same cores, it must not wait for the decoders
    pipe, how = Connection(int(sys.argv[1])), Decoding(**json.loads(sys.argv[2]))
    with suppress(EOFError, OSError):
        while True:
            for event in decode_source(pipe.recv(), how):
                if isinstance(event, End):
                    pipe.send(event)
                else:
                    pipe.send((len(event.wave), event.start, event.stop))
                    if len(event.wave):
                        pipe.send_bytes(np.ascontiguousarray(event.wave))
