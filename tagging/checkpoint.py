"""The state of a training that is under way, whole enough to go on to the same bits."""
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fastai.optimizer import Lookahead

from tagging.model import Model
from tagging.weights import read_weights, write_weights

KIND = "audio-tagging checkpoint 1"


@dataclass
class Progress:
    """How far a training has come. Random numbers need no place here: each batch draws from its own seed."""
    rows: list[dict] = field(default_factory=list)              # of the log, one a finished epoch
    step: int = 0                                               # finished steps of the epoch under way
    losses: list[torch.Tensor] = field(default_factory=list)    # of those steps
    share: float = 0.0                                          # of the cycle that is done, as fastai counts it
    rate: float = 0.0                                           # learning rate of the last step

    @property
    def epoch(self) -> int:
        """Finished epochs, over all cycles."""
        return len(self.rows)

    def end_step(self, loss: torch.Tensor, share: float, rate: float) -> None:
        self.losses.append(loss)
        self.step, self.share, self.rate = self.step + 1, share, rate

    def end_epoch(self, row: dict) -> None:
        self.rows.append(row)
        self.step, self.losses = 0, []


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
    for number, slow in enumerate(flatten(state["slow_weights"])):
        tensors[f"slow.{number}"] = slow
    if progress.losses:
        tensors["losses"] = torch.stack(progress.losses)
    write_weights(path, KIND, tensors, {
        "mean": model.about.mean, "deviation": model.about.deviation, "scalars": scalars, "count": state["count"],
        "rows": progress.rows, "step": progress.step, "share": progress.share, "rate": progress.rate})


def load_checkpoint(path: Path, model: Model, optimiser: Lookahead) -> Progress:
    """Bring network, normalisation and optimiser back to what `save_checkpoint` saw.

    Raises:
        TaggingError: the file is damaged or of another version.
    """
    tensors, about = read_weights(path, KIND, "Delete it, and the fold starts again from its first epoch.")
    device = next(model.parameters()).device
    tensors = {name: value.to(device) for name, value in tensors.items()}
    model.network.load_state_dict(part(tensors, "network."))
    model.describe(mean=about["mean"], deviation=about["deviation"])
    state = optimiser.state_dict()
    for number, (values, scalars) in enumerate(zip(state["state"], about["scalars"])):
        values |= scalars | part(tensors, f"optimiser.{number}.")
    slow = part(tensors, "slow.")
    if slow:
        optimiser._copy_weights()
        for number, weights in enumerate(flatten(optimiser.slow_weights)):
            weights.copy_(slow[str(number)])
    optimiser.count = about["count"]
    return Progress(about["rows"], about["step"], list(tensors.get("losses", [])), about["share"],
                    about["rate"])


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def flatten(groups: list[list[torch.Tensor]] | None) -> list[torch.Tensor]:
    return [weights for group in groups or [] for weights in group]
