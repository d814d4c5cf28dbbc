"""Processes, started by torchrun, that train each fold together, to the weights of one process up to rounding.

Every rank draws the whole of each batch with the same random numbers and takes its share of the clips; batch norm,
gradients and loss are summed over the ranks. Rank 0 alone prints and writes. Without torchrun there is one rank, and
nothing here does anything.
"""
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import torch
import torch.distributed as dist
from timm.layers import SyncBatchNormAct, convert_sync_batchnorm
from torch import nn
from torch.distributed.nn.functional import all_reduce

from tagging.errors import TaggingError
from tagging.model import Model
from tagging.signals import Stopped
from tagging.waves import WaveStore


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Decorates the main function of a script: the ranks meet, and what ends them is said by one of them."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    store, number, count = next(dist.rendezvous("env://"))      # the store is torchrun's own: it outlives a rank
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", store=store, rank=number,
                            world_size=count)
    with ExitStack() as silence:
        if not is_main():
            nowhere = silence.enter_context(open(os.devnull, "w"))
            silence.enter_context(redirect_stdout(nowhere))
            silence.enter_context(redirect_stderr(nowhere))
        try:
            with lost_rank_explained():
                yield
                barrier()
        except (TaggingError, OSError, Stopped):
            if store.add("said", 1) > 1:        # by the first that ended; the others end alike, or because of it
                sys.exit(2)
            raise
    dist.destroy_process_group()


@contextmanager
def lost_rank_explained() -> Iterator[None]:
    """
    Raises:
        TaggingError: another rank has ended, which breaks what is shared with it.
        Stopped: the same, after a signal, which is why.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistBackendError) and "gloo" not in str(error):   # gloo has no class for its own
            raise
        if Asked.number:
            raise Stopped(Asked.number) from None
        raise TaggingError("a process of this training has ended, and so do the others. The same command goes on from "
                           "what was finished.") from error


def own_device(name: str) -> str:
    """The device of this rank.

    Raises:
        TaggingError: one that all ranks of a machine would share, or fewer GPUs than ranks.
    """
    if size() == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise TaggingError(f"--device {name}: torchrun gives each process a GPU of its own. Choose auto, cuda or cpu.")
    number = int(os.environ["LOCAL_RANK"])
    if number >= torch.cuda.device_count():
        raise TaggingError(f"torchrun has started more processes than the {torch.cuda.device_count()} GPUs of this "
                           "machine. Lower --nproc-per-node.")
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def share(batch: torch.Tensor) -> torch.Tensor:
    """This rank's part of a batch; parts differ by one clip at most."""
    return batch.tensor_split(size())[rank()]


def told(value: object) -> object:
    """What rank 0 found, for all ranks to do the same: files may be seen later on another machine."""
    values = [value]
    if size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def barrier() -> None:
    """Wait for all ranks."""
    if size() > 1:
        dist.barrier()


class Asked:
    """The signal that asked this rank to stop while the ranks were in step."""
    number = 0


@contextmanager
def in_step() -> Iterator[None]:
    """Let signals wait for `stop_together`: the others would wait for a rank that stopped alone."""
    if size() == 1:
        yield
        return

    def remember(number: int, _frame: object) -> None:
        Asked.number = number

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_together() -> None:
    """Stop all ranks in the same place if one was asked to. It takes 0.2 ms, and no waiting for a GPU.

    Raises:
        Stopped: on all ranks.
    """
    if size() > 1:
        number = torch.tensor(Asked.number)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        if number:
            raise Stopped(int(number))


def add_up(network: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Replace the gradients by their sums over all ranks, where each rank's loss is its part of the batch's mean.

    One all-reduce of one vector. DistributedDataParallel would overlap it with the backward pass, but it means over
    the ranks, whose shares may differ in size, and would have to be told of the parts of --accumulate.

    Returns:
        the loss of the whole batch.
    """
    if size() == 1:
        return loss
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    sums = torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)])
    dist.all_reduce(sums)
    for gradient, values in zip(gradients, sums[1:].split([gradient.numel() for gradient in gradients])):
        gradient.copy_(values.view(gradient.shape))
    return sums[0].clone()      # a view would keep the whole vector, as long as the epoch's losses are kept


def predict_together(predict: Callable[..., np.ndarray], model: Model, store: WaveStore,
                     **options: object) -> np.ndarray:
    """`predict(model, store, **options)`, each rank for its share of the clips.

    Returns:
        (clips, classes), the same on all ranks.
    """
    if size() == 1 or model.about.recipe.single_crop:       # whose random crops are drawn for all clips at once
        return predict(model, store, **options)
    clips = np.array_split(np.arange(len(store)), size())[rank()]
    parts = [None] * size()
    dist.all_gather_object(parts, predict(model, store.subset(clips), **options))
    return np.concatenate(parts)


def share_batch_norm(network: nn.Module) -> None:
    """Let batch norm see the batch, not this rank's share of it. The names of the weights stay as they are."""
    if size() > 1:
        convert_sync_batchnorm(network)
        for module in network.modules():
            if isinstance(module, nn.SyncBatchNorm) and module.running_mean.device.type == "cpu":
                module.__class__ = SyncBatchNormActOnCpu


class SyncBatchNormOnCpu(nn.SyncBatchNorm):
    """Torch's own takes GPUs only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, channels, ...) -> the same shape."""
        if not self.training:
            return super().forward(images)
        over = [0, *range(2, images.dim())]
        along = [1, -1] + [1] * (images.dim() - 2)      # the shape of a value a channel
        count = images.new_tensor([images.numel() / images.shape[1]])                       # values a channel
        sums, count = all_reduce(torch.cat([images.sum(over), count])).tensor_split([-1])
        mean = sums / count                                                                 # (channels,)
        centred = images - mean.view(along)
        variance = all_reduce(centred.square().sum(over)) / count                           # (channels,)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()                                 # (channels,)
        return centred * scale.view(along) + self.bias.view(along)


class SyncBatchNormActOnCpu(SyncBatchNormAct, SyncBatchNormOnCpu):
    """With the activation that timm's layers have within."""
