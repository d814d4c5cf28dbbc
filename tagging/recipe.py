"""The knobs as dataclasses, one a line with unit and reason, and the named recipes.

The command line and its --help are made from these dataclasses.
"""
import dataclasses
from dataclasses import dataclass, replace
from typing import Literal

from typeguard import TypeCheckError, check_type

from tagging.errors import TaggingError
from tagging.mel import LogMel
from tagging_lite.audio import RATES, RemoveSilence


@dataclass(frozen=True)
class Schedule:
    """One stage of training: cycles of fastai's fit_flat_cos, one after the other."""
    epochs: tuple[int, ...]             # of each cycle
    lrs: tuple[float, ...]              # learning rate of each cycle: flat for 3/4 of it, then a cosine to zero
    sizes: tuple[int, ...]              # side of the square image in each cycle, pixels
    mixup: float = 0.0                  # alpha of the beta distribution; 0 is off
    speed: float = 0.0                  # a crop is played up to so much faster, or slower: 0.2 is 1.2 times
    wave_mix: float = 0.0               # chance that another clip is added to a crop, with all its labels


@dataclass(frozen=True)
class Recipe:
    """All that decides what is trained, and how. Lengths in samples are those at 44.1 kHz; at another rate they
    last as long."""
    # network
    network: str = "xresnet50"          # xresnet18, 34, 50 or 101 with Mish and self-attention, or timm:NAME
    # folds
    fold_count: int = 5                 # models of each stage
    fold_seed: int = 42                 # 42 gives the published folds
    stratified: bool = False            # keep the class counts of the folds even
    # clips
    trim_db: float = 20.0               # silence at the ends is what lies this far below the loudest frame; 0 keeps it
    crop_seconds: float = 2.0           # length of a crop in training, of a window in prediction
    window_overlap: float = 0.5         # share that neighbouring windows of a clip have in common, at least
    pooling: Literal["mean", "maximum"] = "mean"    # of a clip's logits over its windows, by class
    # log-mel
    n_fft: int = 2560                   # samples
    n_window: int = 1024                # samples under the Hann window
    mels: int = 128                     # rows of the image
    frames: int = 128                   # columns of the image; sets the hop
    f_min: float = 20.0                 # Hz
    f_max: float = 20_000.0             # Hz; at most half the sample rate is used
    top_db: float = 60.0                # dB below the loudest cell of a clip, where it is cut off
    normalise: bool = True              # to mean 0 and deviation 1, measured on the training clips of the fold
    # augmentation
    mask_width: tuple[int, int] = (0, 8)   # least and greatest width of the time and of the frequency mask, bins
    lighting: float = 0.2               # greatest change of brightness and contrast
    lighting_chance: float = 0.75       # of each of the two, for each image
    # optimisation
    noisy: Schedule = Schedule(epochs=(10, 10), lrs=(3e-3, 1e-3), sizes=(128, 256))     # stage 1; empty for none
    curated: Schedule = Schedule(epochs=(50,), lrs=(3e-4,), sizes=(256,), mixup=0.4)    # stage 2
    noisy_share: float = 0.0            # share of a batch of stage 2 that is drawn from the noisy set
    batch_size: int = 64                # clips a step
    weight_decay: float = 0.01          # ranger's default in fastai
    seed: int = 0                       # of all random numbers but the folds'
    # evaluation
    epoch_windows: int = 1              # windows of a clip in the line of an epoch, a quick look; 0 is the whole clip
    # prediction
    view_speeds: tuple[float, ...] = ()  # of the first augmented views of a test clip, which are not masked
    balance: bool = False               # divide each class of a submission by its mean over the clips (predict.py)
    # To compare with the published fold scores, for nothing else.
    single_crop: bool = False           # score one random masked crop, not the whole clip, as the starting system did

    def __post_init__(self):
        """Check what the command line's types do not.

        Raises:
            TaggingError: names the knob, and what it may be.
        """
        for name, schedule in (("noisy", self.noisy), ("curated", self.curated)):
            lengths = {len(schedule.epochs), len(schedule.lrs), len(schedule.sizes)}
            demand(len(lengths) == 1, f"--{name}.epochs, --{name}.lrs and --{name}.sizes need "
                   "as many values each as there are cycles")
            demand(all(epochs > 0 for epochs in schedule.epochs), f"--{name}.epochs must be 1 or more")
            demand(all(0 < lr < 10 for lr in schedule.lrs), f"--{name}.lrs must be above 0 and below 10")
            demand(all(32 <= size <= 2048 for size in schedule.sizes), f"--{name}.sizes must be 32 to 2048")
            demand(0 <= schedule.mixup < 100, f"--{name}.mixup must be 0 or more and below 100")
            demand(0 <= schedule.speed <= 1, f"--{name}.speed must be from 0 to 1")
            demand(0 <= schedule.wave_mix <= 1, f"--{name}.wave-mix must be from 0 to 1")
        demand(self.curated.epochs, "--curated.epochs needs a value: every recipe ends with stage 2")
        demand(0 <= self.fold_seed < 2**32, "--fold-seed must be 0 or more and below 2^32")
        demand(0 <= self.trim_db < 200, "--trim-db must be 0 or more and below 200")
        demand(0 < self.crop_seconds <= 60, "--crop-seconds must be above 0 and at most 60")
        demand(0 <= self.window_overlap < 1, "--window-overlap must be 0 or more and below 1")
        demand(2**17 >= self.n_fft >= self.n_window >= 16,
               "--n-window must be 16 or more and at most --n-fft, and that at most 131072")
        demand(all(8 <= side <= 2048 for side in (self.mels, self.frames)), "--mels and --frames must be 8 to 2048")
        demand(0 <= self.f_min < self.f_max < 1e6, "--f-min must be 0 or more and below --f-max")
        demand(0 < self.top_db < 1000, "--top-db must be above 0 and below 1000")
        demand(0 <= self.mask_width[0] <= self.mask_width[1], "--mask-width must be two numbers in order")
        demand(0 <= self.lighting < 1, "--lighting must be 0 or more and below 1")
        demand(0 <= self.lighting_chance <= 1, "--lighting-chance must be from 0 to 1")
        demand(self.normalise or not self.lighting, "--lighting needs --normalise; switch it off with --lighting 0")
        demand(self.batch_size >= 2, "--batch-size must be 2 or more")
        demand(0 <= self.noisy_share < 1, "--noisy-share must be 0 or more and below 1")
        demand(0 <= self.weight_decay < 10, "--weight-decay must be 0 or more and below 10")
        demand(all(0.5 <= speed <= 2 for speed in self.view_speeds), "--view-speeds must be from 0.5 to 2")
        demand(self.crop_seconds * max((1.0, *self.view_speeds)) <= 60,
               "--crop-seconds must be at most 60 at the greatest of --view-speeds")
        demand(self.epoch_windows >= 0, "--epoch-windows must not be negative")

    def schedule(self, stage: str) -> Schedule:
        return {"noisy": self.noisy, "curated": self.curated}[stage]

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that it trains, in their order."""
        return tuple(stage for stage in ("noisy", "curated") if self.schedule(stage).epochs)

    def mixes_sets(self, stage: str) -> bool:
        """Whether noisy clips go along in this stage."""
        return stage == "curated" and self.noisy_share > 0

    def views(self, asked: int | None = None) -> int:
        """Of a test clip beside the plain one: as many as are asked for, else one for each of the view speeds."""
        return len(self.view_speeds) if asked is None else asked

    @property
    def trim(self) -> RemoveSilence | None:
        return RemoveSilence(threshold=self.trim_db) if self.trim_db else None

    def crop_samples(self, sample_rate: int) -> int:
        return round(self.crop_seconds * sample_rate)

    def log_mel(self, sample_rate: int) -> LogMel:
        """The front end for clips of `sample_rate` Hz; a crop becomes an image of `frames` columns.

        Raises:
            TaggingError: a knob that clips of this sample rate cannot have.
        """
        demand(RATES[0] <= sample_rate <= RATES[1], f"clips of {sample_rate} Hz cannot be used")
        scale, crop = sample_rate / 44_100, self.crop_samples(sample_rate)
        n_fft = 2 * round(self.n_fft * scale / 2)       # even: the last bin then lies at half the sample rate
        demand(crop > n_fft // 2, f"--crop-seconds {self.crop_seconds} is too short for --n-fft at {sample_rate} Hz")
        demand(n_fft >= 16, f"--n-fft {self.n_fft} is too small for clips of {sample_rate} Hz")
        demand(self.f_min < sample_rate / 2, f"--f-min {self.f_min} must lie below half of the clips' {sample_rate} Hz")
        return LogMel(sample_rate=sample_rate, n_fft=n_fft, window=min(n_fft, round(self.n_window * scale)),
                      hop=crop // self.frames + 1, mels=self.mels, f_min=self.f_min,
                      f_max=min(self.f_max, sample_rate / 2), top_db=self.top_db)


def demand(condition: object, message: str) -> None:
    if not condition:
        raise TaggingError(f"{message}.")


# The published starting system as it was described.
CAPSTONE = Recipe()

# What its code did to reach 0.69788: normalisation, lighting and resizing left the batches as they were, the masks
# always had their full width, and mixup's default was 0.4.
CAPSTONE_EXECUTED = replace(
    CAPSTONE, normalise=False, lighting=0.0, mask_width=(8, 8),
    noisy=replace(CAPSTONE.noisy, sizes=(128, 128)), curated=replace(CAPSTONE.curated, sizes=(128,)))

# Both sets at once from random weights, without a stage 1. It goes on learning where capstone stops: 1.5 times its
# crops, but half its pixels, as its images are never enlarged.
PODIUM = replace(
    CAPSTONE, noisy_share=0.5, pooling="maximum", view_speeds=(0.9, 1.1), balance=True,
    noisy=Schedule(epochs=(), lrs=(), sizes=()),
    curated=Schedule(epochs=(100,), lrs=(3e-3,), sizes=(128,), speed=0.2, wave_mix=0.8))

# The same path in minutes on a CPU.
SMOKE = replace(
    CAPSTONE, network="xresnet18", crop_seconds=1.0, mels=64, frames=64, mask_width=(0, 6), batch_size=16,
    noisy=Schedule(epochs=(3,), lrs=(3e-3,), sizes=(64,)),
    curated=Schedule(epochs=(10,), lrs=(3e-3,), sizes=(64,), mixup=0.4))

RECIPES = {"capstone": CAPSTONE, "capstone-executed": CAPSTONE_EXECUTED, "podium": PODIUM, "smoke": SMOKE}


def recipe_from_dict(knobs: dict) -> Recipe:
    """Rebuild a recipe from the JSON of `dataclasses.asdict`.

    Raises:
        TaggingError: a knob that this version does not have, or a missing one.
    """
    def build(kind: type, values: dict):
        odd = sorted(set(values) ^ {field.name for field in dataclasses.fields(kind)})
        if odd:
            raise TaggingError(f"the settings were written by another version: they differ in the knobs {odd}. "
                               "Use that version, or train again.")
        return checked(kind, {name: tuple(value) if isinstance(value, list) else value
                              for name, value in values.items()})

    schedules = {name: build(Schedule, knobs[name]) for name in ("noisy", "curated") if name in knobs}
    return build(Recipe, knobs | schedules)


def checked(kind: type, values: dict):
    """Build a dataclass from JSON, whose values may be of any type.

    Raises:
        TaggingError: a value that the field cannot have.
    """
    for field in dataclasses.fields(kind):
        value = values.get(field.name, field.default)
        try:
            check_type(value, field.type)
        except TypeCheckError as error:
            raise TaggingError(f"{field.name} has a wrong value: {error}.") from error
        if isinstance(value, bool) and field.type is not bool:      # True is a number to Python, and not to torch
            raise TaggingError(f"{field.name} has a wrong value: {value}.")
    return kind(**values)
