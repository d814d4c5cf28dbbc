"""What all trackers have in common: their interface, and a record of what was sent."""
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tagging.errors import TaggingError
from tagging.utils.files import read_json, write_json
from tagging.utils.locks import file_lock
from tools.track.snapshot import FoldCurves, Snapshot

PROJECT = "audio-tagging"       # that holds the runs in a tracker


class Tracker(Protocol):
    """Receives snapshots of the stages of one run.

    Args:
        out: folder of the tracker's files of this run.
        sent: what was sent.
        offline: write files for a later upload instead of sending.
    Raises:
        TaggingError: the package of the tracker is not installed.
    """

    def __init__(self, out: Path, sent: "Sent", offline: bool = False): ...

    def send(self, snapshot: Snapshot) -> str:
        """Send what is new since the last call, also of an earlier process.

        Returns:
            a sentence about what was sent, or "" if nothing is new.
        Raises:
            TaggingError: it could not be sent.
        """


class Sent:
    """A record of what was sent of a run, in a file that survives this process.

    An entry is saved after it was sent. A process that is killed before sends it again, to the same place.
    """

    def __init__(self, path: Path):
        self.path = path
        self.entries: dict[str, Any] = read_json(path, "Delete it. Everything is then sent again.") \
            if path.exists() else {}

    def get(self, key: str) -> dict[str, Any]:
        """Return an entry, {} if nothing was sent."""
        return self.entries.get(key, {})

    def save(self, key: str, **entry: object) -> None:
        self.entries[key] = entry
        write_json(self.path, self.entries)

    def lock(self) -> AbstractContextManager:
        """Hold while sending.

        Raises:
            TaggingError: another process sends the run.
        """
        return file_lock(self.path.with_name(".lock"), f"another process writes to {self.path.parent}. Wait for it.")


def generation(entry: dict[str, Any], identity: str, curves: FoldCurves) -> int:
    """Return the number of times that a fold was restarted, 0 for its first training.

    A tracker cannot delete points, so a restarted fold becomes a new run there.

    Args:
        entry: of `Sent`, with `identity`, `generation`, `epochs` and `begin` of what was sent.
        identity: of the snapshot.
    """
    if entry.get("identity") != identity:
        return 0
    continues = len(curves.rows) >= entry["epochs"] and curves.begins(entry["epochs"]) == entry["begin"]
    return entry["generation"] + (not continues)


def require_package(name: str) -> None:
    """
    Raises:
        TaggingError: the package of a tracker is not installed.
    """
    if find_spec(name) is None:
        raise TaggingError(f"--to {name} needs the package {name}, which is not installed. Install it with "
                           f"`pip install {name}`.")
