"""List the slowest operations of a training step, and measure how long the device waits."""
import gzip
from collections.abc import Iterable, Iterator

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tagging.training.batches import TrainingBatches
from tagging.utils.files import atomic
from tools.benchmark.measure import Row, Setting, seconds_of
from tools.benchmark.step import epoch

STEPS, LISTED = 20, 12      # profiled training steps, and listed operations


def measure_profile(setting: Setting) -> Iterator[Row]:
    """Profile steps with real input at the largest size. chrome://tracing and ui.perfetto.dev open the trace."""
    batches = TrainingBatches(setting.model(), setting.examples(STEPS * setting.recipe.batch_size))
    batches.image_size, steps = setting.sizes[-1], len(batches)
    train = epoch(batches.model, batches)
    (plain,) = seconds_of(setting, train)           # the profiler slows the host
    on_gpu = setting.device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        train()
        if on_gpu:
            torch.cuda.synchronize(setting.device)
    profiler.export_chrome_trace(str(setting.scratch / "trace.json"))
    with atomic(setting.trace) as temporary:
        temporary.write_bytes(gzip.compress((setting.scratch / "trace.json").read_bytes()))

    where = f"a step at {batches.image_size} px"
    yield Row(where, "ms", [1000 * taken / steps for taken in plain])
    if on_gpu:
        work = [(event.time_range.start, event.time_range.end) for event in profiler.events()
                if event.device_type == DeviceType.CUDA and not event.is_user_annotation]       # microseconds
        yield Row(f"{where}: the device waits", "%", [100 * (1 - covered(work) / 1e6 / taken) for taken in plain])
    operations = [operation for operation in profiler.key_averages()
                  if operation.device_type == DeviceType.CPU]       # without kernels
    totals = {"device": "self_device_time_total", "host": "self_cpu_time_total"}
    for place in ("device", "host") if on_gpu else ("host",):
        times = {operation.key: getattr(operation, totals[place]) / 1000 / steps for operation in operations}
        for name in sorted(times, key=lambda name: times[name], reverse=True)[:LISTED]:
            yield Row(f"{place}: {name[:50]}", "ms a step", [times[name]], times[name] / sum(times.values()),
                      f"of all on the {place}")


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length that intervals cover together. Overlaps count once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
