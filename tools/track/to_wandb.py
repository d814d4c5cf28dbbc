"""Runs in Weights & Biases: a run for each fold and one for each stage, in a group with the name of our run."""
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tagging.errors import TaggingError
from tools.track.snapshot import FoldCurves, Snapshot
from tools.track.tracker import PROJECT, Sent, generation, require_package


class Wandb:
    """Sends runs to Weights & Biases, or writes them as its offline runs.

    Args:
        out: folder of the files of one run.
        sent: what was sent.
        offline: write folders that `wandb sync` uploads, one for each fold and stage, always with everything.
    Raises:
        TaggingError: the package is not installed.
    """

    def __init__(self, out: Path, sent: Sent, offline: bool = False):
        require_package("wandb")
        import wandb
        self.wandb: Any = wandb
        self.out, self.sent, self.offline = out, sent, offline

    def send(self, snapshot: Snapshot) -> str:
        """Send the folds with new epochs, and the stage if another fold is finished."""
        sent = []
        for fold, curves in snapshot.curves.items():
            key = f"{snapshot.stage}-fold{fold}"
            entry = self.sent.get(key)
            if entry.get("mark") == curves.mark() and entry.get("identity") == snapshot.identity:
                continue
            number = generation(entry, snapshot.identity, curves)
            self.send_fold(snapshot, fold, curves, f"-restart{number}" if number else "")
            self.sent.save(key, identity=snapshot.identity, mark=curves.mark(), generation=number,
                           epochs=len(curves.rows), begin=curves.begins(len(curves.rows)))
            sent.append(f"fold {fold}, {len(curves.rows)} epochs")
        if self.sent.get(snapshot.stage).get("mark") != snapshot.mark():
            self.send_stage(snapshot)
            self.sent.save(snapshot.stage, mark=snapshot.mark())
            sent.append("settings and scores")
        return f"{snapshot.stage}: {'; '.join(sent)}" if sent else ""

    def send_fold(self, snapshot: Snapshot, fold: int, curves: FoldCurves, suffix: str) -> None:
        with self.open_run(snapshot, f"fold{fold}{suffix}") as run:
            for row in curves.rows:
                if row["epoch"] >= run.step:        # the server has the earlier ones
                    run.log({name: value for name, value in row.items() if name != "epoch"}, step=int(row["epoch"]))
            if curves.score is not None:
                run.summary["fold_lwlrap"] = curves.score

    def send_stage(self, snapshot: Snapshot) -> None:
        with self.open_run(snapshot, "summary", notes=snapshot.card() or None) as run, \
                tempfile.TemporaryDirectory() as folder:
            step = len(snapshot.fold_scores)
            images = {}
            for name, picture in snapshot.pictures().items():
                path = Path(folder, f"{name}.png")
                path.write_bytes(picture)
                images[name] = self.wandb.Image(str(path))
            if images and step >= run.step:
                run.log(images, step=step)
            for fold, score in snapshot.fold_scores.items():
                run.summary[f"lwlrap_of_fold/{fold}"] = score
            for name, score in snapshot.scores.items():
                run.summary[f"lwlrap/{name}"] = score

    @contextmanager
    def open_run(self, snapshot: Snapshot, name: str, notes: str | None = None) -> Iterator[Any]:
        """Open a run that can have been sent before, and finish it.

        Raises:
            TaggingError: Weights & Biases reports an error.
        """
        wandb = self.wandb
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False)
        self.out.mkdir(parents=True, exist_ok=True)
        # Offline, the run is written into a new folder that then replaces the earlier one.
        place = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.out))
        try:
            with wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), id=f"{snapshot.identity}-{name}",
                            name=f"{snapshot.run} {snapshot.stage} {name}", group=snapshot.run,
                            job_type=snapshot.stage, dir=str(place), resume="allow", notes=notes,
                            config=dict(snapshot.settings),
                            mode="offline" if self.offline else "online", settings=settings) as run:
                yield run
            if self.offline:
                (written,) = place.glob("wandb/offline-run-*")
                for name_of_folder in ("logs", "tmp"):      # they describe this machine, and are still written to
                    shutil.rmtree(written / name_of_folder, ignore_errors=True)
                kept = self.out / f"offline-run-{snapshot.stage}-{name}"
                shutil.rmtree(kept, ignore_errors=True)
                written.rename(kept)
        except wandb.Error as error:
            reason = str(error).rstrip(". ")
            raise TaggingError(f"Weights & Biases: {reason}. Check the connection, and log in with `wandb login`. Or "
                               "write files for a later upload with --offline.") from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
