"""The runs in groups that can be compared, and two runs side by side, as HTML."""
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tagging.errors import TaggingError
from tagging.evaluation import error_analysis
from tagging.metric import lwlrap
from tagging.provenance import show_date
from tagging.recipe import STAGES
from tagging.reporting import plots
from tagging.reporting.charts import Bars, Chart, Column
from tagging.reporting.sections import Section, closest_recipe, commit_text, read_logs
from tagging.run import StageFolder, stage_folder
from tagging.settings import differences
from tagging.utils.files import read_json
from tools.page.render import show_sections
from tools.runs import data_name, sort_key

PLOTTED = 7             # runs in one chart, at most: there are so many colours


@dataclass(frozen=True)
class Entry:
    """A stage of a run, as far as it is finished."""
    folder: StageFolder
    settings: dict
    scores: pd.Series                   # lwlrap, index fold
    logs: dict[int, pd.DataFrame]

    @classmethod
    def read(cls, folder: StageFolder) -> "Entry":
        """
        Raises:
            TaggingError: a file of the stage is damaged.
        """
        # From the records, because scores.json is older than the last finished fold during a training.
        scores = {fold: read_score(folder.record(fold)) for fold in folder.finished_folds()}
        return cls(folder, folder.settings(), pd.Series(scores, dtype=float), read_logs(folder))

    @property
    def name(self) -> str:
        return f"{self.folder.run}/{self.folder.path.name}"

    @property
    def group(self) -> tuple[str, str, tuple[tuple[str, str], ...], tuple[str, ...], str]:
        """Runs with the same one can be compared: stage, data set, checksums of its csv files, classes and recipe."""
        made_by = self.settings["made_by"]
        return (self.folder.path.name, data_name(made_by["command"]), tuple(sorted(made_by["files"].items())),
                tuple(self.settings["classes"]), closest_recipe(self.folder.recipe())[0])

    def row(self) -> dict[str, str]:
        """Return the row of the run in the table of its group."""
        recipe, made_by = self.folder.recipe(), self.settings["made_by"]
        score = f"{self.scores.mean():.4f}" if len(self.scores) else "-"
        spread = f" ± {self.scores.std():.4f}" if len(self.scores) > 1 else ""
        return {"run": self.folder.run, "date": show_date(made_by["date"]), "mean of the folds": score + spread,
                "folds": f"{len(self.scores)} of {recipe.fold_count}", "network": recipe.network,
                "changed knobs": ", ".join(closest_recipe(recipe)[1]) or "none", "commit": commit_text(made_by)}


def read_score(record: Path) -> float:
    """Return the lwlrap of a fold.

    Raises:
        TaggingError: the record is missing or damaged.
    """
    remedy = "Train the fold again."
    score = read_json(record, remedy).get("lwlrap")
    if not isinstance(score, (int, float)):
        raise TaggingError(f"{record} is damaged: it has no lwlrap. {remedy}")
    return score


def read_entries(models: Path) -> tuple[list[Entry], list[TaggingError]]:
    """Read the stages of all runs, the newest first, and an error for each stage that cannot be read."""
    entries, errors = [], []
    for path in sorted(models.glob("*/*/settings.json")):
        try:
            if path.parent.name not in STAGES:
                raise TaggingError(f"{path.parent} is not the folder of a stage, {' or '.join(STAGES)}. Rename it, or "
                                   "move it to another place.")
            entry = Entry.read(StageFolder(path.parent))
            _ = entry.group         # reads the recipe
            entries.append(entry)
        except TaggingError as error:       # one damaged run must not hide the others
            errors.append(error)
    return sorted(entries, key=lambda entry: sort_key(entry.settings["made_by"]["date"]), reverse=True), errors


