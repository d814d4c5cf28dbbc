"""Several devices, a fold on each: the script starts itself again for each fold, on the next free device."""
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import IO

import torch
from tqdm import tqdm

from tagging.utils.interrupts import Stopped
from tagging.utils.logs import EVENTS

# The output of a child is events (see tagging.utils.logs): {"message": ..., "fold": ..., "epoch": ...} on each line.


class FoldLauncher:
    """Trains each fold in a process of its own.

    Args:
        stage: noisy or curated, for messages.
        folds: from 1.
        devices: one or more. The next free device takes the next fold.
        epochs: of a fold, for the progress bar.
    """

    def __init__(self, stage: str, folds: Sequence[int], devices: Sequence[torch.device], epochs: int):
        self.stage, self.folds = stage, folds
        self.cpus = sum(device.type == "cpu" for device in devices)
        self.free: SimpleQueue[torch.device] = SimpleQueue()
        for device in devices:
            self.free.put(device)
        self.threads = len(devices)
        self.epochs = dict.fromkeys(folds, 0)       # finished ones of each fold
        self.starting, self.stopped = Lock(), False
        self.children: list[subprocess.Popen] = []
        self.bar = tqdm(total=epochs * len(folds), unit="epoch", leave=False, disable=None)

    def run(self) -> dict[int, str]:
        """Train all folds.

        Returns:
            the error message of each fold that failed. The other folds are finished.
        Raises:
            Stopped: this process was asked to stop. The folds in training have been stopped too.
        """
        with self.bar, ThreadPoolExecutor(self.threads) as pool:
            try:
                return {fold: reason for fold, reason in zip(self.folds, pool.map(self.train, self.folds)) if reason}
            except Stopped as stop:
                with self.starting:
                    self.stopped = True
                    for child in self.children:
                        if os.name == "posix":
                            child.send_signal(stop.exit_code - 128)
                        else:
                            child.terminate()       # Windows has no other signal for a process without a console
                raise

    def train(self, fold: int) -> str:
        """Train one fold on the next free device. Return the error message, or ""."""
        device = self.free.get()
        try:
            with tempfile.TemporaryFile("w+", errors="replace") as errors:
                with self.starting:
                    if self.stopped:
                        return ""
                    child = start(fold, device, self.cpus, errors)
                    self.children.append(child)
                reason = ""
                with child:
                    for event in read_events(child.stdout):
                        reason = event.get("error", reason)
                        if event.get("fold") == fold:
                            self.epochs[fold] = event.get("epoch", self.epochs[fold])
                            self.show(event["message"])
                if child.returncode and not reason:
                    errors.seek(0)
                    reason = explain(child.returncode, errors.read())
        finally:
            self.free.put(device)
        if reason and not self.stopped:
            self.show(f"{self.stage} fold {fold} failed on {device}. The other folds continue.")
        return reason

    def show(self, line: str) -> None:
        with tqdm.external_write_mode(sys.stdout):      # one line at a time
            print(line, flush=True)
        self.bar.n = sum(self.epochs.values())
        self.bar.refresh()


def start(fold: int, device: torch.device, cpus: int, errors: IO[str]) -> subprocess.Popen:
    """Start this script again for one fold on one device."""
    return subprocess.Popen(command(fold, device), env=environment(device, cpus), text=True, errors="replace",
                            stdout=subprocess.PIPE, stderr=errors,
                            start_new_session=True)     # so that Ctrl-C reaches it once, through this process


def read_events(lines: IO[str] | None) -> Iterator[dict]:
    """Yield the events of a child. Lines of other programs are ignored."""
    for line in lines or ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def command(fold: int, device: torch.device) -> list[str]:
    """Return this process's command line, for one fold on one device."""
    kept, skipping = [], False
    for word in sys.argv[1:]:
        if word.startswith("--"):
            skipping = word.partition("=")[0] in ("--folds", "--devices")
        if not skipping:
            kept.append(word)
    return [sys.executable, sys.argv[0], *kept, "--folds", str(fold), "--device", str(device)]


def environment(device: torch.device, cpus: int) -> dict[str, str]:
    """Return the environment of a process for a fold. On CPUs they share the cores, unless OMP_NUM_THREADS is set."""
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // cpus))} if device.type == "cpu" else {}
    return threads | os.environ | {EVENTS: "1"}


def explain(returncode: int, errors: str) -> str:
    """Return why a process failed that did not report an error: its signal, and what it wrote to stderr."""
    ended = f"ended by {signal.Signals(-returncode).name}. " if returncode < 0 else ""
    return f"{ended}{errors.strip()}".strip() or f"ended with exit code {returncode}."
