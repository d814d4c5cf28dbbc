"""The knobs as dataclasses, and the named recipes.

A recipe is an instance of `Recipe`. The command line and its --help are generated from the dataclasses: each knob is
one line, and its comment is its help text. Lengths in samples are at 44.1 kHz; at another sample rate they have the
same duration.
"""
from dataclasses import dataclass, replace
from typing import Literal

from tagging.errors import TaggingError

STAGES = ("noisy", "curated")       # in the order of training
SOURCE_COLUMN = "source"            # of a training csv: the recording of each clip, where it has one


@dataclass(frozen=True)
class Schedule:
    """One stage of training: one or more cycles of a flat learning rate with a cosine decay at the end."""
    epochs: tuple[int, ...]             # Number of epochs in each training cycle.
    lrs: tuple[float, ...]              # Learning rate of each cycle: flat for 3/4 of it, then a cosine to zero.
    sizes: tuple[int, ...]              # Side of the square image in each cycle, in pixels.
    mixup: float = 0.0                  # Alpha of the beta distribution of mixup. 0 turns mixup off.
    speed: float = 0.0                  # Largest change of playback speed: 0.2 is up to 1.2 times faster or slower.
    wave_mix: float = 0.0               # Probability of adding another clip to a crop, with the labels of both.


@dataclass(frozen=True)
class NetworkKnobs:
    """The network."""
    network: str = "xresnet50"          # Name of the network: xresnet18, 34, 50 or 101, or timm:NAME for any of timm's.


@dataclass(frozen=True)
class AudioKnobs:
    """From a sound file to a log-mel image."""
    trim_db: float = 20.0               # Trim ends that are this many dB below the loudest frame. 0 keeps them.
    crop_seconds: float = 2.0           # Length of a crop in training and of a window in prediction, in seconds.
    n_fft: int = 2560                   # Length of the Fourier transform, in samples at 44.1 kHz.
    n_window: int = 1024                # Length of the Hann window, in samples at 44.1 kHz.
    mels: int = 128                     # Number of mel bands, the rows of an image.
    frames: int = 128                   # Number of frames, the columns of an image. This sets the hop.
    f_min: float = 20.0                 # Lowest frequency of the mel bands, in Hz.
    f_max: float = 20_000.0             # Highest frequency of the mel bands, in Hz. Half the sample rate is the limit.
    top_db: float = 60.0                # Clip the image this many dB below its loudest cell.
    old_rounding: bool = False          # Round n_fft and hop as commits before 37d0e82 did, for runs of that time only.
    normalise: bool = True              # Normalise images to mean 0 and deviation 1 of the fold's training clips.


@dataclass(frozen=True)
class AugmentationKnobs:
    """Random changes of the images in training. Mixup, speed and mixing of waveforms belong to a stage."""
    mask_width: tuple[int, int] = (0, 8)  # Smallest and largest width of the time and frequency mask, in bins.
    lighting: float = 0.2               # Largest random change of brightness and contrast. 0 turns it off.
    lighting_chance: float = 0.75       # Probability of a brightness change, and of a contrast change, for each image.


@dataclass(frozen=True)
class FoldKnobs:
    """Folds."""
    fold_count: int = 5                 # Number of folds, each with a model of its own.
    fold_seed: int = 42                 # Seed of the folds. 42 gives the published folds.
    stratified: bool = False            # Keep the class counts of the folds even.
    source_column: str = SOURCE_COLUMN  # Column of the training csv with the recording of a clip, which no fold splits.


@dataclass(frozen=True)
class TrainingKnobs(FoldKnobs):
    """Folds and optimisation."""
    noisy_share: float = 0.0            # Share of each batch of the curated stage that comes from the noisy set.
    batch_size: int = 64                # Number of clips in a batch.
    weight_decay: float = 0.01          # Weight decay of the optimizer.
    seed: int = 0                       # Seed of all random numbers except the folds.


@dataclass(frozen=True)
class EvaluationKnobs:
    """Validation and prediction."""
    window_overlap: float = 0.5         # Smallest overlap of neighbouring windows, as a share of a window.
    pooling: Literal["mean", "maximum"] = "mean"  # How the logits of a clip's windows are combined.
    epoch_windows: int = 1              # Windows of a clip for the quick score after each epoch. 0 uses the whole clip.
    view_speeds: tuple[float, ...] = ()  # Playback speeds of the first additional views of a test clip.
    balance: bool = False               # Divide each class of a submission by its mean over the clips.
    single_crop: bool = False           # Score one random masked crop, only to compare with the published fold scores.


