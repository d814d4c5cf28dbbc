"""Decode many files at the same time, and give their samples in the order of the files.

Decoding is done in processes. In threads of one process it would not get faster beyond three to five cores, because a
fifth to a third of its time holds Python's global lock.
"""
import threading
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field

from tagging_lite.archive.process import DecoderProcess, Decoding, Event, Source, decode_source
from tagging_lite.audio import Piece

LOOKAHEAD_SAMPLES = 48_000_000      # that wait to be tagged, 96 MB
TICK = 0.2                          # seconds
LOOKAHEAD_FILES = 16                # for each worker


@dataclass(eq=False)
class OpenFile:
    """A file that is being decoded."""
    source: Source
    events: deque[Event] = field(default_factory=deque)


class Decoders:
    """Decodes files ahead of their use, in bounded memory: `LOOKAHEAD_FILES` and `LOOKAHEAD_SAMPLES`.

    A file of any length passes through piece by piece: the first file is never held back by those after it.

    Args:
        processes: number of processes. With 0, one thread of this process decodes.
    """

    def __init__(self, sources: Iterable[Source], how: Decoding, processes: int):
        self.sources, self.how, self.processes = iter(sources), how, processes
        self.files: deque[OpenFile] = deque()
        self.samples = 0                # that wait in `files`
        self.error: BaseException | None = None
        self.stopped = False
        self.changed = threading.Condition()
        self.taking = threading.Lock()
        self.slots = threading.Semaphore(LOOKAHEAD_FILES * max(1, processes))
        self.threads = [threading.Thread(target=self.work, name="decoder", daemon=True)
                        for _ in range(max(1, processes))]
        self.running = len(self.threads)

    def events(self) -> Generator[tuple[Source, Event] | None, None, None]:
        """Yield the events of all files, file by file, in the order of the sources. None if there is none for a while.

        At the end, `error` is an error of the sources, if there was one.
        """
        for thread in self.threads:
            thread.start()
        try:
            while self.wait():
                yield self.next_event()
        finally:
            self.close()

    def wait(self) -> bool:
        """Wait for an event for a short time. Return False if none can come."""
        with self.changed:
            self.changed.wait_for(lambda: (self.files and self.files[0].events) or not self.running, TICK)
            return bool(self.running or (self.files and self.files[0].events))

    def next_event(self) -> tuple[Source, Event] | None:
        """Take the next event, if there is one."""
        with self.changed:
            if not (self.files and self.files[0].events):
                return None
            file = self.files[0]
            event = file.events.popleft()
            if isinstance(event, Piece):
                self.samples -= len(event.wave)
            else:
                self.files.popleft()
                self.slots.release()
            self.changed.notify_all()
            return file.source, event

    def close(self) -> None:
        """Stop the threads and their processes."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        for _ in self.threads:
            self.slots.release()

    def work(self) -> None:
        """Decode file after file. A thread runs it."""
        process = DecoderProcess(self.how) if self.processes else None
        try:
            while file := self.take():
                events = process.decode(file.source.name) if process else decode_source(file.source.name, self.how)
                for event in events:
                    if not self.put(file, event):
                        return
        except BaseException as error:
            self.error = error
        finally:
            self.slots.release()        # for the other threads, which then see the end or the error too
            if process:
                process.stop()
            with self.changed:
                self.running -= 1
                self.changed.notify_all()

    def take(self) -> OpenFile | None:
        """Wait for room, and take the next source. None if there is no more to do."""
        self.slots.acquire()
        with self.taking:           # a source may have to wait for a pipe
            if self.stopped or self.error:
                return None
            source = next(self.sources, None)
            if source is None:
                return None
            with self.changed:
                self.files.append(file := OpenFile(source))
                self.changed.notify_all()
                return file

    def put(self, file: OpenFile, event: Event) -> bool:
        """Add an event to a file when there is room. Return whether to go on."""
        with self.changed:
            # The first file may not wait for those after it, which wait for the first.
            self.changed.wait_for(lambda: self.stopped or self.samples < LOOKAHEAD_SAMPLES
                                  or (file is self.files[0] and not file.events))
            file.events.append(event)
            self.samples += len(event.wave) if isinstance(event, Piece) else 0
            self.changed.notify_all()
            return not self.stopped
