"""Runs in ClearML: a task for each stage, with a series for each fold."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tagging.errors import TaggingError
from tagging.utils.files import fingerprint, write_json
from tools.track.snapshot import Snapshot
from tools.track.tracker import PROJECT, Sent, generation, require_package

TIMEOUT = 600       # seconds for one task: a server that does not answer would block for ever


class ClearML:
    """Sends runs to a ClearML server, or writes them as its offline sessions.

    Args:
        out: folder of the files of one run.
        sent: what was sent.
        offline: write a zip file for each stage, always with everything, that ClearML imports.
    Raises:
        TaggingError: the package is not installed.
    """

    def __init__(self, out: Path, sent: Sent, offline: bool = False):
        require_package("clearml")
        self.out, self.sent, self.offline = out, sent, offline

    def send(self, snapshot: Snapshot) -> str:
        """Send the new epochs of all folds, and the rest if another fold is finished."""
        mark = fingerprint(snapshot.mark(), {fold: curves.mark() for fold, curves in snapshot.curves.items()})
        entry = self.sent.get(snapshot.stage)
        if entry.get("mark") == mark:
            return ""
        if self.offline or entry.get("identity") != snapshot.identity:
            entry = {}
        scalars, folds, count = [], {}, 0
        for fold, curves in snapshot.curves.items():
            before = entry.get("folds", {}).get(str(fold), {})
            number = generation(before, snapshot.identity, curves)
            first = before["epochs"] if before and number == before["generation"] else 0
            series = f"fold {fold}" + (f", restart {number}" if number else "")
            scalars += [(name, series, int(row["epoch"]), value) for row in curves.rows[first:]
                        for name, value in row.items() if name != "epoch"]
            count += len(curves.rows[first:])
            folds[str(fold)] = {"identity": snapshot.identity, "generation": number, "epochs": len(curves.rows),
                                "begin": curves.begins(len(curves.rows))}
        task = self.report(snapshot, entry.get("task"), scalars, entry.get("settings") != snapshot.mark())
        self.sent.save(snapshot.stage, mark=mark, identity=snapshot.identity, task=task, settings=snapshot.mark(),
                       folds=folds)
        return f"{snapshot.stage}: {count} epochs" + (f" -> {self.session(snapshot)}" if self.offline else "")

    def session(self, snapshot: Snapshot) -> Path:
        """Return the path of the offline session of a stage."""
        return self.out / f"{snapshot.stage}.zip"

    def report(self, snapshot: Snapshot, known: str | None, scalars: list[tuple[str, str, int, float]],
               with_stage: bool) -> str:
        """Report to the task of a stage, and return its id.

        Args:
            known: id of the task, if it exists.
            scalars: title, series, iteration and value.
            with_stage: also report settings, fold scores, pictures and model card.
        Raises:
            TaggingError: ClearML reports an error.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=self.out) as place:
            folder, step = Path(place), len(snapshot.fold_scores)
            content: dict[str, object] = {
                "offline": self.offline, "task": known, "project": PROJECT, "settings": {}, "card": "", "scores": {},
                "name": f"{snapshot.run} {snapshot.stage}", "scalars": scalars, "pictures": {}}
            if with_stage:
                pictures = snapshot.pictures()
                for name, picture in pictures.items():
                    (folder / f"{name}.png").write_bytes(picture)
                by_fold = [("lwlrap by fold", "fold", fold, score) for fold, score in snapshot.fold_scores.items()]
                content |= {"settings": {name: str(value) for name, value in snapshot.settings.items()},
                            "card": snapshot.card(), "scalars": scalars + by_fold,
                            "scores": {f"lwlrap {name}": score for name, score in snapshot.scores.items()},
                            "pictures": dict.fromkeys(pictures, step)}
            write_json(folder / "task.json", content)
            run_task(folder, self.offline)
            if self.offline:
                (written,) = folder.rglob("offline-*.zip")
                shutil.move(written, self.session(snapshot))
            return (folder / "sent.txt").read_text(encoding="utf-8")


def run_task(folder: Path, offline: bool) -> None:
    """Run `clearml_task.py` in a process of its own.

    Raises:
        TaggingError: it failed.
    """
    environment = os.environ | ({"CLEARML_CACHE_DIR": str(folder / "cache")} if offline else {})
    command = [sys.executable, "-P", str(Path(__file__).with_name("clearml_task.py")), str(folder)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
        reason = "" if (folder / "sent.txt").exists() else last_error(done.stderr or done.stdout)
    except subprocess.TimeoutExpired:
        reason = f"no answer in {TIMEOUT} s"
    if reason:
        raise TaggingError(f"ClearML: {reason}. Check the connection, and set up the account with `clearml-init`. "
                           "Or write files for a later upload with --offline.")


def last_error(output: str) -> str:
    """Return the message of the last exception in the output of a process, or its last line."""
    lines = output.strip().splitlines() or ["it ended without a message"]
    errors = [line.split("Error: ", 1)[1] for line in lines if "Error: " in line]
    return (errors or lines)[-1].rstrip(".! ")
