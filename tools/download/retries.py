"""HTTP requests that are repeated when they fail, and stopped by a signal."""
import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import tenacity

from tagging.errors import TaggingError
from tagging.utils.interrupts import defer_signals, stop_if_asked
from tools.download.progress import say

Result = TypeVar("Result")
TIMEOUT = httpx.Timeout(60, connect=30)             # seconds without any byte
LONGEST_WAIT = 600                                  # seconds; a server that asks for more ends the download
BUSY = (408, 425, 429, 500, 502, 503, 504)          # HTTP statuses after which the same request can succeed
# What httpx raises. It lets errors of Python through if a port or a host name is impossible, also as a group.
NETWORK_ERRORS = (httpx.HTTPError, httpx.InvalidURL, OverflowError, UnicodeError, ExceptionGroup)
RESUME = "Run the same command again to resume."
backoff = tenacity.wait_exponential_jitter(initial=1, max=60)       # seconds between two attempts


class TransientError(Exception):
    """A request that failed and may succeed later."""

    def __init__(self, reason: str, seconds: float | None = None):
        super().__init__(reason)
        self.seconds = seconds          # that the server asks to wait


@dataclass(frozen=True)
class Server:
    """A server, and how to use it."""
    url: str            # of the list of its files
    connections: int    # files that are downloaded at a time
    attempts: int       # failed requests for a file, in a row, before an error

    @property
    def name(self) -> str:
        """The address for messages."""
        return without_password(self.url)


def read_document(server: Server) -> Any:
    """Download the JSON document of a server.

    Raises:
        TaggingError: it cannot be downloaded, or is no JSON.
    """
    name = server.name

    async def get() -> httpx.Response:
        async with http_client() as client:
            try:
                response = await client.get(server.url, headers={"Accept": "application/json"})
            except NETWORK_ERRORS as error:
                raise TransientError(network_fault(error, name)) from error
            check_status(response, name)
            return response

    response, = run(finish([retry(get, name, server.attempts)]))
    try:
        return response.json()
    except ValueError as error:
        raise TaggingError(f"{name} is no JSON document: {error}. Check the address, and whether a login page of your "
                           "network answers for the server.") from error


def without_password(url: str) -> str:
    """Return an address without its user and password."""
    return re.sub(r"//[^/?#]*@", "//", url)


def check_status(response: httpx.Response, name: str) -> None:
    """
    Raises:
        TransientError: the server is busy, or fails for now.
        TaggingError: the server refuses the request, or asks for a long wait.
    """
    if response.is_success:
        return
    answer = f"the server answered {response.status_code} {response.reason_phrase}".rstrip()
    url = without_password(str(response.url.copy_with(query=None)))
    if response.status_code in BUSY:
        seconds = retry_after(response.headers.get("Retry-After", ""))
        if seconds is not None and seconds > LONGEST_WAIT:
            raise TaggingError(f"{name}: {answer} and asks to wait {seconds / 60:.0f} minutes. {RESUME[:-1]} then.")
        raise TransientError(answer, seconds)
    raise TaggingError(f"{name}: {answer} for {url}. Check that the address opens in a browser, or "
                       "set --record-url to that of a mirror.")


def retry_after(text: str) -> float | None:
    """Read the header Retry-After, a number of seconds or a date. Return seconds from now, or None."""
    if text.strip().isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def network_fault(error: Exception, name: str) -> str:
    """Return why a request failed, in words.

    Raises:
        TaggingError: another attempt would fail in the same way.
    """
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    text = str(error).rstrip(". ") or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        raise TaggingError(f"{name}: the certificate of the server is not trusted: {text}. If your network has its own "
                           "certificates, set SSL_CERT_FILE to a file with them.") from error
    if not isinstance(error, httpx.TransportError) or isinstance(error, httpx.UnsupportedProtocol):
        raise TaggingError(f"{name}: {text}. Check the address, and --record-url if you gave it.") from error
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {TIMEOUT.connect:.0f} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no data for {TIMEOUT.read:.0f} s"
    return f"{'no' if isinstance(error, httpx.ConnectError) else 'the'} connection ({text})"


async def retry(function: Callable[[], Awaitable[Result]], name: str, attempts: int) -> Result:
    """Call `function` until it succeeds, with growing waits or those that the server asks for.

    Raises:
        TaggingError: `attempts` calls raised `TransientError`, or one raised this error.
    """
    try:
        return await tenacity.AsyncRetrying(**policy(name, attempts, lambda error: isinstance(error, TransientError)))(
            function)
    except TransientError as error:
        raise TaggingError(f"{name}: {error}. This was attempt {attempts} of {attempts}. Check the network connection, "
                           "and HTTPS_PROXY if you need a proxy. What was received is kept: run the same command again "
                           "to resume.") from error


def policy(name: str, attempts: int, transient: Callable[[BaseException], bool]) -> dict[str, Any]:
    """Return the arguments for tenacity: when to try again, after which time, and what to print.

    Args:
        transient: whether another attempt may succeed after an error.
    """
    def error_of(state: tenacity.RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def wait(state: tenacity.RetryCallState) -> float:
        seconds = getattr(error_of(state), "seconds", None)
        return backoff(state) if seconds is None else seconds

    def announce(state: tenacity.RetryCallState) -> None:
        say(f"{name}: {error_of(state)}. Attempt {state.attempt_number + 1} of {attempts} in "
            f"{state.upcoming_sleep:.0f} s.")

    return {"retry": tenacity.retry_if_exception(transient), "stop": tenacity.stop_after_attempt(attempts),
            "wait": wait, "before_sleep": announce, "reraise": True}


def http_client() -> httpx.AsyncClient:
    """Return a client that follows redirects, and the proxy and certificate variables of the environment.

    Raises:
        TaggingError: a variable is wrong.
    """
    headers = {"User-Agent": "audio-tagging (tools.download)", "Accept-Encoding": "identity"}
    try:
        return httpx.AsyncClient(follow_redirects=True, timeout=TIMEOUT, headers=headers)
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        raise TaggingError(f"The network settings of the environment cannot be used: {error}. Check HTTPS_PROXY, "
                           "HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR.") from error


def run(job: Coroutine[Any, Any, Result]) -> Result:
    """Run a job that does its waiting in `finish`.

    Raises:
        Stopped: a signal arrived.
    """
    with defer_signals():       # in the event loop, an exception from a signal would be lost
        return asyncio.run(job)


async def finish(jobs: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Await jobs that run at the same time. The first error stops them all, and so does a signal.

    Raises:
        Stopped: a signal arrived.
    """
    tasks = [asyncio.create_task(job) for job in jobs]
    pending = set(tasks)
    try:
        while pending:
            stop_if_asked()
            done, pending = await asyncio.wait(pending, timeout=0.2, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
