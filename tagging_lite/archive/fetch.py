"""Files of any place -> files of this machine. fsspec reads https, S3 and more, and members of zip and tar archives."""
import importlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tagging_lite.errors import SoundError, TaggingError

URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
ARCHIVES = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar", ".tar.bz2": "tar", ".tar.xz": "tar"}
PACKAGES = {"s3": "s3fs", "http": "aiohttp", "https": "aiohttp", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs",
            "az": "adlfs", "sftp": "paramiko", "ssh": "paramiko"}      # besides fsspec
LARGEST = 16 * 2**30        # bytes of a copy; a small zip file can contain more than a disk holds
DELAYS = 1, 4, 15           # seconds before a failed download is tried again
REFUSED = range(400, 500)   # HTTP status codes of requests that fail again
RETRIED = 408, 425, 429     # but these do not


def is_url(name: str) -> bool:
    """Whether a name is one for fsspec, such as https://host/a.wav or zip://a.wav::b.zip, and not a local path."""
    return URL.match(name) is not None


def archive_kind(name: str) -> str:
    """Return fsspec's name for the kind of an archive, or "" if the name is not one of an archive."""
    return next((kind for suffix, kind in ARCHIVES.items() if name.lower().endswith(suffix)), "")


def check_packages(name: str) -> None:
    """Check that the packages are installed that read a URL.

    Raises:
        TaggingError: one is missing, or nothing reads such a URL.
    """
    for scheme in {match[1].lower() for part in name.split("::") if (match := URL.match(part))}:
        for package in ("fsspec", *([PACKAGES[scheme]] if scheme in PACKAGES else [])):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise TaggingError(f"{name} is read with the package {package}, which is not installed. Install it "
                                   f"with `pip install {package}`.") from error
        from fsspec.registry import known_implementations
        if scheme not in known_implementations:
            raise TaggingError(f"{name}: nothing reads {scheme}://. Use https://, s3://, zip://, tar:// or another "
                               "protocol of fsspec.")


def open_filesystem(name: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it. An archive is opened once, not for each of its members."""
    from fsspec.core import url_to_fs
    first, chained, archive = name.partition("::")
    if not chained:
        return url_to_fs(name)
    scheme, _, member = first.partition("://")
    return open_archive(scheme, archive, threading.get_ident()), member


@lru_cache(maxsize=8)
def open_archive(scheme: str, archive: str, thread: int) -> Any:
    """Open an archive for a thread: several cannot read one open archive at a time."""
    from fsspec.core import url_to_fs
    options = {"compression": "gzip"} if archive.lower().endswith(".tgz") else {}   # fsspec knows the other suffixes
    return url_to_fs(f"{scheme}://::{archive}", **{scheme: options})[0]


@contextmanager
def local_file(name: str) -> Iterator[Path]:
    """Give a file of any place as a local one. A copy is deleted after the block.

    Raises:
        SoundError: the file cannot be read.
    """
    if not is_url(name):
        if not os.path.lexists(name):
            raise SoundError("not found")
        yield Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="tagging-") as folder:
        yield download(name, Path(folder) / "sound")


def download(name: str, path: Path) -> Path:
    """Copy a file of fsspec to `path`, and try again if it fails for a reason that can pass.

    Raises:
        SoundError: the file cannot be read.
    """
    for delay in (*DELAYS, None):
        try:
            filesystem, inner = open_filesystem(name)
            filesystem.get_file(inner, str(path), callback=size_limit())
            return path
        except SoundError:
            raise
        except Exception as error:      # each file system of fsspec has its own
            if delay is None or stays(error):
                tried = "" if delay is not None else f" after {len(DELAYS) + 1} attempts"
                raise SoundError(f"cannot be read{tried} ({explain(error)})") from error
            open_archive.cache_clear()
            time.sleep(delay)
    raise AssertionError


def size_limit() -> Any:
    """Return a callback of fsspec that stops a copy that gets too large."""
    from fsspec.callbacks import Callback

    class SizeLimit(Callback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > LARGEST:
                raise SoundError(f"larger than {LARGEST / 2**30:g} GiB; copy it to this machine")

    return SizeLimit()


def stays(error: Exception) -> bool:
    """Whether a file cannot be read for a reason that stays: it is missing, forbidden, or damaged in its archive."""
    import tarfile
    import zipfile
    import zlib
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status in REFUSED and status not in RETRIED
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, LookupError,
                              ValueError, NotImplementedError, EOFError, tarfile.TarError, zipfile.BadZipFile,
                              zlib.error)) or type(error) is RuntimeError       # zipfile: a password is needed


def explain(error: Exception) -> str:
    """Return the reason in one line, without the name of the file if that is all."""
    if isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(error, PermissionError):
        return "access denied"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
