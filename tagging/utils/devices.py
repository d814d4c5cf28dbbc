"""Devices: choose them, describe them, and measure their memory."""
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import psutil
import torch
import torch.distributed as dist

from tagging.errors import TaggingError
from tagging_lite.cores import available_cores


def choose_device(name: str) -> torch.device:
    """Return the device called `name`. "auto" is the GPU if there is one. On a CPU, use the cores that may be used.

    Raises:
        TaggingError: this machine has no such device.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).add_(1)       # a GPU that is too old for this torch fails here
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TaggingError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}. "
                           "Choose auto, cpu or cuda.") from error
    return device


def choose_devices(device: str, devices: Sequence[str]) -> list[torch.device]:
    """Return the device of --device, or those of --devices.

    Raises:
        TaggingError: this machine has no such device, both options are given, or --devices is used under torchrun.
    """
    if not devices:
        return [choose_device(local_device(device))]
    if device != "auto":
        raise TaggingError("--device and --devices exclude each other. Remove one of them.")
    if dist.is_torchelastic_launched():
        raise TaggingError("--devices trains a fold on each device, and torchrun trains each fold on all of them. "
                           "Remove --devices, or start the script without torchrun.")
    names = [f"cuda:{name}" if name.isdecimal() else name for name in devices]
    gpus = torch.cuda.device_count()        # this takes no memory on them
    for name, given in zip(names, devices):
        if name not in ("cpu", *(f"cuda:{number}" for number in range(gpus))):
            raise TaggingError(f"--devices {given} cannot be used here: there are {gpus} GPUs. Choose their numbers, "
                               "from 0, or cpu.")
    return [choose_device(names[0])] if len(names) == 1 else [torch.device(name) for name in names]


def local_device(name: str) -> str:
    """Return the device of this process, where torchrun started several.

    Raises:
        TaggingError: all processes of a machine would share the device, or there are fewer GPUs than processes.
    """
    if not dist.is_initialized() or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise TaggingError(f"--device {name}: torchrun gives each process a GPU of its own. Choose auto, cuda or cpu.")
    number = int(os.environ["LOCAL_RANK"])
    if number >= torch.cuda.device_count():
        raise TaggingError(f"torchrun started more processes than the {torch.cuda.device_count()} GPUs of this "
                           "machine. Use a smaller --nproc-per-node.")
    torch.cuda.set_device(number)
    return f"cuda:{number}"


@lru_cache
def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 natively: GPUs from compute capability 8.0. Emulation is slower than fp32."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def describe_device(device: torch.device) -> str:
    """Return device and precision as text, with the number of processes under torchrun."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    times = f"{processes} x " if processes > 1 else ""
    if device.type == "cuda":
        precision = "bf16 network, fp32 front end and head" if has_bf16(device) else "fp32"
        return f"{times}{torch.cuda.get_device_name(device)}, {precision}, channels last"
    return f"{times}{device.type} ({platform.machine()}, {torch.get_num_threads()} threads), fp32"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peak memory of this process in megabytes, on the host and on the device."""
    peak = {"host": host_peak_memory() // 2**20}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak


def host_peak_memory() -> int:
    """Return the peak memory of this process in bytes. Where the system does not record it, it is today's memory."""
    try:
        import resource
    except ImportError:         # Windows
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak        # macOS counts bytes, Linux kilobytes


@contextmanager
def explain_memory(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of the device into an error with the wanted amount and a remedy.

    Raises:
        TaggingError: the first sentences of torch's message, and `remedy`.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        # The first sentences give the wanted and the available amount; the rest is about torch's allocator.
        reason = ". ".join(str(error).split(". ")[:3]) or "The host has too little memory"
        raise TaggingError(f"{reason.rstrip('.')}. {remedy}") from error
