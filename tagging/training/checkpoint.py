"""Checkpoints: the state of a training, complete enough to resume with identical results."""
import copy
import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from tagging.errors import TaggingError
from tagging.modeling.model import Model
from tagging.modeling.weights import read_weights, write_weights
from tagging.schema import KINDS, upgrade_checkpoint
from tagging.training.optimizer import STATE, Ranger

KIND = KINDS["checkpoint"][-1]


@dataclass
class Progress:
    """How far training has progressed. It needs no random states, because each batch draws from its own seed."""
    rows: list[dict] = field(default_factory=list)              # of the log, one for each finished epoch
    step: int = 0                                               # finished steps of the current epoch
    losses: list[torch.Tensor] = field(default_factory=list)    # of these steps
    seconds: float = 0.0                                        # spent on these steps
    pct_train: float = 0.0                                      # fastai's: the finished share of the cycle
    lr: float = 0.0                                             # of the last step

    @property
    def epoch(self) -> int:
        """The number of finished epochs, over all cycles."""
        return len(self.rows)

    def end_step(self, loss: torch.Tensor, pct_train: float, lr: float) -> None:
        self.losses.append(loss)
        self.step, self.pct_train, self.lr = self.step + 1, pct_train, lr

    def end_epoch(self, row: dict) -> None:
        self.rows.append(row)
        self.step, self.losses, self.seconds = 0, [], 0.0


class CheckpointWriter:
    """Writes network, optimizer and progress into one file, in a thread: on a GPU this takes as long as a short epoch.

    Attributes:
        path: of the file. It always contains the last state that was written completely.
    """

    def __init__(self, path: Path):
        self.path, self.thread = path, ThreadPoolExecutor(1)
        self.writing: Future | None = None

    def write(self, model: Model, optimizer: Ranger, progress: Progress) -> None:
        """Copy the state, and start to write it when the previous one is written.

        Raises:
            TaggingError: the previous state could not be written.
        """
        self.wait()
        tensors = {f"network.{name}": value for name, value in model.network.state_dict().items()}
        for number, parameter in enumerate(parameters(optimizer)):
            tensors |= {f"optimiser.{number}.{name}": value for name, value in optimizer.state[parameter].items()}
        if progress.losses:
            tensors["losses"] = torch.stack(progress.losses)
        tensors = {name: value.detach().clone() for name, value in tensors.items()}     # training continues meanwhile
        about = {"model": dataclasses.asdict(model.metadata),
                 "groups": [{name: value for name, value in group.items() if name != "params"}
                            for group in optimizer.param_groups],
                 "progress": {name: value for name, value in vars(progress).items() if name != "losses"}}
        self.writing = self.thread.submit(write_weights, self.path, KIND, tensors, copy.deepcopy(about))

    def wait(self) -> None:
        """Wait until the file is written.

        Raises:
            TaggingError: it could not be written. The previous file is unchanged.
        """
        if self.writing:
            writing, self.writing = self.writing, None
            writing.result()


def load_checkpoint(path: Path, model: Model, optimizer: Ranger) -> Progress:
    """Restore network, normalisation and optimizer from a checkpoint.

    Raises:
        TaggingError: the file is damaged, or belongs to another version or another model.
    """
    remedy = "Delete it to restart the fold from its first epoch."
    tensors, about, kind = read_weights(path, KINDS["checkpoint"], remedy)
    tensors = {name: value.to(model.device) for name, value in tensors.items()}
    place = {parameter: number for number, parameter in enumerate(model.network.parameters())}
    try:
        tensors, about = upgrade_checkpoint(tensors, about, kind, [place[each] for each in parameters(optimizer)])
        model.update(mean=about["model"]["mean"], std=about["model"]["std"])
        metadata = json.loads(json.dumps(dataclasses.asdict(model.metadata)))       # tuples become lists
        if metadata | about["model"] != metadata:
            raise TaggingError(f"{path} belongs to another stage, fold or recipe. {remedy}")
        model.network.load_state_dict(with_prefix(tensors, "network."))
        for group, values in zip(optimizer.param_groups, about["groups"], strict=True):
            for name in group.keys() - {"params"}:
                value = values.get(name, group[name])           # kind 1 has only the step
                if not isinstance(value, type(group[name])):
                    raise TypeError(f"the optimizer's {name} is {value!r}")
                group[name] = value
        for number, parameter in enumerate(parameters(optimizer)):
            if state := with_prefix(tensors, f"optimiser.{number}."):
                # In the memory layout of the parameter, which differs from the file's on a GPU.
                optimizer.state[parameter] = {name: torch.empty_like(parameter).detach().copy_(state[name])
                                              for name in STATE}
        return Progress(**about["progress"], losses=list(tensors.get("losses", [])))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise TaggingError(f"{path} does not fit this version: {error}. {remedy}") from error


def parameters(optimizer: Ranger) -> Iterator[nn.Parameter]:
    return chain.from_iterable(group["params"] for group in optimizer.param_groups)


def with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
