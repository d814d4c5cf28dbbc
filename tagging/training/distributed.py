"""Several processes, started by torchrun, that train each fold together. The weights are those of one process up to
rounding.

Every rank draws each batch with the same random numbers and takes its shard of the clips. Batch norm, gradients and
loss are summed over the ranks. Rank 0 alone prints and writes. Without torchrun there is one rank, and these functions
do nothing.
"""
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.distributed.nn.functional import all_reduce

from tagging.data.folds import ClipDataset
from tagging.errors import TaggingError
from tagging.utils import interrupts
from tagging.utils.interrupts import Stopped

Value = TypeVar("Value")
Gathered = TypeVar("Gathered", np.ndarray, pd.DataFrame)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


@contextmanager
def init_distributed() -> Iterator[None]:
    """Decorates the main function of a script: start the process group, and let one rank print an error of all."""
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    store, number, count = next(dist.rendezvous("env://"))      # torchrun's own store, which outlives a rank
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", store=store, rank=number,
                            world_size=count)
    with ExitStack() as silence:
        if not is_main():
            nowhere = silence.enter_context(open(os.devnull, "w"))
            silence.enter_context(redirect_stdout(nowhere))
            silence.enter_context(redirect_stderr(nowhere))
        try:
            with explain_lost_rank():
                yield
                barrier()
        except (TaggingError, OSError, Stopped):
            if store.add("reported", 1) > 1:    # the first rank reports; the others ended for the same reason
                sys.exit(2)
            raise
    dist.destroy_process_group()


@contextmanager
def explain_lost_rank() -> Iterator[None]:
    """
    Raises:
        TaggingError: another rank has ended, which breaks the communication with it.
        Stopped: the same, after a signal.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistBackendError) and "gloo" not in str(error):   # gloo has no class of its own
            raise
        interrupts.stop_if_asked()
        raise TaggingError("a process of this training has ended, so all processes end. Run the same command again to "
                           "resume.") from error


def local_shard(batch: torch.Tensor) -> torch.Tensor:
    """Return this rank's shard of a batch. Shards differ by at most one clip."""
    return batch.tensor_split(world_size())[rank()]


def broadcast(value: Value) -> Value:
    """Return the value of rank 0 on all ranks. Another machine may see a new file later, for example."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def defer_signals() -> AbstractContextManager[None]:
    """Defer signals to the next `sync_stop` if there are several ranks: the others would wait for a rank that stops
    alone."""
    return interrupts.defer_signals(stop_at_end=False) if world_size() > 1 else nullcontext()


def sync_stop() -> None:
    """Stop all ranks at the same place if a signal asked one of them to. This takes 0.2 ms and does not wait for a GPU.

    Raises:
        Stopped: on all ranks.
    """
    number = torch.tensor(interrupts.pending_signal())
    if world_size() > 1:
        dist.all_reduce(number, dist.ReduceOp.MAX)
    if number:
        raise Stopped(int(number))


def all_reduce_gradients(network: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Replace the gradients by their sums over all ranks. The loss of each rank is its part of the mean of the batch.

    This is one all-reduce of one vector. DistributedDataParallel would overlap it with the backward pass, but it
    averages over ranks, whose shards can differ in size, and would have to handle --micro-batches.

    Returns:
        the loss of the whole batch.
    """
    if world_size() == 1:
        return loss
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    sums = torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)])
    dist.all_reduce(sums)
    for gradient, values in zip(gradients, sums[1:].split([gradient.numel() for gradient in gradients])):
        gradient.copy_(values.view(gradient.shape))
    return sums[0].clone()      # a view would keep the whole vector in memory


def shard_clips(clips: ClipDataset, whole: bool) -> ClipDataset:
    """Return this rank's shard of the clips.

    Args:
        whole: return all clips. Random crops are drawn for all of them at once.
    """
    if world_size() == 1 or whole:
        return clips
    keep = np.array_split(np.arange(len(clips)), world_size())[rank()]
    return ClipDataset(clips.fnames[keep], clips.store.subset(keep), clips.targets[keep])


def gather_clips(values: Gathered, whole: bool) -> Gathered:
    """Join what the ranks computed for the shards of `shard_clips`, an array or a table with a row for each clip. The
    result is the same on all ranks."""
    if world_size() == 1 or whole:
        return values
    shards: list = [None] * world_size()
    dist.all_gather_object(shards, values)
    return pd.concat(shards) if isinstance(values, pd.DataFrame) else np.concatenate(shards)


def sync_batch_norm(network: nn.Module) -> None:
    """Let batch norm see the whole batch, not this rank's shard. The names of the weights stay the same."""
    if world_size() == 1:
        return
    convert_sync_batchnorm(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.SyncBatchNorm) and child.weight.device.type == "cpu":
                setattr(module, name, SyncBatchNormOnCpu(child))


class SyncBatchNormOnCpu(nn.SyncBatchNorm):
    """SyncBatchNorm for CPUs, which torch's own does not support.

    Args:
        norm: the layer to replace, whose parameters and statistics are shared. timm's layers contain an activation.
    """

    def __init__(self, norm: nn.SyncBatchNorm):
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        children = dict(norm.named_children())          # of timm's layer: dropout and activation
        self.after = nn.Sequential(*(children[name] for name in ("drop", "act") if name in children))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, channels, ...) -> the same shape."""
        if not self.training:
            return self.after(super().forward(images))
        over = [0, *range(2, images.dim())]
        along = [1, -1] + [1] * (images.dim() - 2)      # the shape of one value for each channel
        count = images.new_tensor([images.numel() / images.shape[1]])                       # values of each channel
        sums, count = all_reduce(torch.cat([images.sum(over), count])).tensor_split([-1])
        mean = sums / count                                                                 # (channels,)
        centred = images - mean.view(along)
        variance = all_reduce(centred.square().sum(over)) / count                           # (channels,)
        momentum, running_mean, running_var = self.momentum, self.running_mean, self.running_var
        assert momentum is not None and running_mean is not None and running_var is not None
        with torch.no_grad():
            self.num_batches_tracked += 1       # type: ignore[assignment, operator]    # a buffer, by torch's stubs None
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * count / (count - 1), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()                                 # (channels,)
        return self.after(centred * scale.view(along) + self.bias.view(along))
