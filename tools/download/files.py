"""Download files over HTTP: several at a time, resumed after any interruption, checked by size and MD5."""
import asyncio
import glob
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tagging.errors import TaggingError
from tools.download.progress import ByteProgress, say, sized
from tools.download.retries import (
    NETWORK_ERRORS,
    RESUME,
    Server,
    TransientError,
    check_status,
    finish,
    http_client,
    network_fault,
    retry,
    run,
)
from tools.download.unpack import set_aside

CHUNK = 1 << 20         # bytes that are hashed at a time
WEB_PAGE = re.compile(rb"\s*<(!doctype|!--|html|head|body|script|meta|\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server."""
    name: str
    url: str
    size: int       # bytes
    md5: str        # hexadecimal

    def partial(self, work: Path) -> Path:
        """Return the path of the partial file. With the MD5 in its name, it never continues another version."""
        return work / f"{self.name}.{self.md5}.partial"

    def present(self, folder: Path, work: Path) -> int:
        """Return how many bytes are on disk, complete in `folder` or partial in `work`."""
        paths = (folder / self.name, self.partial(work))
        return next((min(path.stat().st_size, self.size) for path in paths if path.exists()), 0)


def download_files(files: Sequence[RemoteFile], folder: Path, work: Path, server: Server) -> None:
    """Download `files` into `folder`. Complete files are checked and kept, partial ones resumed.

    Args:
        work: folder for partial files, on the same disk as `folder`.
    Raises:
        TaggingError: a file cannot be downloaded, or has another size or checksum than expected.
        Stopped: a signal arrived.
    """
    async def fetch_all() -> None:
        gate = asyncio.Semaphore(server.connections)
        async with http_client() as client:
            await finish([fetch(file, client, gate) for file in files])

    async def fetch(file: RemoteFile, client: httpx.AsyncClient, gate: asyncio.Semaphore) -> None:
        async with gate:
            await Download(file, folder, work, client, server.attempts, progress).run()

    total = sum(file.size for file in files)
    with ByteProgress("downloading", total, sum(file.present(folder, work) for file in files)) as progress:
        run(fetch_all())


class Download:
    """One file on its way to the disk."""

    def __init__(self, file: RemoteFile, folder: Path, work: Path, client: httpx.AsyncClient, attempts: int,
                 progress: ByteProgress):
        self.file, self.client, self.attempts, self.progress = file, client, attempts, progress
        self.work, self.target, self.partial = work, folder / file.name, file.partial(work)
        self.done = self.best = 0           # bytes in the partial file, now and at most
        self.digest = new_digest()          # of these bytes

    async def run(self) -> None:
        """
        Raises:
            TaggingError: the file cannot be downloaded or written, or two downloads have another checksum.
        """
        file = self.file
        try:
            if self.target.exists():
                say(f"{file.name} is there. Checking its MD5.")
                found = await file_digest(self.target)
                if found.hexdigest() == file.md5:
                    return
                self.progress.update(-min(self.target.stat().st_size, file.size))
                kept = set_aside(self.target, self.work)
                say(f"{file.name} has another checksum than in the record. It is downloaded again; the old one is now "
                    f"{kept}.")
            for other in self.work.glob(f"{glob.escape(file.name)}.*.partial"):
                if other != self.partial:
                    say(f"{file.name} has changed on the server since its download began. It starts again.")
                    other.unlink()
            if self.partial.exists():
                self.digest, self.done = await file_digest(self.partial), self.partial.stat().st_size
                say(f"{file.name}: resuming at {sized(self.done)} of {sized(file.size)}")
            await self.receive_checked()
            with open(self.partial, "rb+") as written:
                os.fsync(written.fileno())
            self.partial.replace(self.target)
        except BrokenPipeError:     # of stdout
            raise
        except OSError as error:
            raise TaggingError(f"{self.partial} could not be written: {error.strerror or error}. Check the free space "
                               f"and the permissions of the folder. {RESUME}") from error

    async def receive_checked(self) -> None:
        """Receive the whole file, and once more if its checksum is wrong."""
        file = self.file
        for last in (False, True):
            self.best = self.done
            self.partial.touch()
            while self.done < file.size:
                await retry(self.receive, file.name, self.attempts)
            size, md5 = self.done, self.digest.hexdigest()
            if (size, md5) == (file.size, file.md5):
                return
            self.restart()
            if not last:
                say(f"{file.name}: the MD5 is {md5}, and the record says {file.md5}. It is downloaded once more.")
        more = "more than " if size > file.size else ""
        raise TaggingError(f"{file.name}: two downloads have wrong content. The last one has {more}{file.size} bytes "
                           f"and the MD5 {md5}. The record says {file.size} bytes and {file.md5}. Perhaps the file is "
                           "new on the server, or a proxy changes it. Run the same command again later, or choose a "
                           "mirror with --record-url.")

    async def receive(self) -> None:
        """Receive until the file is complete or the connection ends.

        Raises:
            TransientError: nothing new was received.
            TaggingError: the server refuses the file.
        """
        file, reason = self.file, "the answer of the server ended early"
        headers = {"Range": f"bytes={self.done}-"} if self.done else {}
        try:
            async with self.client.stream("GET", file.url, headers=headers) as response:
                self.check_answer(response)
                with open(self.partial, "ab") as out:
                    async for data in response.aiter_raw():
                        if self.done == 0 and WEB_PAGE.match(data):
                            raise TransientError("the server sent a web page instead of the file, perhaps the login "
                                                 "page of your network")
                        out.write(data)
                        self.digest.update(data)
                        self.done += len(data)
                        self.progress.update(len(data))
                        if self.done > file.size:
                            break
        except NETWORK_ERRORS as error:
            reason = network_fault(error, file.name)
        if self.done >= file.size:
            return
        if self.done <= self.best:
            raise TransientError(f"{reason} after {sized(self.done)} of {sized(file.size)}")
        self.best = self.done
        say(f"{file.name}: {reason} after {sized(self.done)} of {sized(file.size)}. Resuming.")

    def check_answer(self, response: httpx.Response) -> None:
        """Go back to the start of the file if the answer does not continue it.

        Raises:
            TransientError: the next request may succeed.
            TaggingError: the server refuses the file.
        """
        if response.status_code == 206:
            sent = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if sent and int(sent[1]) == self.done and sent[2] in (str(self.file.size), "*"):
                return
            self.restart()
            raise TransientError("the server sent another part of the file, or the part of another version")
        if response.status_code == 416:
            self.restart()
            raise TransientError("the server has no such part of the file")
        check_status(response, self.file.name)
        if self.done:
            say(f"{self.file.name}: the server cannot continue a file. It starts again.")
            self.restart()

    def restart(self) -> None:
        """Go back to the start of the file."""
        self.progress.update(-self.done)
        self.done, self.digest = 0, new_digest()
        self.partial.unlink(missing_ok=True)


async def file_digest(path: Path) -> "hashlib._Hash":
    """Return the MD5 of a file."""
    digest = new_digest()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            await asyncio.sleep(0)      # the other downloads go on
    return digest


def new_digest() -> "hashlib._Hash":
    """Return an empty MD5. It finds damage and protects from no attack, so a FIPS system may allow it."""
    return hashlib.md5(usedforsecurity=False)