@dataclass(frozen=True)
class Recipe(EvaluationKnobs, TrainingKnobs, AugmentationKnobs, AudioKnobs, NetworkKnobs):
    """Everything that decides what is trained, and how."""
    noisy: Schedule = Schedule(epochs=(10, 10), lrs=(3e-3, 1e-3), sizes=(128, 256))     # Noisy stage; empty for none.
    curated: Schedule = Schedule(epochs=(50,), lrs=(3e-4,), sizes=(256,), mixup=0.4)    # Curated stage.

    def __post_init__(self):
        """Check the ranges, which the types cannot express.

        Raises:
            TaggingError: a knob is out of its range. The message names the knob and the range.
        """
        for name in STAGES:
            schedule = self.schedule(name)
            lengths = {len(schedule.epochs), len(schedule.lrs), len(schedule.sizes)}
            require(len(lengths) == 1, f"--{name}.epochs, --{name}.lrs and --{name}.sizes must "
                    "have the same number of values, one for each cycle")
            require(all(epochs > 0 for epochs in schedule.epochs), f"--{name}.epochs must be 1 or more")
            require(all(0 < lr < 10 for lr in schedule.lrs), f"--{name}.lrs must be above 0 and below 10")
            require(all(32 <= size <= 2048 for size in schedule.sizes), f"--{name}.sizes must be 32 to 2048")
            require(0 <= schedule.mixup < 100, f"--{name}.mixup must be 0 or more and below 100")
            require(0 <= schedule.speed <= 1, f"--{name}.speed must be from 0 to 1")
            require(0 <= schedule.wave_mix <= 1, f"--{name}.wave-mix must be from 0 to 1")
        require(self.curated.epochs, "--curated.epochs needs a value: every recipe ends with the curated stage")
        require(0 <= self.fold_seed < 2**32, "--fold-seed must be 0 or more and below 2^32")
        require(0 <= self.trim_db < 200, "--trim-db must be 0 or more and below 200")
        require(0 < self.crop_seconds <= 60, "--crop-seconds must be above 0 and at most 60")
        require(0 <= self.window_overlap < 1, "--window-overlap must be 0 or more and below 1")
        require(2**17 >= self.n_fft >= self.n_window >= 16,
               "--n-window must be 16 or more and at most --n-fft, and that at most 131072")
        require(all(8 <= side <= 2048 for side in (self.mels, self.frames)), "--mels and --frames must be 8 to 2048")
        require(0 <= self.f_min < self.f_max < 1e6, "--f-min must be 0 or more and below --f-max")
        require(0 < self.top_db < 1000, "--top-db must be above 0 and below 1000")
        require(0 <= self.mask_width[0] <= self.mask_width[1], "--mask-width must be two numbers in order")
        require(0 <= self.lighting < 1, "--lighting must be 0 or more and below 1")
        require(0 <= self.lighting_chance <= 1, "--lighting-chance must be from 0 to 1")
        require(self.normalise or not self.lighting, "--lighting needs --normalise; switch it off with --lighting 0")
        require(self.batch_size >= 2, "--batch-size must be 2 or more")
        require(0 <= self.noisy_share < 1, "--noisy-share must be 0 or more and below 1")
        require(0 <= self.weight_decay < 10, "--weight-decay must be 0 or more and below 10")
        require(all(0.5 <= speed <= 2 for speed in self.view_speeds), "--view-speeds must be from 0.5 to 2")
        require(self.crop_seconds * max((1.0, *self.view_speeds)) <= 60,
               "--crop-seconds must be at most 60 at the greatest of --view-speeds")
        require(self.epoch_windows >= 0, "--epoch-windows must not be negative")

    def schedule(self, stage: str) -> Schedule:
        """Return the schedule of the noisy or the curated stage."""
        return {"noisy": self.noisy, "curated": self.curated}[stage]

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that the recipe trains, in order."""
        return tuple(stage for stage in STAGES if self.schedule(stage).epochs)

    def mixes_sets(self, stage: str) -> bool:
        """Whether the batches of this stage contain noisy clips besides the curated ones."""
        return stage == "curated" and self.noisy_share > 0

    def views(self, asked: int | None = None) -> int:
        """Return the number of views of a test clip besides the plain one: `asked`, or one for each view speed."""
        return len(self.view_speeds) if asked is None else asked

    def crop_samples(self, sample_rate: int) -> int:
        """Return the length of a crop in samples."""
        return round(self.crop_seconds * sample_rate)


def require(condition: object, message: str) -> None:
    """
    Raises:
        TaggingError: `message`, if the condition does not hold.
    """
    if not condition:
        raise TaggingError(f"{message}.")


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe with one sentence about it for --help and the docs."""
    recipe: Recipe
    summary: str


CAPSTONE = Recipe()

# Normalisation, lighting and resizing had no effect in the code that scored 0.69788, the masks always had their full
# width, and mixup had its default of 0.4.
CAPSTONE_EXECUTED = replace(
    CAPSTONE, normalise=False, lighting=0.0, mask_width=(8, 8),
    noisy=replace(CAPSTONE.noisy, sizes=(128, 128)), curated=replace(CAPSTONE.curated, sizes=(128,)))

# It keeps improving where capstone stops: it sees 1.5 times as many crops, with half as many pixels, because its images
# stay small.
PODIUM = replace(
    CAPSTONE, noisy_share=0.5, pooling="maximum", view_speeds=(0.9, 1.1), balance=True,
    noisy=Schedule(epochs=(), lrs=(), sizes=()),
    curated=Schedule(epochs=(100,), lrs=(3e-3,), sizes=(128,), speed=0.2, wave_mix=0.8))

SMOKE = replace(
    CAPSTONE, network="xresnet18", crop_seconds=1.0, mels=64, frames=64, mask_width=(0, 6), batch_size=16,
    noisy=Schedule(epochs=(3,), lrs=(3e-3,), sizes=(64,)),
    curated=Schedule(epochs=(10,), lrs=(3e-3,), sizes=(64,), mixup=0.4))

NAMED_RECIPES = {
    "podium": NamedRecipe(PODIUM, "The best one. It trains on both sets at once, in one stage from random weights, and "
                                  "mixes waveforms."),
    "capstone": NamedRecipe(CAPSTONE, "The published starting system as it was described, in two stages."),
    "capstone-executed": NamedRecipe(CAPSTONE_EXECUTED, "The published starting system as its code ran, to reproduce "
                                                        "its scores."),
    "smoke": NamedRecipe(SMOKE, "Both stages in minutes on a CPU, to try things out."),
}
RECIPES = {name: named.recipe for name, named in NAMED_RECIPES.items()}
