"""Where a result comes from: command, date, commit, versions, and hashes of files."""
import hashlib
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchaudio", "fastai", "timm", "numpy", "soundfile")      # a new version can change results


def provenance(*files: Path) -> dict:
    """Return command, date, commit and versions of this process, and the hashes of `files`."""
    status = git("status", "--porcelain")
    return {"command": shlex.join(["python", *sys.argv]),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"), "commit": git("rev-parse", "HEAD"),
            "clean": None if status is None else not status,
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
            "versions": {"python": platform.python_version(), "cudnn": torch.backends.cudnn.version(),
                         **{name: version(name) for name in PACKAGES}}}


def git(*words: str) -> str | None:
    """Return the output of a git command in this repository, or None if it fails."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def show_date(date: str) -> str:
    """Return a recorded date as people write it: 2026-11-25T20:34:19+00:00 -> 25 Nov 2026, 20:34.

    The time is that of the machine that wrote it.
    """
    if not date:        # runs before 18b5648
        return "-"
    time = datetime.fromisoformat(date)
    return f"{time.day} {time:%b %Y, %H:%M}"
