"""A trained model: waves in, logits out, in one file that contains everything needed to rebuild it."""
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tagging.data.tables import check_same
from tagging.errors import TaggingError
from tagging.modeling.logmel import build_log_mel
from tagging.modeling.network import build_network
from tagging.modeling.transforms import resize
from tagging.modeling.weights import read_weights, write_weights
from tagging.recipe import STAGES, Recipe, require
from tagging.schema import KINDS, upgrade_model
from tagging.settings import checked, recipe_from_dict

KIND = KINDS["model"][-1]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelMetadata:
    """The description in a weights file."""
    stage: str                     # noisy or curated
    fold: int                      # the fold that the model is validated on, from 1
    classes: tuple[str, ...]       # in the submission's order
    sample_rate: int               # Hz
    recipe: Recipe
    mean: float = 0.0              # of the log-mel of the training clips, dB
    std: float = 1.0               # dB
    score: float | None = None     # lwlrap of the out-of-fold predictions


class Model(nn.Module):
    """Front end and network."""

    def __init__(self, metadata: ModelMetadata):
        super().__init__()
        self.metadata = metadata
        recipe = metadata.recipe
        self.log_mel: nn.Module = build_log_mel(recipe, metadata.sample_rate)
        # A network with a fixed image size is built for the size on which both stages end.
        self.network = build_network(recipe.network, len(metadata.classes), recipe.curated.sizes[-1])

    @property
    def device(self) -> torch.device:
        return self.network.head.weight.device

    def to_device(self, device: torch.device) -> "Model":
        """Move to the device, in the memory layout that is fast there."""
        self.to(device)
        if device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]     # torch's stubs lack it
        return self

    def update(self, **changes: Any) -> None:
        """Set fields of the metadata that become known during training: mean, std, score."""
        self.metadata = dataclasses.replace(self.metadata, **changes)

    def images(self, waves: torch.Tensor) -> torch.Tensor:
        """Compute normalised log-mel images.

        Args:
            waves: (batch, samples) int16, or float in [-1, 1).
        Returns:
            (batch, 1, mels, frames).
        """
        return (self.log_mel(waves) - self.metadata.mean) / self.metadata.std

    def resize(self, images: torch.Tensor, size: int | None = None) -> torch.Tensor:
        """Resize (batch, 1, mels, frames) to the size that the network accepts, else to `size`, else to the last size
        of the stage: (batch, 1, size, size)."""
        schedule = self.metadata.recipe.schedule(self.metadata.stage)
        return resize(images, self.network.image_size or size or schedule.sizes[-1])

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> logits (batch, classes)."""
        return self.network(self.resize(self.images(waves)))

    def save(self, path: Path) -> None:
        """Write the weights file."""
        write_weights(path, KIND, self.network.state_dict(), dataclasses.asdict(self.metadata))


def network_shapes(recipe: Recipe, classes: tuple[str, ...]) -> dict[str, torch.Size]:
    """Return the shape of each tensor of the network. This takes no memory."""
    with torch.device("meta"):
        network = build_network(recipe.network, len(classes), recipe.curated.sizes[-1])
    return {name: value.shape for name, value in network.state_dict().items()}


def check_classes(path: Path, found: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """
    Raises:
        TaggingError: the model in a file was trained on other classes than those of the data, or in another order.
    """
    where = f"{path}, compared with the competition folder,"
    check_same(found, classes, where, "classes", "Use the data that the run was trained on.")
    if found != tuple(classes):
        raise TaggingError(f"{where} has its classes in another order. Use the data that it was trained on.")


def load_model(path: Path, device: torch.device = CPU, commit: str | None = None) -> Model:
    """Rebuild a model from its file, in evaluation mode.

    Args:
        commit: that trained it, which files from before c9f85f2 do not tell.
    Raises:
        TaggingError: the file is missing, damaged, or of a newer version.
    """
    remedy = (f"Delete {path.with_suffix('.json').name} beside it and train again, or copy the file again from its "
              "source.")
    weights, about, kind = read_weights(path, KINDS["model"], remedy)
    try:
        about = upgrade_model(about, kind, commit)
        about |= {"classes": tuple(about["classes"]), "recipe": recipe_from_dict(about["recipe"])}
        metadata = checked(ModelMetadata, about)
        require(metadata.stage in STAGES, f"there is no stage '{metadata.stage}'")
        require(math.isfinite(metadata.mean) and math.isfinite(metadata.std) and metadata.std > 0,
                f"mean {metadata.mean} and std {metadata.std} cannot be used")
        # First without memory: a small file may describe a network of gigabytes.
        require({name: value.shape for name, value in weights.items()}
                == network_shapes(metadata.recipe, metadata.classes), "its tensors do not match its network")
        model = Model(metadata)
        model.network.load_state_dict(weights)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError, TaggingError) as error:
        raise TaggingError(f"{path} does not fit this version: {error} {remedy}") from error
    return model.to_device(device).eval()
