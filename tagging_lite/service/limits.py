"""Limits of the service: how many uploads at the same time, how slow they may be, and how it stops."""
import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException

from tagging_lite.cores import available_cores

TICK = 0.25             # seconds between two looks at the clock
PRESSED = 1.0           # seconds that replace `stall_seconds` while other uploads wait for a place
QUEUE = 4               # uploads that may wait for a place, as a multiple of the places
UPLOAD_GRACE = 2.0      # seconds that uploads have when the service stops
ANSWER_GRACE = 5.0      # seconds that sounds in progress have when the service stops


@dataclass(frozen=True)
class Limits:
    """Limits of connections and requests."""
    megabytes: float = 20           # size of an upload
    sound_seconds: float = 300      # length of the sound in it
    wait_seconds: float = 60        # time of the upload, and time until its processing starts
    stall_seconds: float = 10       # time for a header, below `rate`, or with an unread answer
    rate: float = 1000              # slowest upload, bytes per second
    uploads: int = 256              # uploads at the same time, processing included
    per_address: int = 64           # those of one address, 0 for any number
    concurrency: int = 4 * available_cores()    # sounds that are decoded or wait for the network at the same time
    batch_windows: int = 16         # largest batch of the network
    batch_wait: float = 0.002       # seconds that a batch waits for windows of other requests


class Stop:
    """The end of the service: requests in progress get some seconds, and new ones an error."""

    def __init__(self) -> None:
        self.since = math.inf

    def begin(self) -> None:
        """Stop the service. It must be called in its event loop."""
        self.since = min(self.since, asyncio.get_running_loop().time())

    def check(self, grace: float) -> None:
        """
        Raises:
            HTTPException: 503, more than `grace` seconds ago the service began to stop.
        """
        if asyncio.get_running_loop().time() - self.since > grace:
            raise HTTPException(503, "The service is shutting down. Send the sound again later, or to another "
                                "instance.", {"Retry-After": "10"})

    async def wait(self, future: "asyncio.Future[Any]", seconds: float, grace: float) -> bool:
        """Wait until a future is done, and return whether it is done within `seconds`.

        Raises:
            HTTPException: as `check`.
        """
        end = asyncio.get_running_loop().time() + seconds
        while not future.done():
            self.check(grace)
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.wait({future}, timeout=min(left, TICK))
        return True


class Slots:
    """Places for uploads: a number for all, and a number for each address. Those who wait get them in turn."""

    def __init__(self, limits: Limits, stop: Stop):
        self.limits, self.stop = limits, stop
        self.total, self.each = limits.uploads, limits.per_address or math.inf
        self.used: Counter[str] = Counter()         # by address
        self.queue: deque[tuple[str, asyncio.Future[Any]]] = deque()

    def free(self, address: str) -> bool:
        return self.used.total() < self.total and self.used[address] < self.each

    def pressed(self, address: str) -> bool:
        """Return whether an upload of this address takes the place of another that waits."""
        full = self.used.total() >= self.total
        return any(full or waiting == address for waiting, _ in self.queue)

    @asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[None]:
        """Hold a place for an upload.

        Raises:
            HTTPException: 429 the address has too many uploads, 503 there are too many of all.
        """
        await self.acquire(address)
        try:
            yield
        finally:
            self.release(address)

    async def acquire(self, address: str) -> None:
        if self.free(address):
            self.used[address] += 1
            return
        same = sum(waiting == address for waiting, _ in self.queue)
        if len(self.queue) >= QUEUE * self.total or same >= QUEUE * self.each:
            raise self.refusal(address)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queue.append((address, future))
        try:
            if not await self.stop.wait(future, self.limits.wait_seconds, UPLOAD_GRACE):
                raise self.refusal(address)
        except BaseException:
            if future.done():       # the place came at the same time as the cancellation
                self.release(address)
            else:
                self.queue.remove((address, future))
            raise

    def release(self, address: str) -> None:
        """Give a place back, and hand out free ones."""
        self.used[address] -= 1
        if not self.used[address]:
            del self.used[address]
        for entry in [*self.queue]:
            if self.free(entry[0]):
                self.used[entry[0]] += 1
                entry[1].set_result(None)
                self.queue.remove(entry)

    def refusal(self, address: str) -> HTTPException:
        if self.used[address] >= self.each:
            return HTTPException(429, f"Too many uploads from {address}: at most {self.each} are accepted at the same "
                                      "time. Wait for answers before you send more.", {"Retry-After": "5"})
        return HTTPException(503, "Too many uploads are in progress. Try again later.", {"Retry-After": "5"})
