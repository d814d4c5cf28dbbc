"""Several devices, a fold on each: the script starts itself again for every fold, on the next device that is free."""
import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock

import torch
import torch.distributed as dist
from tqdm import tqdm

from tagging.distributed import own_device
from tagging.errors import TaggingError
from tagging.model import choose_device
from tagging.signals import Stopped


def choose_devices(device: str, devices: tuple[str, ...]) -> list[torch.device]:
    """The device of --device, or those of --devices.

    Raises:
        TaggingError: no such device here, both options, or --devices under torchrun.
    """
    if not devices:
        return [choose_device(own_device(device))]
    if device != "auto":
        raise TaggingError("--device and --devices exclude each other. Leave one of them out.")
    if dist.is_torchelastic_launched():
        raise TaggingError("--devices trains a fold on each device, and torchrun each fold on all of them. Leave "
                           "--devices out, or start the script without torchrun.")
    names = [f"cuda:{name}" if name.isdecimal() else name for name in devices]
    gpus = torch.cuda.device_count()        # asked without taking memory on them, which is the folds' own
    for name, given in zip(names, devices):
        if name not in ("cpu", *(f"cuda:{number}" for number in range(gpus))):
            raise TaggingError(f"--devices {given} cannot be used here: there are {gpus} GPUs. Choose their numbers, "
                               "from 0, or cpu.")
    return [choose_device(names[0])] if len(names) == 1 else [torch.device(name) for name in names]


def train_side_by_side(stage: str, folds: list[int], devices: list[torch.device], epochs: int) -> dict[int, str]:
    """Train each fold in a process of its own.

    Args:
        epochs: of a fold, for the progress bar.
    Returns:
        what went wrong, by fold; the other folds are finished.
    Raises:
        Stopped: this process was asked to stop; the folds under way have been too, and have ended.
    """
    free: SimpleQueue[torch.device] = SimpleQueue()
    for device in devices:
        free.put(device)
    cpus = sum(device.type == "cpu" for device in devices)
    starting, running, stopped = Lock(), [], []
    done = dict.fromkeys(folds, 0)      # epochs

    def train(fold: int) -> str:
        device, title = free.get(), f"{stage} fold {fold}"
        try:
            with tempfile.TemporaryFile("w+", errors="replace") as errors:
                with starting:
                    if stopped:
                        return ""
                    child = subprocess.Popen(command(fold, device), env=environment(device, cpus), text=True,
                                             errors="replace", stdout=subprocess.PIPE, stderr=errors,
                                             start_new_session=True)    # Ctrl-C reaches it once, by this process
                    running.append(child)
                with child:
                    for line in child.stdout:
                        if line.startswith(title):      # the rest is what this process has said already
                            epoch = re.match(rf"{title} epoch (\d+)/", line)
                            done[fold] = int(epoch[1]) if epoch else done[fold]
                            show(line)
                errors.seek(0)
                reason = explain(child.returncode, errors.read())
        finally:
            free.put(device)
        if reason and not stopped:
            show(f"{title} failed on {device}; the other folds go on\n")
        return reason

    def show(line: str) -> None:
        with tqdm.external_write_mode(sys.stdout):      # one line at a time
            print(line, end="", flush=True)
        bar.n = sum(done.values())
        bar.refresh()

    with (tqdm(total=epochs * len(folds), unit="epoch", leave=False, disable=None) as bar,
          ThreadPoolExecutor(len(devices)) as pool):
        try:
            return {fold: reason for fold, reason in zip(folds, pool.map(train, folds)) if reason}
        except Stopped as stop:
            with starting:
                stopped.append(stop)
                for child in running:
                    child.send_signal(stop.exit_code - 128)
            raise


def command(fold: int, device: torch.device) -> list[str]:
    """This process's command line, for one fold on one device."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--folds", "--devices"):
        parser.add_argument(option, nargs="*")
    _, words = parser.parse_known_args(sys.argv[1:])
    return [sys.executable, sys.argv[0], *words, "--folds", str(fold), "--device", str(device)]


def environment(device: torch.device, cpus: int) -> dict[str, str]:
    """Of a process that trains a fold; those on a CPU divide its cores, unless the user has."""
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // cpus))} if device.type == "cpu" else {}
    return threads | os.environ


def explain(returncode: int, errors: str) -> str:
    """Why a process failed: its own message, else all that it wrote; "" if it did not."""
    if not returncode:
        return ""
    said = re.split(r"^error: ", errors, flags=re.MULTILINE)[-1].strip()
    return said if returncode > 0 else f"ended by {signal.Signals(-returncode).name}. {said}".rstrip()
