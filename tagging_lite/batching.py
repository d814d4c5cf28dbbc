"""Compute the windows of several callers in shared batches."""
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False)
class Request:
    """The windows of one caller."""
    windows: np.ndarray                                     # (windows, samples) int16
    deadline: float                                         # when it must start, in the seconds of time.monotonic
    taken: int = 0                                          # number of windows that are computed or being computed
    results: dict[int, np.ndarray] = field(default_factory=dict)    # first window -> (windows, models, classes)
    future: "Future[np.ndarray]" = field(default_factory=Future)


Part = tuple[Request, int, int]     # a request, and the first window of it in a batch, and the one after the last


class SharedBatches:
    """A function for logits, as in `Tagger`, that many threads may call at once. An own thread computes for all.

    A call blocks until its windows are computed. Callers take turns, so a long sound does not delay a short one by more
    than a batch.

    Args:
        logits: (windows, samples) int16 -> (windows, models, classes).
        size: largest number of windows of a batch.
        wait: longest time that a batch waits for the windows of other callers, in seconds.
        threads: number of batches at a time. With 2, one is put together while a GPU computes the other.
    """

    def __init__(self, logits: Callable[[np.ndarray], np.ndarray], size: int, wait: float, threads: int = 1):
        self.logits, self.size, self.wait = logits, size, wait
        self.requests: deque[Request] = deque()
        self.changed = threading.Condition()
        self.closed = False
        self.threads = [threading.Thread(target=self.run, name="batches", daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes).

        Raises:
            RuntimeError: the batches are closed.
            Exception: any error of `logits` that these windows cause.
        """
        return self.submit(windows).result()

    def submit(self, windows: np.ndarray) -> "Future[np.ndarray]":
        """Request the logits of (windows, samples) int16. Their order is kept unless a request is longer than a batch.

        Raises:
            RuntimeError: the batches are closed.
        """
        request = Request(windows, time.monotonic() + self.wait)
        with self.changed:
            if self.closed:
                raise RuntimeError("the batches are closed")
            self.requests.append(request)
            self.changed.notify_all()
        return request.future

    def close(self) -> None:
        """Compute what was requested before, and stop. Later calls raise an error."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()

    def run(self) -> None:
        """Compute batch after batch until `close`."""
        while parts := self.next_batch():
            self.compute(parts)

    def next_batch(self) -> list[Part]:
        """Wait for windows, and take the next batch. It is empty after `close`."""
        with self.changed:
            while True:
                self.changed.wait_for(lambda: self.requests or self.closed)
                if self.requests:       # they may be gone afterwards, if there are several threads
                    self.changed.wait_for(lambda: self.closed or not self.requests or self.waiting() >= self.size,
                                          self.requests[0].deadline - time.monotonic())
                if self.requests or self.closed:
                    return self.take()

    def waiting(self) -> int:
        """Return the number of windows that could be in the next batch."""
        return sum(len(request.windows) - request.taken for request in self.matching())

    def matching(self) -> list[Request]:
        """Return the requests whose windows are as long as those of the first."""
        return [request for request in self.requests
                if request.windows.shape[1:] == self.requests[0].windows.shape[1:]]

    def take(self) -> list[Part]:
        """Take windows for a batch. A request that does not fit is continued after the others."""
        parts, room = [], self.size
        for request in self.matching():
            start, stop = request.taken, min(len(request.windows), request.taken + room)
            parts.append((request, start, stop))
            request.taken, room = stop, room - (stop - start)
            self.requests.remove(request)
            if stop < len(request.windows):
                self.requests.append(request)
            if not room:
                break
        return parts

    def compute(self, parts: list[Part]) -> None:
        """Compute a batch, and answer the callers whose windows are then all computed."""
        try:
            logits = self.logits(np.concatenate([request.windows[start:stop] for request, start, stop in parts]))
        except Exception as error:
            if len(parts) > 1:      # the error of one caller must not reach the others
                for part in parts:
                    self.compute([part])
            else:
                self.fail(parts[0][0], error)
            return
        place = 0
        for request, start, stop in parts:
            self.answer(request, start, logits[place:place + stop - start])
            place += stop - start

    def answer(self, request: Request, start: int, logits: np.ndarray) -> None:
        """Keep the logits of windows from `start` on, and answer the caller if they are the last."""
        with self.changed:
            request.results[start] = logits
            complete = sum(map(len, request.results.values())) == len(request.windows)
            if complete and not request.future.done():
                request.future.set_result(np.concatenate([request.results[first] for first in sorted(request.results)]))

    def fail(self, request: Request, error: Exception) -> None:
        """Hand an error to its caller, and drop the windows that are left."""
        with self.changed:
            if request in self.requests:
                self.requests.remove(request)
            if not request.future.done():
                request.future.set_exception(error)
