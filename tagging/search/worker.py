"""The work of a search: train the reserved trials, one on each device, with the ordinary training scripts."""
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event, Lock
from typing import IO

import torch

from tagging.errors import TaggingError, shorten
from tagging.provenance import ROOT
from tagging.reporting.sections import read_logs
from tagging.run import StageFolder, stage_folder
from tagging.search import child
from tagging.search.commands import Trainings, show_changes
from tagging.search.study import FAILURES, Reserved, Sweep
from tagging.training.launcher import environment, explain, read_events
from tagging.utils.files import read_json
from tagging.utils.interrupts import Stopped

log = logging.getLogger(__name__)

POLL = 1.0          # seconds between two looks at the trials of other processes
ATTEMPTS = 3        # to train an epoch, if the training is killed each time
DIVERGED = re.compile(r"not finite|--micro-batches 2 or more")      # failures of a trial, whatever the others do
BROKEN = re.compile(r"could not be|cannot be (written|locked)|^--devices? ")     # failures of the machine


class TrialError(Exception):
    """A training failed. The message is its reason."""


class PrunedError(Exception):
    """The trial is worse than the others so far."""


class Workers:
    """Trains trials until the study has enough of them.

    Args:
        sweep: the study.
        trainings: how to train its trials.
        devices: each trains a trial at a time.
        on_trial: called after each finished trial, in the thread of its device.
    """

    def __init__(self, sweep: Sweep, trainings: Trainings, devices: Sequence[torch.device],
                 on_trial: Callable[[], None] = lambda: None):
        self.sweep, self.trainings, self.devices, self.on_trial = sweep, trainings, devices, on_trial
        self.cpus = sum(device.type == "cpu" for device in devices)
        self.starting, self.children = Lock(), set[subprocess.Popen]()
        self.stopped, self.ending = Event(), Event()        # now, and when the trials under way are finished
        self.failures = 0               # in a row
        self.announced: list[int] = []

    def run(self) -> None:
        """Train until the study has enough finished trials.

        Raises:
            TaggingError: something is wrong that is no fault of a trial. Other devices finish their trials.
            Stopped: this process was asked to stop. The trials under way have written their checkpoints.
        """
        with ThreadPoolExecutor(len(self.devices)) as pool:
            workers = [pool.submit(self.work, device) for device in self.devices]
            try:
                wait(workers, return_when=FIRST_EXCEPTION)
                self.ending.set()
                wait(workers)
            except Stopped:
                with self.starting:
                    self.stopped.set()
                    self.ending.set()
                    for process in [*self.children]:
                        process.terminate()
                raise
        for worker in workers:
            worker.result()

    def work(self, device: torch.device) -> None:
        """Train one trial after the other on a device."""
        while not self.ending.is_set():
            with ExitStack() as held:
                found = self.sweep.reserve(held)
                if isinstance(found, Reserved):
                    self.train(found, device)
            if isinstance(found, Reserved):
                if not self.stopped.is_set():
                    self.on_trial()
                continue
            if not found:
                return
            if found != self.announced:
                log.info("waiting for %s %s of other workers", "trial" if len(found) == 1 else "trials", shorten(found))
                self.announced = found
            self.ending.wait(POLL)

    def train(self, trial: Reserved, device: torch.device) -> None:
        """Train a reserved trial, and finish it, unless this process was asked to stop.

        Raises:
            TaggingError: something is wrong that is no fault of the trial. The trial can be resumed.
        """
        log.info("trial %d %s on %s: %s", trial.number, "resumes" if trial.resumed else "starts", device,
                 show_changes(trial.recipe, self.sweep.plan.space.recipe))
        try:
            scores = self.scores(trial, device)
        except PrunedError as pruned:
            self.sweep.prune(trial.number)
            log.info("trial %d is pruned after %s", trial.number, pruned)
        except TrialError as error:
            self.fail(trial, str(error))
            return
        else:
            if self.stopped.is_set():
                return
            value, best = self.sweep.complete(trial.number, scores)
            log.info("trial %d: lwlrap %.4f%s", trial.number, value, ", the best so far" if best else "")
        self.failures = 0

    def fail(self, trial: Reserved, reason: str) -> None:
        """Finish a trial as failed, or stop the search."""
        if BROKEN.search(reason) or not (DIVERGED.search(reason) or self.sweep.has_scores()):
            raise TaggingError(f"Trial {trial.number} could not be trained: {reason} The trial resumes when you run "
                               "the same command again.")
        self.sweep.fail(trial.number, reason)
        log.info("trial %d failed and does not count: %s", trial.number, reason)
        self.failures += 1
        if self.failures >= FAILURES:
            raise TaggingError(f"{FAILURES} trials in a row failed, the last one because of this: {reason} Correct the "
                               "space or the options, and continue with --change-study.")

    def scores(self, trial: Reserved, device: torch.device) -> dict[str, float]:
        """Train all folds on all competitions. Return their scores, fewer if this process was asked to stop.

        Raises:
            PrunedError, TrialError: the trial ends here.
        """
        plan = self.sweep.plan
        scores: dict[str, float] = {}
        for place, (name, run) in enumerate(self.sweep.runs(trial.number).items()):
            folder = stage_folder(self.sweep.folder, run, "curated")
            progress = TrialProgress(self.sweep, trial, folder, place * len(plan.folds))
            for stage, words in self.trainings.commands(trial.recipe, name, plan.recipe_name):
                words = [*words, "--run", run, "--device", str(device)]
                self.train_stage(words, device, progress if stage == "curated" else None, trial.number)
                if self.stopped.is_set():
                    return scores
            progress.update(prune=False)
            for fold in plan.folds:
                scores[f"{name} fold {fold}"] = read_json(folder.record(fold), "Train the trial again.")["lwlrap"]
        return scores

    def train_stage(self, words: list[str], device: torch.device, progress: "TrialProgress | None",
                    number: int) -> None:
        """Train a stage. If the training is killed, start it again. Raise TrialError if it fails, or PrunedError."""
        deaths = 0
        while not self.stopped.is_set():
            epochs = 0
            with tempfile.TemporaryFile("w+", errors="replace") as errors:
                with self.starting:
                    if self.stopped.is_set():
                        return
                    process = self.start(words, device, errors, number)
                    self.children.add(process)
                reason = ""
                try:
                    for event in read_events(process.stdout):
                        reason = event.get("error", reason)
                        if "epoch" in event:
                            epochs += 1
                            log.info("trial %d: %s", number, event["message"])
                            if progress:
                                progress.update()
                except BaseException:
                    process.terminate()
                    raise
                finally:
                    process.communicate()
                    self.children.discard(process)
                errors.seek(0)
                reason = reason or (explain(process.returncode, errors.read()) if process.returncode else "")
            if not process.returncode:
                return
            deaths = 1 if epochs else deaths + 1
            if reason_is_death(process.returncode) and deaths < ATTEMPTS:
                if not self.stopped.is_set():
                    log.info("trial %d: the training was %s It starts again.", number, reason)
                continue
            if not self.stopped.is_set():
                tried = f" It was started {deaths} times." if deaths >= ATTEMPTS else ""
                raise TrialError(reason + tried)

    def start(self, words: list[str], device: torch.device, errors: IO[str], number: int) -> subprocess.Popen:
        """Start a training script."""
        command = [sys.executable, str(ROOT / words[0]), *words[1:]]
        if os.name == "posix":
            lock = self.sweep.folder / f".trial-{number:03d}.training.lock"
            command = [sys.executable, "-I", "-S", child.__file__, str(lock), str(os.getpid()), *command]
        return subprocess.Popen(command, env=environment(device, self.cpus), text=True, errors="replace",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                start_new_session=True)     # so that Ctrl-C reaches it once, through this process


