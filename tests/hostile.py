"""Shared by the tests of hostile files: generated cases, damage to files, and limits on time and memory.

The environment variable HOSTILE_CASES sets the number of cases for each function that reads files.
"""
import csv
import ctypes
import faulthandler
import gc
import io
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
SECONDS = 2.0                       # time limit of a case
TIMES, ALLOWANCE = 20, 16 << 20     # memory limit of a case: this many times the size of the file, plus bytes


@pytest.fixture(autouse=True)
def watchdog():
    """End the process if a test hangs. Python cannot interrupt a loop in a C library."""
    faulthandler.dump_traceback_later(max(600, CASES), exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def run_cases(check, strategy, count=CASES):
    """Call `check` with `count` generated cases, the same in every run. Fail if hypothesis generates fewer."""
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
    """Apply `EDITS` to bytes."""
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
    """Write a new file. The old one is not overwritten, because a tensor of the last case can still be mapped to it."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def csv_of(rows, end="\r\n"):
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows(rows)
    return out.getvalue().encode()


# --- time and memory ---

def outcome(path, read, *arguments, seconds=SECONDS):
    """Return the result of `read(path, ...)`, or the TaggingError that it raises. Check its time and memory.

    All other errors are raised.
    """
    for _ in range(2):      # the first time another process may have used the core
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
    """Whether a result of `outcome` is an error."""
    return isinstance(result, TaggingError)


def check_memory(taken, path):
    """Check that `taken` bytes of memory are within the limit for the file."""
    size = path.stat().st_size
    assert taken <= TIMES * size + ALLOWANCE, f"{taken} bytes for a file of {size}"


def resident(field):
    """Return the kilobytes of memory of this process: now (VmRSS), at most (VmHWM), or reserved (VmSize)."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@contextmanager
def little_growth(path):
    """Check the memory of the whole process during the block. `outcome` does not count the memory of C libraries."""
    gc.collect()
    with suppress(AttributeError):      # freed memory that the C library keeps would hide the growth
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    yield
    check_memory(1024 * (resident("VmHWM") - before), path)


@contextmanager
def little_room():
    """Limit the memory of the process during the block. A wrong size in a file must not fill the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1024 * resident("VmSize") + (1 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
