"""Lists of clips: those of a class, and those with errors of a run."""
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tagging.data.competition import Clips
from tagging.data.tables import label_texts
from tagging.evaluation import error_analysis
from tagging.reporting.report import format_cell
from tagging.reporting.sections import error_sections, prediction_bars
from tagging.run import StageFolder
from tagging_lite.pictures import printable
from tools.page.render import show, show_sections

LISTED = 200            # clips that are sent at a time


@dataclass(frozen=True)
class ClassClips:
    """The clips of the data by class."""
    splits: dict[str, Clips]        # with labels
    classes: tuple[str, ...]

    def rows(self, split: str, name: str, first: int = 0) -> dict[str, object]:
        """Return the clips of a split with a label, from number `first` of them, for a list.

        Raises:
            KeyError: the split or the class does not exist.
        """
        clips = self.splits[split]
        if name not in self.classes:
            raise KeyError(name)
        places = np.flatnonzero(clips.targets[:, self.classes.index(name)])
        shown = places[first:first + LISTED]
        texts = label_texts(clips.targets[shown], self.classes)
        return {"total": len(places), "rows": [
            {"sound": f"{split}-{place}", "name": printable(str(clips.fnames[place])), "text": printable(text)}
            for place, text in zip(shown, texts)]}


@dataclass(frozen=True)
class Mistakes:
    """The clips of a stage of a run, the lowest precision first."""
    folder: StageFolder
    truth: pd.DataFrame
    predictions: pd.DataFrame
    clips: Clips                    # the split of the stage, which can lack clips of the run

    @classmethod
    def of(cls, folder: StageFolder, clips: Clips) -> "Mistakes":
        """
        Raises:
            TaggingError: no fold is finished, or a file of the run is damaged.
        """
        return cls(folder, *error_analysis.out_of_fold(folder), clips)

    @cached_property
    def table(self) -> pd.DataFrame:
        return error_analysis.clip_table(self.truth, self.predictions)

    @cached_property
    def ranked(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Truth and predictions in the order of the table."""
        return self.truth.loc[self.table.index], self.predictions.loc[self.table.index]

    @cached_property
    def sections(self) -> str:
        """The errors by class, between classes and in the probabilities, as HTML."""
        return show_sections(error_sections(self.truth, self.predictions), "errors")

    def rows(self, name: str = "", other: str = "", first: int = 0) -> dict[str, object]:
        """Return clips for a list, from number `first` of those that match.

        Args:
            name: a class that the clips must have, or "".
            other: a class that must outrank this label, or any label if `name` is "", or "".
        Raises:
            KeyError: a class does not exist.
        """
        table, (truth, scores) = self.table, self.ranked
        kept = np.ones(len(table), bool)
        labels = [name] if name else list(truth)
        if name:
            kept &= truth[name].to_numpy(bool)
        if other:
            lowest = np.where(truth[labels].to_numpy(bool), scores[labels].to_numpy(), np.inf).min(1)     # (clips,)
            kept &= ~truth[other].to_numpy(bool) & (scores[other].to_numpy() >= lowest)
        found = table[kept]
        shown = found[first:first + LISTED]
        return {"total": len(found), "rows": [
            {"sound": self.sound(fname), "clip": self.predictions.index.get_loc(fname), "name": printable(fname),
             "labels": printable(labels), "precision": format_cell(precision), "text": printable(predicted)}
            for fname, labels, precision, predicted in zip(shown.index, shown.labels, shown.precision,
                                                           shown.predicted)]}

    def sound(self, fname: str) -> str:
        """Return the name of a clip for `Sounds`, or "" if the clip is no longer in the data."""
        return f"{self.clips.split}-{self.clips.fnames.get_loc(fname)}" if fname in self.clips.fnames else ""

    def bars(self, clip: int) -> str:
        """Return the predictions of a clip as HTML.

        Raises:
            IndexError: there is no such clip.
        """
        return show(prediction_bars(self.truth.iloc[clip], self.predictions.iloc[clip]), "")
