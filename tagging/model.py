"""A trained model: waves in, logits out, in one file that says all that is needed to rebuild it."""
import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tagging.augment import lighting, mask_freq, mask_time, resize
from tagging.errors import TaggingError
from tagging.network import build_network
from tagging.recipe import Recipe, checked, demand, recipe_from_dict
from tagging.weights import read_weights, write_weights

KIND = "audio-tagging model 1"      # raise the number when older code would read a newer file wrongly


@dataclass(frozen=True)
class About:
    """What a file of weights says of itself."""
    stage: str                     # noisy or curated
    fold: int                      # the fold that the model did not see; from 1
    classes: tuple[str, ...]       # in the submission's order
    sample_rate: int               # Hz
    recipe: Recipe
    mean: float = 0.0              # of the log-mel of the training clips, dB
    std: float = 1.0               # dB
    score: float | None = None     # lwlrap of the out-of-fold predictions


class Model(nn.Module):
    """Front end and network."""

    def __init__(self, about: About):
        super().__init__()
        self.about = about
        self.log_mel = about.recipe.log_mel(about.sample_rate)
        # A network that takes one size only is built for the one that both stages end on.
        self.network = build_network(about.recipe.network, len(about.classes), about.recipe.curated.sizes[-1])

    @property
    def device(self) -> torch.device:
        return self.network.head.weight.device

    def place(self, device: torch.device) -> "Model":
        """Move to the device, in the memory layout that is fast there."""
        self.to(device)
        if device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)
        return self

    def amend(self, **changes: object) -> None:
        """Set fields of `about` that are known only later: mean, std, score."""
        self.about = dataclasses.replace(self.about, **changes)

    def images(self, waves: torch.Tensor, masks: torch.Generator | None = None,
               lights: torch.Generator | None = None) -> torch.Tensor:
        """Normalised log-mel images, augmented where a generator is given.

        Args:
            waves: (batch, samples) int16, or float in [-1, 1).
        Returns:
            (batch, 1, mels, frames).
        """
        recipe = self.about.recipe
        images = (self.log_mel(waves) - self.about.mean) / self.about.std
        if masks:
            images = mask_freq(mask_time(images, recipe.mask_width, masks), recipe.mask_width, masks)
        if lights and recipe.lighting:
            images = lighting(images, recipe.lighting, recipe.lighting_chance, lights)
        return images

    def fit_size(self, images: torch.Tensor, size: int | None = None) -> torch.Tensor:
        """Resize to `size` pixels, by default the size that the stage ends on, unless the network takes one only."""
        schedule = self.about.recipe.schedule(self.about.stage)
        return resize(images, self.network.image_size or size or schedule.sizes[-1])

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> logits (batch, classes)."""
        return self.network(self.fit_size(self.images(waves)))

    def save(self, path: Path) -> None:
        write_weights(path, KIND, self.network.state_dict(), dataclasses.asdict(self.about))


def network_shapes(recipe: Recipe, classes: tuple[str, ...]) -> dict[str, torch.Size]:
    """The shape of each tensor of the network, which is built without taking memory."""
    with torch.device("meta"):
        network = build_network(recipe.network, len(classes), recipe.curated.sizes[-1])
    return {name: value.shape for name, value in network.state_dict().items()}


def load_model(path: Path, device: torch.device = torch.device("cpu")) -> Model:  # noqa: B008, it is immutable
    """Rebuild a model from its file, in evaluation mode.

    Raises:
        TaggingError: the file is missing, damaged, or of another version.
    """
    remedy = "Train the fold again, or copy the file again from where it came."
    weights, about = read_weights(path, KIND, remedy)
    try:
        about |= {"classes": tuple(about["classes"]), "recipe": recipe_from_dict(about["recipe"])}
        about = checked(About, about)
        demand(about.stage in ("noisy", "curated"), f"there is no stage '{about.stage}'")
        demand(math.isfinite(about.mean) and math.isfinite(about.std) and about.std > 0,
               f"mean {about.mean} and std {about.std} cannot be used")
        # First without memory: a small file may name a network of gigabytes.
        demand({name: value.shape for name, value in weights.items()} == network_shapes(about.recipe, about.classes),
               "its tensors are not those of its network")
        model = Model(about)
        model.network.load_state_dict(weights)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError, TaggingError) as error:
        raise TaggingError(f"{path} does not fit this version: {error} {remedy}") from error
    return model.place(device).eval()


@contextmanager
def explain_memory(remedy: str) -> Iterator[None]:
    """Turn the device's running out of memory into an error of ours that says how much was wanted.

    Raises:
        TaggingError: what torch says of it, and `remedy`.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        # The first sentences tell what was wanted and what there is; the rest is advice on torch's allocator.
        said = ". ".join(str(error).split(". ")[:3]) or "The host has too little memory"
        raise TaggingError(f"{said.rstrip('.')}. {remedy}") from error


def choose_device(name: str) -> torch.device:
    """auto is the GPU where there is one.

    Raises:
        TaggingError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).add_(1)       # a GPU that is too old for this torch is found out here
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TaggingError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}. "
                           "Choose auto, cpu or cuda.") from error
    return device
