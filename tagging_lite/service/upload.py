"""Receive an upload: the sound as the body of the request, or as a file of a form."""
import asyncio
import logging
from collections.abc import AsyncIterator
from typing import BinaryIO

from fastapi import HTTPException, Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from tagging_lite.service.limits import PRESSED, TICK, UPLOAD_GRACE, Limits, Slots

FORM, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
SOUNDS = ("audio/", "video/", "application/octet-stream", "application/ogg", "binary/octet-stream")
logging.getLogger("python_multipart").setLevel(logging.ERROR)      # damaged forms are answered
LONGEST_FORM = 10_000       # characters of a form without files that are looked at


class Receiver:
    """Receives uploads within the limits.

    Args:
        slots: tell whether other uploads wait for the place of this one.
    """

    def __init__(self, limits: Limits, slots: Slots):
        self.limits, self.slots = limits, slots

    async def receive(self, request: Request, address: str, file: BinaryIO) -> None:
        """Write the sound of a request to a file.

        Raises:
            HTTPException: 400 the upload was interrupted, or is not a valid form; 408 it was too slow; 413 it is too
                large; 415 its type is not that of a sound; 422 the form has no file; 503 the service is shutting down.
        """
        kind = media_type(request)
        check_type(request, kind)
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.limits.megabytes * 2**20:    # before `curl` sends it
            raise self.too_large()
        form = FormFile(request, file) if kind == FORM else None
        size = 0
        async for block in self.blocks(request, address):
            size += len(block)
            if size > self.limits.megabytes * 2**20:
                raise self.too_large()
            try:
                if form:
                    form.write(block)
                else:
                    file.write(block)
            except OSError as error:
                raise HTTPException(503, f"The service cannot store the upload: {error.strerror}. Try again later.",
                                    {"Retry-After": "60"}) from error
        if form:
            form.finish()
        elif kind == URLENCODED and size <= LONGEST_FORM:
            file.seek(0)
            if is_form(file.read()):
                raise wrong_type(request, "a form without a file")

    async def blocks(self, request: Request, address: str) -> AsyncIterator[bytes]:
        """Yield the body of a request as it comes.

        Raises:
            HTTPException: as `receive`.
        """
        clock = asyncio.get_running_loop().time
        start = window = clock()
        received = 0            # bytes in the window
        while True:
            message = None
            try:
                async with asyncio.timeout(TICK):
                    message = await request.receive()
            except TimeoutError:
                pass
            if message:
                if message["type"] == "http.disconnect":
                    raise HTTPException(400, "The upload was interrupted. Send it again.")
                block = message.get("body", b"")
                received += len(block)
                yield block
                if not message.get("more_body", False):
                    return
            self.slots.stop.check(UPLOAD_GRACE)
            now, limits = clock(), self.limits
            if now - start > limits.wait_seconds:
                raise self.too_slow(f"took more than {limits.wait_seconds:g} seconds")
            seconds = min(limits.stall_seconds, PRESSED) if self.slots.pressed(address) else limits.stall_seconds
            if now - window > seconds:
                if received < limits.rate * (now - window):
                    raise self.too_slow(f"was slower than {limits.rate:g} bytes per second")
                window, received = now, 0

    def too_large(self) -> HTTPException:
        return HTTPException(413, f"The upload is too large: at most {self.limits.megabytes:g} MB are allowed. Send a "
                                  "shorter or a compressed sound.")

    @staticmethod
    def too_slow(reason: str) -> HTTPException:
        return HTTPException(408, f"The upload {reason}. Send a smaller file, or use a faster connection.",
                             {"Connection": "close"})


class FormFile:
    """Writes the first file of a form, and ignores all other parts.

    A part is a file if it has a file name, or if it has the type of a sound.

    Raises:
        HTTPException: 400, the form is damaged.
    """

    def __init__(self, request: Request, file: BinaryIO):
        self.request, self.file = request, file
        self.found, self.writing, self.complete = False, False, False
        self.size = 0
        self.headers: dict[bytes, bytes] = {}
        self.name, self.value = b"", b""
        boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"")
        if not boundary:
            raise self.damaged("its Content-Type has no boundary")
        try:
            self.parser = MultipartParser(boundary, {
                "on_header_field": self.on_name, "on_header_value": self.on_value, "on_header_end": self.on_header,
                "on_headers_finished": self.on_headers, "on_part_data": self.on_data, "on_part_end": self.on_part_end,
                "on_end": self.on_end})
        except FormParserError as error:
            raise self.damaged(str(error)) from error

    def write(self, block: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self.parser.write(block)
        except FormParserError as error:
            raise self.damaged(str(error)) from error

    def finish(self) -> None:
        """Check the form at the end of the body.

        Raises:
            HTTPException: 400 its last boundary is missing, 422 it has no file, or an empty one.
        """
        if not self.complete:
            raise self.damaged("its last boundary is missing")
        if not self.found:
            raise HTTPException(422, f"The form has no file. Send the sound as a file: {form_command(self.request)}")
        if not self.size:
            raise HTTPException(422, "The file of the form has 0 bytes. Choose a sound file.")

    def damaged(self, reason: str) -> HTTPException:
        return HTTPException(400, f"The form is damaged: {reason}. Let your program build it, for example with "
                                  f"{form_command(self.request)}", {"Connection": "close"})

    def on_name(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def on_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header(self) -> None:
        self.headers[self.name.lower()] = self.value
        self.name, self.value = b"", b""

    def on_headers(self) -> None:
        disposition = self.headers.get(b"content-disposition", b"").lower()
        _, options = parse_options_header(disposition)
        kind = self.headers.get(b"content-type", b"").decode("latin-1").strip().lower()
        is_file = b"filename" in options or b"filename*=" in disposition or kind.startswith(SOUNDS)
        self.writing = is_file and not self.found
        self.found |= is_file
        self.headers = {}

    def on_data(self, data: bytes, start: int, end: int) -> None:
        if self.writing:
            self.file.write(data[start:end])
            self.size += end - start

    def on_part_end(self) -> None:
        self.writing = False

    def on_end(self) -> None:
        self.complete = True


def media_type(request: Request) -> str:
    """Return the type of the body in lower case without its parameters, "" if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_type(request: Request, kind: str) -> None:
    """
    Raises:
        HTTPException: 415, the type of the body or its encoding is not accepted.
    """
    if kind and kind not in (FORM, URLENCODED) and not kind.startswith(SOUNDS):
        raise wrong_type(request, kind)
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise HTTPException(415, f"The upload is compressed with {encoding}, which is not supported. Send the sound "
                                 f"file itself: {raw_command(request)}", {"Connection": "close"})


def wrong_type(request: Request, kind: str) -> HTTPException:
    return HTTPException(415, f"The body of the request is {kind}, but a sound is expected. Send the file itself: "
                              f"{raw_command(request)}   or as a form: {form_command(request)}")


def raw_command(request: Request) -> str:
    return f"curl --data-binary @dog.wav {request.url.replace(query='')}"


def form_command(request: Request) -> str:
    return f"curl -F file=@dog.wav {request.url.replace(query='')}"


def is_form(content: bytes) -> bool:
    """Return whether a body of the type that `curl` gives all data is indeed a form or JSON, and not a sound."""
    return content.isascii() and content.decode().isprintable() and (b"=" in content or content[:1] in (b"{", b"["))
