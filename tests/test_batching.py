"""Windows of several callers in shared batches."""
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tagging_lite.batching import SharedBatches


class Sums:
    """Logits (windows, 1, 2): the sum of the samples and the first of them. Keeps the sizes of the batches."""

    def __init__(self, seconds=0.0):
        self.sizes, self.seconds, self.threads = [], seconds, set()

    def __call__(self, windows):
        self.sizes.append(len(windows))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if (windows < 0).any():
            raise ValueError("negative")
        return np.stack([windows.sum(1), windows[:, 0]], 1)[:, None].astype(np.float32)


@pytest.fixture
def shared():
    made = []

    def make(logits, size=8, wait=0.0, threads=1):
        made.append(SharedBatches(logits, size, wait, threads))
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def windows_of(rng, count, samples=5):
    return rng.integers(0, 1000, (count, samples)).astype(np.int16)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_callers_get_their_own_results_from_full_batches(shared, threads):
    rng = np.random.default_rng(0)
    logits = Sums(0.002)
    batches = shared(logits, 8, 0.05, threads)
    inputs = [windows_of(rng, count, 4 + count % 2) for count in [1, 2, 3, 20, 7] * 12]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(batches, inputs))
    for windows, result in zip(inputs, results):
        np.testing.assert_array_equal(result, Sums()(windows))
    assert max(logits.sizes) == 8 and sum(logits.sizes) == sum(map(len, inputs))
    assert len(logits.sizes) < len(inputs) and len(logits.threads) == threads


def test_a_single_caller_waits_no_longer_than_asked(shared):
    batches = shared(Sums(), 8, 0.05)
    start = time.monotonic()
    batches(np.zeros((1, 5), np.int16))
    assert 0.04 < time.monotonic() - start < 1
    batches.wait = 60
    start = time.monotonic()
    assert batches(np.zeros((8, 5), np.int16)).shape == (8, 1, 2)       # a full batch waits for nobody
    assert time.monotonic() - start < 10


def test_callers_take_turns(shared):
    """A short sound is answered before a long one that came first."""
    batches = shared(Sums(0.01), 8)
    finished = []

    def call(name, count):
        batches(np.zeros((count, 5), np.int16))
        finished.append(name)

    long = threading.Thread(target=call, args=("long", 160))
    long.start()
    time.sleep(0.05)
    call("short", 3)
    long.join()
    assert finished == ["short", "long"]


def test_an_error_reaches_only_the_caller_whose_windows_cause_it(shared):
    batches = shared(Sums(), 8, 0.2)
    good, bad = np.ones((2, 5), np.int16), np.full((30, 5), -1, np.int16)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(batches, windows) for windows in (good, bad, good)]
        for answer in (answers[0], answers[2]):
            np.testing.assert_array_equal(answer.result(), Sums()(good))
        with pytest.raises(ValueError, match="negative"):
            answers[1].result()
    assert batches(good).shape == (2, 1, 2)         # and it still works


def test_closing_computes_what_was_requested_and_refuses_more(shared):
    batches = shared(Sums(), 8, 60)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(batches, np.ones((3, 5), np.int16))
        while not batches.requests:
            time.sleep(0.001)
        batches.close()
        assert answer.result().shape == (3, 1, 2)
    with pytest.raises(RuntimeError, match="closed"):
        batches(np.ones((1, 5), np.int16))
