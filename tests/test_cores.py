"""The number of threads follows the affinity and the quota of the container, and waiting threads let others work."""
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tagging_lite import cores

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A file system of control groups, on a machine with 16 cores."""
    monkeypatch.setattr(cores, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)

    def write(**files):
        for name, text in {"proc/self/cgroup": "0::/\n", **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    return write


@pytest.mark.parametrize("files, expected", [
    ({}, 16),
    ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
    ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
    ({"sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
    ({"sys/fs/cgroup/cpu.max": "3200000 100000\n"}, 16),
    ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 16),
    ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ({"proc/self/cgroup": "0::/user.slice/job_7\n", "sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n",
      "sys/fs/cgroup/user.slice/job_7/cpu.max": "max 100000\n"}, 3),        # the limit of a parent counts
    ({"proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n1:name=systemd:/y\n",
      "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "500000\n",
      "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n"}, 5),
    ({"sys/fs/cgroup/cpu.max": "nonsense"}, 16)])
def test_the_quota_of_a_container_limits_the_cores(system, files, expected):
    system(**files)
    assert cores.available_cores() == expected


def test_the_affinity_limits_the_cores(system, monkeypatch):
    system(**{"sys/fs/cgroup/cpu.max": "800000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cores.available_cores() == 2


def test_systems_without_affinity_and_control_groups_have_all_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "ROOT", tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.available_cores() == 6 and cores.cpu_quota() == math.inf


def run(program, **variables):
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment | variables, text=True,
                          capture_output=True, check=True).stdout.split()


SETTINGS = "import os, tagging; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"


def test_waiting_threads_sleep_soon_unless_the_user_has_chosen():
    assert run(SETTINGS) == ["1000", "None"]
    assert run(SETTINGS, OMP_WAIT_POLICY="ACTIVE") == ["None", "ACTIVE"]
    assert run(SETTINGS, GOMP_SPINCOUNT="7") == ["7", "None"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_torch_uses_the_cores_that_may_be_used_unless_the_user_has_chosen(tmp_path):
    program = ("import os\nfrom pathlib import Path\nfrom tagging_lite import cores\n"
               f"cores.ROOT = Path({str(tmp_path)!r})\n"
               "os.sched_getaffinity = lambda _: range(16)\n"
               "import torch\ntorch.set_num_threads(8)\n"
               "from tagging.utils.devices import choose_device\nchoose_device('cpu')\nprint(torch.get_num_threads())")
    for name, text in (("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "300000 100000\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert run(program) == ["3"]
    assert run(program, OMP_NUM_THREADS="5") == ["8"]
