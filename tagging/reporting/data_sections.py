"""Sections of a page that describe a data set."""
from collections.abc import Sequence

import pandas as pd

from tagging.data.competition import Clips
from tagging.reporting import eda, plots
from tagging.reporting.sections import PAIRS, Block, Section, format_shares


def data_sections(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame], classes: Sequence[str]) -> list[Section]:
    """Describe a data set: its splits, labels, sounds and problems.

    Args:
        splits: of `eda.open_splits`.
        sounds: `eda.measure_sounds` of each split, for all of its clips or for some.
    """
    return [Section("Overview", "Unusable clips stop the training unless --skip-bad-clips drops them. The columns "
                    "after them describe the other measured clips.", [eda.overview(splits, sounds)]),
            *(label_sections(splits, classes) if eda.labelled(splits) else []),
            *sound_sections({split: table for split, table in sounds.items() if len(eda.usable(table))}),
            *problem_sections(splits, sounds, classes)]


def label_sections(splits: dict[str, Clips], classes: Sequence[str]) -> list[Section]:
    """Show the labels by class, by clip and by pair of classes. At least one split has labels."""
    together: list[Block] = []
    for split, clips in eda.labelled(splits).items():
        counts = eda.co_occurrence(clips, classes)
        pairs = eda.frequent_pairs(counts, PAIRS)
        together += [plots.co_occurrence(counts, split), format_shares(pairs)] if len(pairs) else [
            f"No {split} clip has two labels."]
    return [
        Section("Labels by class", "A model learns a class with few clips less well, and the score of the class is "
                "less certain.", [plots.labels_by_class(eda.labels_by_class(splits, classes))]),
        Section("Labels per clip", "If most clips have one label, a model learns little about overlapping sounds.",
                [plots.labels_per_clip(eda.labels_per_clip(splits))]),
        Section("Labels that occur together", "Classes that often occur together are hard to distinguish with these "
                "clips alone. If a pair is frequent in one split and rare in another, the splits were labelled by "
                "different rules.", together)]


def sound_sections(sounds: dict[str, pd.DataFrame]) -> list[Section]:
    """Show the measurements of the sounds. Each split has at least one clip that can be used."""
    return [
        Section("Lengths", "A clip shorter than a crop (2 seconds in the recipe capstone) is padded with zeros. A "
                "longer clip gives one random crop to each epoch.", [plots.durations(sounds)]),
        Section("Silence", "Trimming removes the ends of a clip that are far below its loudest frame, by default "
                "20 dB.", [plots.silence(sounds)]),
        Section("Noise floor", "A tenth of the frames of a clip are below this level. Digital silence is -100 dBFS. "
                "If the splits differ, they were recorded in different ways, and a model that was trained on one split "
                "is less accurate on the other.", [plots.noise_floors(sounds)])] if sounds else []


def problem_sections(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame],
                     classes: Sequence[str]) -> list[Section]:
    """Show formats, clips that cannot be used, duplicate clips and extreme clips."""
    faults, same = eda.unusable(sounds), eda.duplicates(splits, sounds, classes)
    return [
        Section("Formats", "All clips must have the same sample rate and one channel. The sample format may differ.",
                [eda.formats(sounds)]),
        Section("Clips that cannot be used", "Fix these files, or drop them with --skip-bad-clips.", [faults])
        if len(faults) else Section("Clips that cannot be used", "All measured clips can be used."),
        Section("Duplicate clips", "These clips have identical samples. If their labels differ, at least one is wrong. "
                "Duplicate clips in two folds, or in training and test data, make the score too high.", [same])
        if len(same) else Section("Duplicate clips", "All measured clips have different samples."),
        Section("Extreme clips", "Listen to the clips with the most extreme values.", [eda.extremes(sounds)])]
