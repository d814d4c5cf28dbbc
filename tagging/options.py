"""Groups of options that several scripts share. `tagging.cli` turns them into command lines."""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flat  # a group of options whose names have no prefix

__all__ = ["CompetitionOption", "DataOptions", "DeviceOption", "Flat", "FoldedRunOptions", "ModelsOption", "RunOptions",
           "StageOption", "TruthOptions", "shown_default"]


def shown_default(text: str, metavar: str | None = None) -> object:
    """Annotate an option whose default is computed. --help shows `text` as the default, or nothing for ""."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {text})" if text else "")


@dataclass(frozen=True, kw_only=True)
class CompetitionOption:
    """Competition."""
    data: Path                              # Competition folder in Kaggle's or Zenodo's layout.


@dataclass(frozen=True, kw_only=True)
class DataOptions(CompetitionOption):
    """Competition and cache."""
    cache: Path = Path("data/cache")        # Folder for the decoded clips. They take as much space as the clips.
    skip_bad_clips: bool = False            # Drop clips that cannot be used, and list their names.


@dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """The labels of the test clips."""
    # Csv with the labels of the test clips.
    truth: Annotated[Path | None, shown_default("test_post_competition.csv of the data, if it exists", "CSV")] = None
    # Score only the test clips with this usage, such as Private.
    usage: Annotated[str | None, shown_default("", "USAGE")] = None


@dataclass(frozen=True, kw_only=True)
class ModelsOption:
    """Runs."""
    models: Path = Path("models")           # Folder that contains the runs.


@dataclass(frozen=True, kw_only=True)
class DeviceOption:
    """Device."""
    device: str = "auto"                    # Device to use: cpu, cuda, cuda:1 and so on. auto prefers the GPU.


@dataclass(frozen=True, kw_only=True)
class StageOption(ModelsOption):
    """Run and stage."""
    stage: Literal["noisy", "curated"] = "curated"      # Stage of the run to use.


@dataclass(frozen=True, kw_only=True)
class RunOptions(StageOption):
    """The trained run."""
    run: str                                # Name of the run. Its folder is models/NAME.


@dataclass(frozen=True, kw_only=True)
class FoldedRunOptions(RunOptions):
    """The trained run."""
    folds: Annotated[tuple[int, ...], shown_default("all finished ones")] = ()  # Folds whose models are used.
