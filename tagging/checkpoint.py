"""The state of a training that is under way, whole enough to go on to the same bits."""
import copy
import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from tagging.errors import TaggingError
from tagging.model import Model
from tagging.ranger import STATE, Ranger
from tagging.weights import read_weights, write_weights

KIND = "audio-tagging checkpoint 2"


@dataclass
class Progress:
    """How far a training has come. Random numbers need no place here: each batch draws from its own seed."""
    rows: list[dict] = field(default_factory=list)              # of the log, one a finished epoch
    step: int = 0                                               # finished steps of the epoch under way
    losses: list[torch.Tensor] = field(default_factory=list)    # of those steps
    seconds: float = 0.0                                        # spent on those steps
    pct_train: float = 0.0                                      # fastai's: the share of the cycle that is done
    lr: float = 0.0                                             # of the last step

    @property
    def epoch(self) -> int:
        """Finished epochs, over all cycles."""
        return len(self.rows)

    def end_step(self, loss: torch.Tensor, pct_train: float, lr: float) -> None:
        self.losses.append(loss)
        self.step, self.pct_train, self.lr = self.step + 1, pct_train, lr

    def end_epoch(self, row: dict) -> None:
        self.rows.append(row)
        self.step, self.losses, self.seconds = 0, [], 0.0


class CheckpointWriter:
    """Writes network, optimiser and progress in one file, in a thread of its own: on a GPU that takes as long as a
    short epoch.

    Attributes:
        path: of the file. It holds the last state that was written whole.
    """

    def __init__(self, path: Path):
        self.path, self.thread, self.writing = path, ThreadPoolExecutor(1), None

    def write(self, model: Model, optimiser: Ranger, progress: Progress) -> None:
        """Copy the state, and begin to write it when the one before is written.

        Raises:
            TaggingError: the one before could not be written.
        """
        self.wait()
        tensors = {f"network.{name}": value for name, value in model.network.state_dict().items()}
        for number, parameter in enumerate(parameters(optimiser)):
            tensors |= {f"optimiser.{number}.{name}": value for name, value in optimiser.state[parameter].items()}
        if progress.losses:
            tensors["losses"] = torch.stack(progress.losses)
        tensors = {name: value.detach().clone() for name, value in tensors.items()}     # the training goes on
        about = {"model": dataclasses.asdict(model.about),
                 "groups": [{name: value for name, value in group.items() if name != "params"}
                            for group in optimiser.param_groups],
                 "progress": {name: value for name, value in vars(progress).items() if name != "losses"}}
        self.writing = self.thread.submit(write_weights, self.path, KIND, tensors, copy.deepcopy(about))

    def wait(self) -> None:
        """
        Raises:
            TaggingError: what was last begun could not be written; the file before it is unchanged.
        """
        if self.writing:
            writing, self.writing = self.writing, None
            writing.result()


def load_checkpoint(path: Path, model: Model, optimiser: Ranger) -> Progress:
    """Bring network, normalisation and optimiser back to what was written.

    Raises:
        TaggingError: the file is damaged, of another version, or of another model.
    """
    remedy = "Delete it, and the fold starts again from its first epoch."
    tensors, about = read_weights(path, KIND, remedy)
    tensors = {name: value.to(model.device) for name, value in tensors.items()}
    try:
        model.amend(mean=about["model"]["mean"], std=about["model"]["std"])
        # Through JSON, which gives tuples back as lists.
        if about["model"] != json.loads(json.dumps(dataclasses.asdict(model.about))):
            raise TaggingError(f"{path} belongs to another stage, fold or recipe. {remedy}")
        model.network.load_state_dict(part(tensors, "network."))
        for group, values in zip(optimiser.param_groups, about["groups"], strict=True):
            for name in group.keys() - {"params"}:
                if not isinstance(values[name], type(group[name])):
                    raise TypeError(f"the optimiser's {name} is {values[name]!r}")
                group[name] = values[name]
        for number, parameter in enumerate(parameters(optimiser)):
            if state := part(tensors, f"optimiser.{number}."):
                # In the parameter's own memory layout, which on a GPU is not the file's.
                optimiser.state[parameter] = {name: torch.empty_like(parameter).detach().copy_(state[name])
                                              for name in STATE}
        return Progress(**about["progress"], losses=list(tensors.get("losses", [])))
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise TaggingError(f"{path} does not fit this version: {error}. {remedy}") from error


def parameters(optimiser: Ranger) -> Iterator[nn.Parameter]:
    return chain.from_iterable(group["params"] for group in optimiser.param_groups)


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
