"""Send runs, under way or finished, to a tracker: settings, curves, fold scores, pictures and model card.

    python -m tools.track --run NAME --to tensorboard           # -> models/NAME/tensorboard/
    python -m tools.track --run NAME OTHER --to wandb --follow  # until both runs are finished
    python -m tools.track --run NAME --to clearml --offline     # -> models/NAME/clearml/, for a later upload

It reads the folders of the runs and nothing else, so it can start, stop and start again at any time. Sending twice
changes nothing.
"""
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.options import Flat, ModelsOption, shown_default
from tagging.recipe import STAGES
from tagging.run import StageFolder, stage_folder
from tagging.utils.files import check_folder
from tools.track.snapshot import Snapshot, read_snapshot
from tools.track.to_clearml import ClearML
from tools.track.to_tensorboard import TensorBoard
from tools.track.to_wandb import Wandb
from tools.track.tracker import Sent, Tracker


@dataclass(frozen=True, kw_only=True)
class TrackedRuns(ModelsOption):
    """The runs."""
    run: tuple[str, ...]                    # Names of the runs. Their folders are models/NAME.


@dataclass(frozen=True, kw_only=True)
class Track:
    """tools.track."""
    runs: Flat[TrackedRuns]
    to: Literal["tensorboard", "wandb", "clearml"]      # Tracker that gets the runs.
    follow: bool = False                    # Send what is new until all runs are finished, or until Ctrl-C.
    interval: float = 30.0                  # Pause between two looks at the runs with --follow, in seconds.
    offline: bool = False                   # Write files of wandb or clearml for a later upload, without an account.
    # Folder for the files of the tracker. Each run has a folder in it.
    out: Annotated[Path | None, shown_default("--models", "DIR")] = None


@dataclass(frozen=True)
class Followed:
    """A run and the tracker that receives it."""
    run: str
    folders: list[StageFolder]
    tracker: Tracker

    def snapshots(self) -> list[Snapshot]:
        """Read the stages that exist.

        Raises:
            TaggingError: a file of the run is damaged.
        """
        return [read_snapshot(folder) for folder in self.folders if folder.settings_path.exists()]

    def update(self) -> bool:
        """Send what is new, and report it. Return whether the run is finished: all folds of its curated stage."""
        snapshots = self.snapshots()
        for snapshot in snapshots:
            if news := self.tracker.send(snapshot):
                print(f"{self.run}: {news}", flush=True)
        return any(snapshot.stage == STAGES[-1] and snapshot.complete for snapshot in snapshots)


def main() -> None:
    args = parse(Track, __doc__)
    if args.interval <= 0:
        raise TaggingError("--interval must be above 0.")
    if args.offline and args.to == "tensorboard":
        raise TaggingError("--offline is for wandb and clearml. TensorBoard's files need no account. Remove it.")
    out = args.out or args.runs.models
    with ExitStack() as locks:
        followed = [open_run(name, args, out, locks) for name in dict.fromkeys(args.runs.run)]
        unfinished = [run for run in followed if not run.update()]
        for run in unfinished:
            print(f"{run.run} is not finished." if run.snapshots() else
                  f"{args.runs.models / run.run} does not exist yet.", flush=True)
        while args.follow and unfinished:
            time.sleep(args.interval)
            unfinished = [run for run in unfinished if not keep_trying(run)]
    print(hint(args, out), flush=True)


def open_run(name: str, args: Track, out: Path, locks: ExitStack) -> Followed:
    """Find a run, and open the tracker for it.

    Raises:
        TaggingError: the run does not exist, unless it is followed; the folder of the tracker cannot be written or is
            in use; or the package of the tracker is not installed.
    """
    folders = [stage_folder(args.runs.models, name, stage) for stage in STAGES]
    if not args.follow and not any(folder.settings_path.exists() for folder in folders):
        raise TaggingError(f"{args.runs.models / name} is no run. Check the name with `python -m tools.runs`, or wait "
                           "for its start with --follow.")
    home = out / name / args.to
    check_folder(home, "--out")
    sent = Sent(home / ("sent-offline.json" if args.offline else "sent.json"))
    trackers: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "clearml": ClearML}
    tracker = trackers[args.to](home, sent, args.offline)
    locks.enter_context(sent.lock())
    return Followed(name, folders, tracker)


def keep_trying(run: Followed) -> bool:
    """Update a run, and report an error instead of raising it: a connection comes back, and a fold can restart."""
    try:
        return run.update()
    except TaggingError as error:
        print(f"note: {run.run}: {error} The next look is in a moment.", flush=True)
        return False


def hint(args: Track, out: Path) -> str:
    """Return how to look at what was sent."""
    if args.to == "tensorboard":
        return f"Look at all runs with: tensorboard --logdir {out}"
    if not args.offline:
        return "All runs are up to date."
    places = ", ".join(str(out / name / args.to) for name in dict.fromkeys(args.runs.run))
    upload = {"wandb": "wandb sync FOLDER/offline-run-*",
              "clearml": "python -c 'import clearml; clearml.Task.import_offline_session(\"FOLDER/curated.zip\")'"}
    return f"The files are in {places}. Upload them with: {upload[args.to]}"


if __name__ == "__main__":
    run_script(main)
