"""The state of a stage of a run as trackers show it, read from its folder only. The run can be under way."""
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

import pandas as pd

from tagging.data.csv_numbers import read_numbers
from tagging.data.tables import read_table
from tagging.evaluation.error_analysis import out_of_fold
from tagging.reporting import plots
from tagging.reporting.charts import Bars, Dots, Matrix, Plot
from tagging.reporting.sections import Section, error_sections, read_logs
from tagging.reporting.style import draw_chart
from tagging.run import StageFolder
from tagging.schema import require_network
from tagging.settings import flatten
from tagging.utils.files import fingerprint, read_json
from tagging_lite.pictures import png
from tools.publish import CardOptions, model_card, without_paths

CHARTS = (Bars, Dots, Matrix, Plot)
DPI = 100
REMEDY = "Train the fold again."


@dataclass(frozen=True)
class FoldCurves:
    """The log of a fold so far, and its score if it is finished."""
    rows: list[dict[str, float]]    # of the epochs, each with `epoch`
    score: float | None

    def mark(self) -> str:
        """Return a hash of everything."""
        return fingerprint(self.rows, self.score)

    def begins(self, count: int) -> str:
        """Return a hash of the first `count` epochs."""
        return fingerprint(self.rows[:count])


@dataclass(frozen=True)
class Snapshot:
    """A stage of a run at one moment."""
    run: str
    stage: str
    identity: str                       # the same for all snapshots of this training, and for no other
    started: float                      # seconds since 1970 at which the training began
    settings: dict[str, object]         # flat: knob -> value
    curves: dict[int, FoldCurves]       # fold -> its epochs
    scores: dict[str, float]            # mean, out_of_fold and spread of the finished folds, if scores.json has them
    complete: bool                      # all folds are finished
    folder: StageFolder = field(repr=False)

    @property
    def fold_scores(self) -> dict[int, float]:
        """The scores of the finished folds, if `scores` has them."""
        return {fold: curves.score for fold, curves in self.curves.items() if curves.score is not None} \
            if self.scores else {}

    def mark(self) -> str:
        """Return a hash of settings, scores, pictures and model card. They change when a fold is finished."""
        return fingerprint(self.identity, self.settings, self.scores,
                           [self.curves[fold].rows for fold in self.fold_scores])

    def pictures(self) -> dict[str, bytes]:
        """Draw the figures of the report about the finished folds: name -> PNG.

        The worst clips are left out, because their sounds are not part of a run.
        """
        return draw(self.folder, tuple(self.fold_scores), self.mark()) if self.scores else {}

    def card(self) -> str:
        """Return the model card in Markdown, without paths of this machine, or "" until a fold is finished."""
        if not self.scores:
            return ""
        command = self.folder.settings()["made_by"]["command"]
        card = model_card(self.folder, CardOptions()).replace(command, str(self.settings["made_by.command"]))
        return re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL).lstrip()     # the header is for Hugging Face


@lru_cache(maxsize=4)       # drawing takes seconds, and a run that is followed is read again and again
def draw(folder: StageFolder, folds: tuple[int, ...], _mark: str) -> dict[str, bytes]:
    logs = {fold: log for fold, log in read_logs(folder).items() if fold in folds}
    scores = {fold: read_json(folder.record(fold), REMEDY)["lwlrap"] for fold in folds}
    sections = [Section("Learning curves", "", plots.learning_curves({folder.run: logs}, folder.path.name)),
                Section("Fold scores", "", [plots.fold_scores({folder.run: pd.Series(scores)})]),
                *error_sections(*out_of_fold(folder, folds))]
    pictures = {}
    for section in sections:
        charts = [block for block in section.blocks if isinstance(block, CHARTS)]
        for number, chart in enumerate(charts, 1):
            name = section.title.lower().replace(" ", "_") + (f"_{number}" if len(charts) > 1 else "")
            pictures[name] = png(draw_chart(chart), DPI)
    return pictures


def read_snapshot(folder: StageFolder) -> Snapshot:
    """Read a stage of a run.

    Raises:
        TaggingError: the stage does not exist, the run is one of a baseline, or a file of it is damaged.
    """
    settings = folder.settings()
    require_network(settings, folder)
    made_by = without_paths(settings["made_by"])
    flat = {name: value for name, value in flatten(settings | {"made_by": made_by}).items() if name != "classes"}
    count = folder.recipe().fold_count
    finished = {fold: read_json(folder.record(fold), REMEDY)["lwlrap"] for fold in folder.finished_folds()}
    curves = {fold: FoldCurves(read_rows(folder, fold), finished.get(fold)) for fold in range(1, count + 1)
              if folder.log(fold).exists()}
    scores = read_scores(folder, sorted(finished))
    return Snapshot(
        run=folder.run, stage=folder.path.name, settings={**flat, "classes": len(settings["classes"])}, curves=curves,
        identity=fingerprint(folder.run, folder.path.name, settings["made_by"], settings["recipe"]),
        started=datetime.fromisoformat(settings["made_by"]["date"]).timestamp(), scores=scores, folder=folder,
        complete=bool(scores) and set(finished) == set(range(1, count + 1)))


def read_rows(folder: StageFolder, fold: int) -> list[dict[str, float]]:
    """Read all columns of the log of a fold.

    Raises:
        TaggingError: the log is damaged.
    """
    path = folder.log(fold)
    table = read_table(path, ["epoch"])
    columns = ["lr" if name == "rate" else name for name in table]      # its name before c9f85f2
    return [dict(zip(columns, read_numbers(list(row), f"{path}, line {line}", columns).tolist()))
            for line, *row in table.itertuples()]


def read_scores(folder: StageFolder, finished: list[int]) -> dict[str, float]:
    """Return the numbers of scores.json, or none if it does not have the finished folds yet."""
    path = folder.path / "scores.json"
    if not finished or not path.exists():
        return {}
    scores = read_json(path, "Run the training command again to write it.")
    if sorted(map(int, scores["folds"])) != finished:
        return {}
    return {name: scores[name] for name in ("mean", "spread", "out_of_fold") if scores.get(name) is not None}
