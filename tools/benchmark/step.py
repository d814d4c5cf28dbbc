"""Measure training steps of the recipe's network in images a second and FLOP/s, with and without real input."""
import time
from collections.abc import Callable, Iterator, Sized
from statistics import median
from typing import Protocol

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tagging.modeling.model import Model
from tagging.training.batches import TrainingBatches
from tagging.training.loop import build_learner
from tagging.training.optimizer import Ranger, decay_groups
from tagging.utils.devices import has_bf16
from tools.benchmark.measure import Row, Setting, a_second, seconds_of

STEPS = 100                             # largest number of steps of an epoch
SIDE = {"cuda": 8192, "cpu": 2048}      # of the matrices whose product gives the device's largest rate


class Batches(Protocol):
    """Batches of images and targets that can be read several times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator: ...


def measure_step(setting: Setting) -> Iterator[Row]:
    """Measure epochs of training steps at each image size."""
    peak, precision = matrix_rate(setting)
    yield Row(f"matrix product, {precision}", "TFLOP/s", peak, None, "the device's largest rate")
    examples = setting.examples(STEPS * setting.recipe.batch_size)
    for size in setting.sizes:
        model = setting.model()
        batches = TrainingBatches(model, examples)
        batches.image_size, steps = size, len(batches)
        batch, count = next(iter(batches)), len(batches) * batches.batch_size
        flops = training_flops(model.network, *batch) / batches.batch_size
        what = f"{size} px, batch {batches.batch_size}, {steps} steps"
        awaited = Awaited(batches)
        fixed, real = seconds_of(setting, epoch(model, [batch] * steps), epoch(model, awaited))
        fixed_rates, real_rates = a_second(count, fixed), a_second(count, real)
        yield Row(f"{what}, the same batch", "images/s", fixed_rates)
        yield Row(f"{what}, real input", "images/s", real_rates, median(real_rates) / median(fixed_rates),
                  "of the same batch")
        yield Row(f"{what}, real input takes longer by", "%", [100 * (b / a - 1) for a, b in zip(fixed, real)])
        if setting.device.type == "cpu":        # a GPU still works while the host waits
            waits = awaited.waits[-len(real):]
            yield Row(f"{what}, waiting for the input", "%", [100 * wait / taken for wait, taken in zip(waits, real)],
                      None, "target: at most 10")
        tflops = [rate * flops / 1e12 for rate in fixed_rates]
        yield Row(f"{what}, {flops / 1e9:.3g} GFLOP an image", "TFLOP/s", tflops, median(tflops) / max(peak),
                  "of the matrix product")


def matrix_rate(setting: Setting) -> tuple[list[float], str]:
    """Return the TFLOP/s of a large product of random matrices in the precision of the network, and its description."""
    device, side = setting.device, SIDE[setting.device.type]
    kind = torch.bfloat16 if has_bf16(device) else torch.float32
    left, right = torch.randn(2, side, side, device=device).to(kind)
    products = 10       # together, so that the launch of one hardly counts
    (seconds,) = seconds_of(setting, lambda: [left @ right for _ in range(products)])
    return a_second(products * 2 * side ** 3 / 1e12, seconds), f"{side} x {side}, {str(kind).removeprefix('torch.')}"


def training_flops(network: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> int:
    """Count the FLOPs of the forward and the backward pass of one batch.

    Only convolutions and matrix products count. A multiplication with its addition counts as two.
    """
    network.train()
    with FlopCounterMode(display=False) as counter:
        nn.functional.binary_cross_entropy_with_logits(network(images), targets).backward()
    network.zero_grad()
    return counter.get_total_flops()


class Awaited:
    """Batches that measure how long the training waits for them."""

    def __init__(self, batches: Batches):
        self.batches = batches
        self.waits: list[float] = []        # seconds of each epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        source, waited = iter(self.batches), 0.0
        for _ in range(len(self)):
            started = time.perf_counter()
            batch = next(source)
            waited += time.perf_counter() - started
            yield batch
        self.waits.append(waited)


def epoch(model: Model, batches: Sized) -> Callable[[], None]:
    """Return a function that trains one epoch with the recipe's optimizer each time it is called."""
    learner = build_learner(model, batches, (), Ranger(decay_groups(model.network), 1e-3))      # without validation
    return lambda: learner.fit(1, lr=1e-3, wd=model.metadata.recipe.weight_decay)
