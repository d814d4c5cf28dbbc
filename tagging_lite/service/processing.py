"""Process uploads in threads: store them, wait for a place, call a function with them."""
import asyncio
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from fastapi import HTTPException, Request

from tagging_lite.errors import SoundError
from tagging_lite.service.limits import ANSWER_GRACE, TICK, Limits, Slots, Stop
from tagging_lite.service.observe import Metrics
from tagging_lite.service.upload import URLENCODED, Receiver, media_type, raw_command

Answer = TypeVar("Answer")
BUSY = {"Retry-After": "5"}


class Processing:
    """Receives uploads, and processes several at the same time.

    The files are closed before they are decoded, as Windows requires it.
    """

    def __init__(self, limits: Limits, stop: Stop, metrics: Metrics):
        self.limits, self.stop, self.metrics = limits, stop, metrics
        self.slots = Slots(limits, stop)
        self.receiver = Receiver(limits, self.slots)
        self.pool = ThreadPoolExecutor(limits.concurrency, "sound")
        self.folder = tempfile.TemporaryDirectory(prefix="tagging-", ignore_cleanup_errors=True)
        self.numbers = count()
        self.running: set[threading.Event] = set()      # one for each sound that a thread processes
        metrics.uploads.set_function(lambda: self.slots.used.total())
        metrics.waiting.set_function(lambda: len(self.slots.queue))
        metrics.processing.set_function(lambda: len(self.running))

    def close(self) -> None:
        """Drop what waits, and delete the uploads. Threads that process a sound are not interrupted."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.folder.cleanup()

    async def process(self, request: Request, function: Callable[[Path], Answer]) -> Answer:
        """Receive the sound of a request, and call `function` with its file in a thread.

        Raises:
            HTTPException: as `Slots.place`, `Receiver.receive` and `run`.
        """
        address = request.client.host if request.client else ""
        async with self.slots.place(address):
            path = Path(self.folder.name, f"upload-{next(self.numbers)}")
            try:
                with open(path, "w+b") as file:
                    await self.receiver.receive(request, address, file)
                return await self.run(request, path, function)
            finally:
                with suppress(OSError):     # on Windows, a thread still reads it
                    path.unlink()

    async def run(self, request: Request, path: Path, function: Callable[[Path], Answer]) -> Answer:
        """Call `function` in a thread.

        Raises:
            HTTPException: 400 the client closed the connection, 422 the sound cannot be used, 503 the service is busy
                or shutting down.
        """
        started = threading.Event()

        def call() -> Answer:
            started.set()
            self.metrics.queue.dec()
            self.running.add(started)
            try:
                return function(path)
            finally:
                self.running.discard(started)

        end = asyncio.get_running_loop().time() + self.limits.wait_seconds
        self.metrics.queue.inc()
        job = self.pool.submit(call)
        future = asyncio.wrap_future(job)
        try:
            while not await self.stop.wait(future, TICK, ANSWER_GRACE):
                if not started.is_set():
                    if asyncio.get_running_loop().time() > end:
                        raise HTTPException(503, "Too many sounds are waiting. Try again later.", BUSY)
                    if await request.is_disconnected():
                        raise HTTPException(400, "The connection was closed before the sound was processed.")
            return future.result()
        except SoundError as error:
            raise HTTPException(422, f"The sound cannot be used: {describe(error, path, request)}") from None
        finally:
            if job.cancel():            # it waits still
                self.metrics.queue.dec()
            future.cancel()


def describe(error: SoundError, path: Path, request: Request) -> str:
    """Return the reason of an error without the name of the file on this machine, and the remedy."""
    reason = f"{str(error).replace(str(path), 'the upload')}. Send another file."
    if media_type(request) == URLENCODED:       # the type that `curl -d` and `--data-binary` give alike
        reason += f" `curl -d` damages files. Use {raw_command(request)}"
    return reason
