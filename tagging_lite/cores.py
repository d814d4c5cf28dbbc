"""The processor cores that this process may use."""
import math
import os
from pathlib import Path

ROOT = Path("/")        # of the file system; tests replace it


def available_cores() -> int:
    """Return the number of cores that the affinity and the CPU quota of the container leave to this process."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:          # macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota() -> float:
    """Return the number of cores that control groups allow on average. It is infinite if there is no limit."""
    quotas = [math.inf]
    for group in own_groups():
        for each in (group, *group.parents):
            quotas.append(read_quota(each / "cpu.max"))                                             # version 2
            quotas.append(read_quota(each / "cpu.cfs_quota_us", each / "cpu.cfs_period_us"))        # version 1
            if each == ROOT / "sys/fs/cgroup":
                break
    return min(quotas)


def own_groups() -> list[Path]:
    """Return the folders of the control groups of this process. In a container these are the mounted ones."""
    mounts = ROOT / "sys/fs/cgroup"
    groups = [mounts, mounts / "cpu", mounts / "cpu,cpuacct"]
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:         # no Linux
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)       # 0::/a/b, or 4:cpu,cpuacct:/a/b
        if not controllers or "cpu" in controllers.split(","):
            groups.append(mounts / controllers / path.lstrip("/"))
    return groups


def read_quota(*files: Path) -> float:
    """Return quota / period in cores, which are in one file or two. Infinite if there is no limit or no file."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):        # "max" is not a number
        return math.inf


def calm_threads() -> None:
    """Let the threads of OpenMP sleep soon when they wait for each other, unless the user has chosen how they wait.

    By default they spin for milliseconds, which takes the cores from other programs, and makes all threads wait for one
    that has lost its core. The libraries read the setting when they are loaded: call this before importing torch.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"       # iterations, some microseconds
