"""What the tests of hostile files share: generated cases that are counted, damage, and bounds on time and memory.

HOSTILE_CASES raises the number of cases a reader gets.
"""
import ctypes
import faulthandler
import gc
import os
import re
import resource
import time
import tracemalloc
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tagging.errors import TaggingError

CASES = int(os.environ.get("HOSTILE_CASES", "2000"))
SECONDS = 2.0                       # a case
TIMES, ALLOWANCE = 20, 16 << 20     # bytes a case may take: so often the file's size, and a fixed allowance


@pytest.fixture(autouse=True)
def watchdog():
    """A loop inside a C library never comes back to be measured."""
    faulthandler.dump_traceback_later(max(600, CASES), exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def run_cases(check, strategy, count=CASES):
    """Call `check` with `count` generated cases, the same in every run; fewer are a failure too."""
    ran = 0

    @settings(max_examples=count, derandomize=True, deadline=None, database=None,
              phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(case):
        nonlocal ran
        ran += 1
        check(case)

    one()
    assert ran >= count, f"{ran} cases of {count}"


# --- files ---

EDITS = st.lists(st.tuples(st.sampled_from(["set", "flip", "cut", "insert", "delete", "repeat"]),
                           st.integers(0, 2**24), st.integers(0, 255)), max_size=4)


def damage(content, edits):
    for kind, place, value in edits:
        place %= len(content) + 1
        head, tail = content[:place], content[place:]
        content = head + {"set": bytes([value]) + tail[1:],
                          "flip": bytes(byte ^ (1 << value % 8) for byte in tail[:1]) + tail[1:],
                          "cut": b"",
                          "insert": bytes([value]) * (1 + value % 5) + tail,
                          "delete": tail[1 + value % 9:],
                          "repeat": tail[:value] + tail}[kind]
    return content


def put(path, content):
    """A new file, not the old one overwritten: a tensor of the case before may still be mapped to that."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


# --- time and memory ---

def outcome(path, read, *arguments, seconds=SECONDS):
    """What `read(path, ...)` returns, or the TaggingError that it raises; any other error passes through."""
    for _ in range(2):      # another process may have held the core; what hangs is slow twice
        tracemalloc.start()
        begin = time.monotonic()
        try:
            result = read(path, *arguments)
        except TaggingError as error:
            assert str(path) in str(error), f"does not name the file: {error}"
            result = error
        finally:
            took = time.monotonic() - begin
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if took < seconds:
            break
    assert took < seconds, f"{took:.1f} s for {path.stat().st_size} bytes"
    check_memory(peak, path)
    return result


def refused(result):
    return isinstance(result, TaggingError)


def check_memory(taken, path):
    size = path.stat().st_size
    assert taken <= TIMES * size + ALLOWANCE, f"{taken} bytes for a file of {size}"


def resident(field):
    """Kilobytes of memory that this process holds: now (VmRSS), or at most (VmHWM)."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@contextmanager
def little_growth(path):
    """The whole process, as `outcome` does not see what C libraries take: PyTorch's tensors, for one."""
    gc.collect()
    with suppress(AttributeError):      # memory that was freed, and is kept by the C library, would hide the growth
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    yield
    check_memory(1024 * (resident("VmHWM") - before), path)


@contextmanager
def little_room():
    """What a description asks for must not take the machine's memory from others, if it is granted after all."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1024 * resident("VmSize") + (1 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