def runs_page(entries: Sequence[Entry], errors: Sequence[TaggingError]) -> str:
    """Return the groups as HTML: those of the curated stage first, then the group with the newest run."""
    groups: dict[tuple, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: STAGES.index(entry.folder.path.name), reverse=True):
        groups.setdefault(entry.group, []).append(entry)
    sections = [Section("Runs that cannot be read", "",
                        [str(error) for error in errors])] if errors else []
    titles = Counter(group_title(group) for group in groups)
    for group, members in groups.items():
        title = group_title(group)
        if titles[title] > 1:       # data sets with the same name
            title += f" ({', '.join(f'{file} {checksum[:7]}' for file, checksum in group[2])})"
        sections.append(group_section(title, len(group[3]), members))
    return show_sections(sections, "runs")


def group_title(group: tuple) -> str:
    """Return the title of an `Entry.group`."""
    stage, data, _, _, recipe = group
    return f"{data}, {recipe}, {stage} stage"


def group_section(title: str, classes: int, members: Sequence[Entry]) -> Section:
    """Show the runs of a group: a table, their fold scores and their learning curves."""
    blocks: list[Chart | pd.DataFrame | str] = [pd.DataFrame([entry.row() for entry in members])]
    plotted = members[:PLOTTED]
    if len(plotted) < len(members):
        blocks.append(f"The charts show the newest {PLOTTED} of {len(members)} runs.")
    if scores := {entry.folder.run: entry.scores for entry in plotted if len(entry.scores)}:
        blocks.append(plots.fold_scores(scores))
    if logs := {entry.folder.run: entry.logs for entry in plotted if entry.logs}:
        blocks += plots.learning_curves(logs, "Learning curves")
    count = "1 run" if len(members) == 1 else f"{len(members)} runs"
    return Section(title, f"{count} on the same clips with {classes} classes. Only runs of one group are on a common "
                   "axis.", blocks)


def compare_runs(models: Path, run: str, other: str) -> str:
    """Return two stages side by side as HTML: their scores, the difference by class, and their settings.

    Args:
        run, other: names as of `Entry.name`.
    Raises:
        TaggingError: a stage does not exist or is damaged, or both have no class or no clip in common.
    """
    entries = [Entry.read(stage_folder(models, *name.rsplit("/", 1))) if name.count("/") == 1 else missing(name)
               for name in (run, other)]
    (truth, first), (_, second) = (error_analysis.out_of_fold(entry.folder) for entry in entries)
    clips = first.index.intersection(second.index)
    classes = [name for name in first.columns if name in second.columns]
    if not len(clips) or not classes:
        raise TaggingError(f"{run} and {other} have no clips and classes in common. Choose runs on the same data.")
    truth = truth.loc[clips, classes]
    tables = [error_analysis.score_by_class(truth, scores.loc[clips, classes]) for scores in (first, second)]
    totals = [lwlrap(truth=truth.to_numpy(), scores=scores.loc[clips, classes].to_numpy())
              for scores in (first, second)]
    gain = (tables[1].lwlrap - tables[0].lwlrap).sort_values(key=abs, ascending=False, kind="stable")
    order = gain.index
    found = differences(entries[0].settings, entries[1].settings)
    text = (f"On the {len(clips):,} clips that both predicted, with {len(classes)} classes: {run} has lwlrap "
            f"{totals[0]:.4f}, and {other} has {totals[1]:.4f}, a difference of {totals[1] - totals[0]:+.4f}. The "
            "class with the largest difference comes first. The score of a class with few clips is uncertain.")
    bars = Bars("lwlrap by class", "class, and its number of clips",
                [f"{name} ({tables[0].clips[name]:,})" for name in order],
                [Column(run, tables[0].lwlrap[order], "{:.3f}".format, "grey", 1),
                 Column(other, tables[1].lwlrap[order], "{:.3f}".format, "blue", 1),
                 Column("difference", gain, "{:+.3f}".format,
                        ["green" if value > 0 else "red" for value in gain])])
    settings = pd.DataFrame([line.partition(": ")[::2] for line in found], columns=["setting", f"{run} -> {other}"])
    return show_sections([Section(f"{run} and {other}", text, [bars]),
                          Section("Different settings", "" if found else "All settings are the same.",
                                  [settings] if found else [])], "compare")


def missing(name: str) -> Entry:
    raise TaggingError(f"'{name}' is no run. Choose one of the list.")
