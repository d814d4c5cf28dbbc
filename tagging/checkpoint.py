"""The state of a training that is under way, whole enough to go on to the same bits."""
import dataclasses
import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from fastai.optimizer import Lookahead

from tagging.errors import TaggingError
from tagging.model import Model
from tagging.weights import read_weights, write_weights

KIND = "audio-tagging checkpoint 1"


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


def save_checkpoint(path: Path, model: Model, optimiser: Lookahead, progress: Progress) -> None:
    """Write network, optimiser and progress in one file.

    Raises:
        TaggingError: the file could not be written; the one before is unchanged.
    """
    state = optimiser.state_dict()
    tensors = {f"network.{name}": value for name, value in model.network.state_dict().items()}
    scalars = []
    for number, values in enumerate(state["state"]):            # one a parameter
        tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items() if torch.is_tensor(value)}
        scalars.append({name: value for name, value in values.items() if not torch.is_tensor(value)})
    for number, slow in enumerate(chain.from_iterable(state["slow_weights"] or [])):
        tensors[f"slow.{number}"] = slow
    if progress.losses:
        tensors["losses"] = torch.stack(progress.losses)
    write_weights(path, KIND, tensors, {
        "model": dataclasses.asdict(model.about), "scalars": scalars, "count": state["count"],
        "progress": {name: value for name, value in vars(progress).items() if name != "losses"}})


def load_checkpoint(path: Path, model: Model, optimiser: Lookahead) -> Progress:
    """Bring network, normalisation and optimiser back to what `save_checkpoint` saw.

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
        parameters = list(chain.from_iterable(optimiser.param_lists))
        state = optimiser.state_dict()["state"]
        for number, (parameter, values) in enumerate(zip(parameters, state, strict=True)):
            moments = part(tensors, f"optimiser.{number}.")
            # In the parameter's own memory layout, which on a GPU is not the file's.
            values |= about["scalars"][number] | {
                name: torch.empty_like(parameter).detach().copy_(value) for name, value in moments.items()}
        slow = part(tensors, "slow.")
        if slow:
            optimiser._copy_weights()
            for number, weights in enumerate(chain.from_iterable(optimiser.slow_weights)):
                weights.copy_(slow[str(number)])
        optimiser.count = about["count"]
        return Progress(**about["progress"], losses=list(tensors.get("losses", [])))
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise TaggingError(f"{path} does not fit this version: {error}. {remedy}") from error


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
