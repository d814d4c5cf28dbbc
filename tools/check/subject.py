"""What is checked: the first fold of a stage, as the training would see it. And what was found."""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tagging.data.competition import Competition
from tagging.data.folds import ClipDataset, FoldedClips
from tagging.modeling.model import Model, ModelMetadata
from tagging.recipe import Recipe, Schedule
from tagging.reporting.sections import Block
from tagging.training.batches import TrainingBatches, measure_normalisation
from tagging.utils.seeds import seed_for

FOLD = 1        # the fold whose model is checked


@dataclass(frozen=True)
class Finding:
    """The result of one check."""
    what: str
    measured: str                   # what was measured, in full sentences
    wrong: str = ""                 # what is wrong and what to do; "" if nothing is
    skipped: str = ""               # the reason why the check could not be completed
    blocks: Sequence[Block] = ()    # figures and tables

    @property
    def verdict(self) -> str:
        return f"wrong: {self.wrong}" if self.wrong else f"not checked: {self.skipped}" if self.skipped else "fine"


@dataclass(frozen=True)
class Subject:
    """A stage of a recipe with its clips and the device."""
    stage: str
    recipe: Recipe
    competition: Competition
    folded: FoldedClips
    noisy: FoldedClips | None       # clips that are mixed into the batches
    device: torch.device
    micro_batches: int = 1

    @property
    def schedule(self) -> Schedule:
        return self.recipe.schedule(self.stage)

    @property
    def train(self) -> ClipDataset:
        return self.folded.train(FOLD)

    @property
    def batch_size(self) -> int:
        """The number of clips in a batch, fewer than in the recipe if there are fewer."""
        return min(self.recipe.batch_size, len(self.train))

    def model(self, normalised: tuple[float, float] | None = None) -> Model:
        """Build the model as at the start of the training.

        Args:
            normalised: mean and standard deviation of the log-mel in dB. None measures them, as the training does.
        """
        metadata = ModelMetadata(self.stage, FOLD, self.competition.classes, self.folded.store.sample_rate, self.recipe)
        torch.manual_seed(seed_for(self.recipe.seed, self.stage, FOLD, "weights"))
        model = Model(metadata).to_device(self.device)
        if self.recipe.normalise:
            mean, std = normalised or measure_normalisation(model, self.train.store)
            model.update(mean=mean, std=std)
        return model

    def batches(self, model: Model, size: int, **knobs: object) -> TrainingBatches:
        """Return the batches of the training.

        Args:
            size: side of the images in pixels.
            knobs: knobs of the recipe that differ, also for the model from now on.
        """
        model.update(recipe=replace(self.recipe, **knobs))  # type: ignore[arg-type]
        batches = TrainingBatches(model, self.train, self.noisy.train(FOLD) if self.noisy else None)
        batches.image_size = size
        return batches
