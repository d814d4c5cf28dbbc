"""Tags as labels on the time axis of a sound, for the sound editor Audacity and for Raven of the Cornell Lab."""
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tagging_lite.errors import one_line
from tagging_lite.tagger import Tagger, TagResult

RAVEN_COLUMNS = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
                 "Begin Path", "Begin File", "Tag", "Probability")


class Region(NamedTuple):
    """A tag from one time to another."""
    start: float            # seconds
    end: float
    tag: str
    probability: float      # of its most probable second, or of the whole sound


def find_regions(result: TagResult, tagger: Tagger, top: int, threshold: float | np.ndarray) -> list[Region]:
    """Return the tags of a sound as regions, sorted by time.

    With a timeline, neighbouring seconds with the same tag are one region. Without one, each tag of the sound is a
    region as long as the sound. For `top` and `threshold` see `Tagger.top_tags`.
    """
    if result.timeline is None:
        return [Region(0.0, result.seconds, *tag) for tag in tagger.top_tags(result.probabilities, top, threshold)]
    regions: list[Region] = []
    current: dict[str, Region] = {}         # those that reach up to this second
    for second, row in enumerate(result.timeline):
        tags = dict(tagger.top_tags(row, top, threshold))
        regions += [region for name, region in current.items() if name not in tags]
        end = min(second + 1.0, result.seconds)
        current = {name: Region(current[name].start, end, name, max(current[name].probability, value))
                   if name in current else Region(float(second), end, name, value) for name, value in tags.items()}
    return sorted([*regions, *current.values()], key=lambda region: (region.start, -region.probability))


def audacity_labels(path: Path, result: TagResult, tagger: Tagger, top: int, threshold: float | np.ndarray) -> str:
    """Return a label track for Audacity's File > Import > Labels: a line with start, end and tag for each region."""
    return "".join(f"{region.start:.6f}\t{region.end:.6f}\t{one_line(region.tag)}\n"
                   for region in find_regions(result, tagger, top, threshold))


def raven_table(path: Path, result: TagResult, tagger: Tagger, top: int, threshold: float | np.ndarray) -> str:
    """Return a selection table for Raven, with a row for each region. It covers the frequencies that the model gets."""
    lines = [RAVEN_COLUMNS]
    for number, region in enumerate(find_regions(result, tagger, top, threshold), start=1):
        lines.append((str(number), "Spectrogram 1", "1", f"{region.start:.6f}", f"{region.end:.6f}", "0.0",
                      f"{tagger.info.sample_rate / 2:.1f}", one_line(path.absolute()), one_line(path.name),
                      one_line(region.tag), f"{region.probability:.6f}"))
    return "".join("\t".join(line) + "\n" for line in lines)


# By the name of the format: the function, and the end of the name of a file.
LABEL_FORMATS = {"audacity": (audacity_labels, ".txt"), "raven": (raven_table, ".selections.txt")}
