"""Connections of uvicorn with deadlines, and its server with a quick end.

uvicorn limits the time between two requests only. A connection that sends no request, or reads no answer, would stay
open for ever.
"""
import asyncio
import math
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tagging_lite.service.limits import ANSWER_GRACE, PRESSED, TICK, Limits, Stop

RESERVE = 64            # file descriptors that are left for the model, the log and decoders
MOST = 4096             # connections, if there are enough file descriptors
HEADER = 64 * 2**10     # bytes of a header, at most
SIGNALS = [signal.SIGINT, signal.SIGTERM]

TIMEOUT = b'{"detail": "The header of the request was not complete in time. Send the request again."}'
SLOW_HEADER = (b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
               b"content-length: %d\r\n\r\n%b" % (len(TIMEOUT), TIMEOUT))


class Guard:
    """Closes connections without a request, and those whose answers are not read.

    Args:
        by_address: limit the connections of each address that wait for a request. A proxy has one address for all
            clients.
        closed: is called with the reason for each connection that is closed.
    """

    def __init__(self, limits: Limits, stop: Stop, by_address: bool, closed: Callable[[str], None]):
        self.limits, self.stop, self.closed = limits, stop, closed
        self.most = min(MOST, raise_file_limit() - RESERVE - limits.uploads)
        self.each = limits.per_address if by_address and limits.per_address else math.inf
        self.connections: dict[GuardedProtocol, None] = {}      # in the order in which they were opened

    def add(self, connection: "GuardedProtocol") -> None:
        """Add a connection. If there are too many, close the one that has waited longest for a request."""
        self.connections[connection] = None
        if len(self.connections) > self.most and (waiting := self.waiting()):
            self.close(waiting[0], "too many")

    def waiting(self) -> list["GuardedProtocol"]:
        """Return the connections without a request, the one that has waited longest first."""
        return sorted((each for each in self.connections if not each.busy), key=lambda each: each.since)

    def close(self, connection: "GuardedProtocol", reason: str) -> None:
        self.connections.pop(connection, None)
        self.closed(reason)
        connection.transport.abort()

    async def run(self) -> None:
        """Look after the connections until the task is cancelled."""
        while True:
            await asyncio.sleep(TICK)
            now = asyncio.get_running_loop().time()
            patience = self.limits.stall_seconds if now < self.stop.since else PRESSED
            for connection in [*self.connections]:
                if not connection.takes_answer(now, patience):
                    self.close(connection, "answer not read")
                elif not connection.busy and now - connection.since > patience:
                    connection.answer_slow_header()
                    self.closed("no request")
            self.close_excess(now - PRESSED)

    def close_excess(self, before: float) -> None:
        """Close connections of addresses with too many that have waited for a request since `before`, or longer."""
        waiting = self.waiting()
        excess = {address: count - self.each for address, count in Counter(each.address for each in waiting).items()}
        for connection in waiting:
            if excess[connection.address] > 0 and connection.since < before:
                excess[connection.address] -= 1
                self.close(connection, "too many of its address")


class GuardedProtocol(H11Protocol):
    """A connection."""

    def __init__(self, guard: Guard, **options: Any):
        super().__init__(**options)
        self.guard = guard
        self.since = self.loop.time()       # the start of the connection, or the end of its last answer
        self.unsent, self.sent_at = 0, self.since

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def busy(self) -> bool:
        """Whether it has a request whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:    # type: ignore[override]
        super().connection_made(transport)
        self.guard.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.connections.pop(self, None)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def takes_answer(self, now: float, patience: float) -> bool:
        """Return whether the client has read something of what it was sent in the last `patience` seconds."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self.unsent:
            self.unsent, self.sent_at = unsent, now
        return now - self.sent_at <= patience

    def answer_slow_header(self) -> None:
        """Close the connection. If it has sent a part of a header, tell it the reason."""
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(SLOW_HEADER)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:      # the answer was sent before, and the rest of the upload is not HTTP
            self.transport.abort()

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except h11.LocalProtocolError:      # the connection is at its end already
            self.transport.abort()


class Server(uvicorn.Server):
    """A server that tells the requests in progress when it stops."""

    def __init__(self, app: Any, limits: Limits, stop: Stop, guard: Guard, proxies: str):
        self.stop, self.guard = stop, guard
        super().__init__(uvicorn.Config(
            app, http=partial(GuardedProtocol, guard), ws="none", loop="asyncio", log_level="error",    # type: ignore[arg-type]
            access_log=False, server_header=False, proxy_headers=bool(proxies), forwarded_allow_ips=proxies or None,
            timeout_keep_alive=math.ceil(limits.stall_seconds), h11_max_incomplete_event_size=HEADER,
            timeout_graceful_shutdown=math.ceil(ANSWER_GRACE) + 1))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.watch = asyncio.create_task(self.guard.run())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.stop.begin()
        await super().shutdown(sockets)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or SIGINT. uvicorn would repeat the signal at the end, and the exit code would be 143."""
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        super().run(sockets)


def raise_file_limit() -> int:
    """Allow as many file descriptors as the system does, and return their number."""
    if sys.platform == "win32":
        return MOST
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * MOST if hard == resource.RLIM_INFINITY else min(hard, 2 * MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return 2 * MOST if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