def reason_is_death(code: int) -> bool:
    """Whether a training was killed or asked to stop, which is no fault of its own."""
    return code < 0 or code in (128 + signal.SIGTERM, 128 + signal.SIGINT)


class TrialProgress:
    """Reports the epochs of a trial on one competition.

    Args:
        folder: the curated stage of its run.
        first_leg: place of its first fold in the legs of the plan.
    """

    def __init__(self, sweep: Sweep, trial: Reserved, folder: StageFolder, first_leg: int):
        self.sweep, self.trial, self.folder, self.first_leg = sweep, trial, folder, first_leg
        self.epochs = sum(trial.recipe.curated.epochs)
        self.reported: dict[int, int] = {}      # fold -> epochs

    def update(self, prune: bool = True) -> None:
        """Report the epochs that are new in the logs.

        Raises:
            PrunedError: `prune`, and the last epoch is worse than the median of the other trials.
        """
        logs = read_logs(self.folder)
        for place, fold in enumerate(self.sweep.plan.folds):
            table = logs.get(fold)
            if table is None or len(table) <= self.reported.get(fold, 0):
                continue
            scores = dict(zip(table.epoch.astype(int), table.lwlrap.astype(float)))
            self.reported[fold] = len(scores)
            worse = self.sweep.report(self.trial.number, self.first_leg + place, scores)
            at_the_end = len(scores) == self.epochs and self.first_leg + place == len(self.sweep.plan.legs) - 1
            if prune and worse and not at_the_end:      # a trial that is trained to its end is worth its score
                raise PrunedError(f"epoch {len(scores)} of {self.epochs}, fold {fold}, with lwlrap "
                                  f"{scores[len(scores)]:.4f}")
