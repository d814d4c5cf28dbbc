"""Sections of a page, as charts, tables and sentences, and those that describe a run."""
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd
from matplotlib.figure import Figure

from tagging.data.competition import Competition
from tagging.data.tables import read_numbers, read_table
from tagging.errors import shorten
from tagging.evaluation import error_analysis, learning_curve
from tagging.metric import lwlrap
from tagging.provenance import show_date
from tagging.recipe import RECIPES, FoldKnobs, Recipe
from tagging.reporting import plots
from tagging.reporting.charts import Bars, Chart, Column, Spectrogram
from tagging.run import StageFolder, stage_folder
from tagging.settings import flatten
from tagging.utils.files import read_json
from tagging_lite.audio import load_clip, make_trim

WORST = 12      # clips in the report of a run
PAIRS = 15      # rows in a table of pairs of classes

Block: TypeAlias = "Chart | Figure | pd.DataFrame | str | Section"


@dataclass(frozen=True)
class Section:
    """Part of a page."""
    title: str
    text: str                       # what the blocks show, and how to read them
    blocks: Sequence[Block] = ()    # charts, figures, tables, sentences, and sections within this one


def run_sections(folder: StageFolder, competition: Competition) -> list[Section]:
    """Describe a stage of a run: scores, learning curves, errors and settings.

    Raises:
        TaggingError: no fold is finished, or a file of the run is damaged.
    """
    folds = folder.finished_folds()
    truth, predictions = error_analysis.out_of_fold(folder, folds)
    return [scores_section(folder, folds, truth, predictions), *learning_sections(folder),
            *error_sections(truth, predictions), worst_clips_section(folder, competition, truth, predictions),
            settings_section(folder)]


def scores_section(folder: StageFolder, folds: list[int], truth: pd.DataFrame, predictions: pd.DataFrame) -> Section:
    """Show the score of each fold, and how the run was made."""
    settings, recipe = folder.settings(), folder.recipe()
    records = {fold: read_json(folder.record(fold), "Train the fold again.") for fold in folds}
    scores = pd.Series({fold: record["lwlrap"] for fold, record in records.items()})
    made_by, source = settings["made_by"], settings["initial_weights"]
    missing = sorted(set(range(1, recipe.fold_count + 1)) - set(folds))
    facts = {
        "lwlrap, mean of the folds": f"{scores.mean():.5f}" + (f" ± {scores.std():.5f}" if len(scores) > 1 else ""),
        "lwlrap, all folds together": f"{lwlrap(truth=truth.to_numpy(), scores=predictions.to_numpy()):.5f}",
        "data": f"{len(predictions):,} clips, {len(truth.columns)} classes",
        **({"model": settings["baseline"]["model"]} if settings["baseline"] else {
            "network": recipe.network,
            "initial weights": "random weights" if source == "scratch" else f"noisy stage of run {source}"}),
        "command": made_by["command"], "start": show_date(made_by["date"]), "commit": commit_text(made_by),
        "versions": ", ".join(f"{name} {version}" for name, version in made_by["versions"].items())}
    table = pd.DataFrame([{
        "fold": fold, "lwlrap": f"{record['lwlrap']:.5f}", "clips": record["clips"],
        "minutes": f"{record['seconds'] / 60:.1f}", "device": record["device"],
        "peak memory": ", ".join(f"{place} {size:,} MB" for place, size in record["peak_memory_mb"].items()),
        "commit": commit_text(record)} for fold, record in records.items()])
    text = ("lwlrap is from 0 to 1. For each true label, it is the share of true labels among the classes that score "
            "at least as high. It is averaged over all labels. ")
    if missing:
        subject, verb = ("Fold", "is") if len(missing) == 1 else ("Folds", "are")
        text += (f"{subject} {shorten(missing)} of {recipe.fold_count} {verb} not finished. Scores and errors describe "
                 "the finished folds.")
    else:
        text += "The spread between the folds shows how reliable a difference between two runs is."
    return Section("Scores", f"{text} {folder.caveat()}".rstrip(),
                   [plots.fold_scores({folder.run: scores}), pd.DataFrame(facts.items(), columns=["", ""]), table])


def commit_text(record: dict) -> str:
    """Return the commit of settings or of a fold's record, if it is known."""
    return f"{(record['commit'] or 'unknown')[:10]}{' with uncommitted changes' if record['clean'] is False else ''}"


def read_logs(folder: StageFolder) -> dict[int, pd.DataFrame]:
    """Read the logs of all folds, finished or not.

    Returns:
        fold -> a row for each epoch: epoch, train_loss, valid_loss and lwlrap. A fold without a log is left out.
    Raises:
        TaggingError: a log is damaged.
    """
    logs = {}
    for fold in range(1, folder.recipe().fold_count + 1):
        if (path := folder.log(fold)).exists():
            columns = ["epoch", "train_loss", "valid_loss", "lwlrap"]
            table = read_table(path, columns)[columns]
            logs[fold] = pd.DataFrame([read_numbers(list(row), f"{path}, line {line}", columns)
                                       for line, *row in table.itertuples()], columns=columns)
    return logs


def learning_sections(folder: StageFolder) -> list[Section]:
    """Show the learning curves over the epochs, which baselines do not have, and over the training clips if computed.
    """
    sections = [] if folder.settings()["baseline"] else [epochs_section(folder)]
    path = folder.path / learning_curve.NAME
    if path.exists():
        table = learning_curve.read_curve(path)
        sections.append(Section("Bias and variance", "One fold was trained on parts of its training clips. "
                                + learning_curve.explain_curve(table),
                                [plots.clip_curve(table), table.rename(columns={"out_of_fold": "out-of-fold"})]))
    return sections


def epochs_section(folder: StageFolder) -> Section:
    """Show the learning curves of the stage, and of the noisy stage that gave its initial weights."""
    source = folder.settings()["initial_weights"]
    stages = {f"{folder.path.name.capitalize()} stage": folder}
    if source != "scratch":
        stages = {f"Noisy stage of run {source}": stage_folder(folder.path.parents[1], source, "noisy")} | stages
    curves = [chart for name, stage in stages.items() if stage.settings_path.exists() and (logs := read_logs(stage))
              for chart in plots.learning_curves({folder.run: logs}, name)]
    return Section("Learning curves", "Each thin line is a fold, and the thick line is their mean. If the validation "
                   "loss rises while the training loss falls, the model is overfitting. If the score still rises at "
                   "the end, more epochs may help. Mixup makes the training loss higher than the validation loss. The "
                   "score of an epoch is a quick estimate. The score of a fold comes from whole clips.", curves)


def error_sections(truth: pd.DataFrame, predictions: pd.DataFrame) -> list[Section]:
    """Show the errors by class, between classes, and in the probabilities.

    Args:
        truth, predictions: of `error_analysis.out_of_fold`.
    """
    scores = error_analysis.score_by_class(truth, predictions)
    confusions = error_analysis.confusions(truth, predictions)
    bins = error_analysis.calibration(truth, predictions)
    return [
        Section("Score by class", "The worst class comes first. The right side weights the loss of each class by the "
                "number of its labels. The longest bars show where the total score can improve most. The score of a "
                "class with few clips is uncertain.",
                [plots.score_by_class(scores), index_to_column(scores.sort_values("lwlrap", kind="stable"), "class")]),
        Section("Confusions", "A class outranks a label if the clip does not have the class, but the class scores at "
                "least as high as the label. If two classes outrank each other, they sound alike, or clips of one "
                "class do not have the label of the other (label noise).",
                [plots.confusions(confusions, truth),
                 format_shares(error_analysis.frequent_confusions(confusions, truth, PAIRS))]),
        Section("Calibration", "Above the dashed line the predicted probabilities are too low. Below it they are too "
                "high. lwlrap depends only on the order of the classes, so calibration does not change it. Calibration "
                "matters if you use a threshold.",
                [plots.calibration(bins, error_analysis.calibration_error(bins)), bins])]


def index_to_column(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table with its index as the first column."""
    return table.rename_axis(name).reset_index()


def format_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its shares as percentages."""
    shares = [name for name in table.columns if name.startswith("share")]
    return table.assign(**{name: table[name].map("{:.0%}".format) for name in shares})


def worst_clips_section(folder: StageFolder, competition: Competition, truth: pd.DataFrame,
                        predictions: pd.DataFrame) -> Section:
    """Show spectrogram, labels and predictions of the clips with the lowest precision."""
    table, trim = error_analysis.clip_table(truth, predictions), make_trim(folder.recipe().trim_db)
    table = table[table.precision < 1]
    home = competition.root / competition.layout.splits[folder.path.name][1]
    cards = []
    for fname, labels, precision in zip(table.index[:WORST], table.labels, table.precision):
        bars = prediction_bars(truth.loc[fname], predictions.loc[fname])
        wave, rate, fault, _ = load_clip(home / fname, trim)
        sound: Block = f"There is no spectrogram: {fault}."
        if not fault:
            sound = Spectrogram.of(wave, rate, f"Spectrogram of {fname}, {len(wave) / rate:.1f} seconds")
        cards.append(Section(fname, f"Labels: {labels}. Precision: {precision:.3f}.", [sound, bars]))
    return Section("Worst clips", f"In {len(table):,} of {len(truth):,} clips a wrong class outranks a label. The "
                   "worst clips are shown here. Listen to them: some labels are wrong, and some sounds have no label "
                   "(label noise). The other errors are errors of the model.", cards)


def prediction_bars(truth: pd.Series, predictions: pd.Series) -> Bars:
    """Chart the highest probabilities of a clip, and those of its other labels below. Its labels are marked.

    Args:
        truth, predictions: index class.
    """
    top = [name for name, _ in error_analysis.top_tags(predictions)]
    labels = frozenset(predictions.index[truth == 1])
    names = list(dict.fromkeys([*top, *predictions.index[truth == 1]]))
    return Bars("Predictions", "class", names, [Column("probability", predictions[names], end=1)], labels)


def settings_section(folder: StageFolder) -> Section:
    """Show the settings of a baseline, or all knobs of the recipe, first those that differ from the closest named one.
    """
    if baseline := folder.settings()["baseline"]:
        recipe = dataclasses.asdict(folder.recipe())
        values = baseline["settings"] | {name: recipe[name] for name in (
            "trim_db", "seed", "balance", *(field.name for field in dataclasses.fields(FoldKnobs)))}
        table = pd.DataFrame([{"setting": name, "value": str(value)} for name, value in values.items()])
        sets = "both sets" if recipe["noisy_share"] else "the curated set"
        return Section("Settings", f"This is a baseline: {baseline['model']} on features of the clips of {sets}.",
                       [table])
    knobs = flatten(dataclasses.asdict(folder.recipe()))
    name, changed = closest_recipe(folder.recipe())
    default = flatten(dataclasses.asdict(RECIPES[name]))
    table = pd.DataFrame([{"knob": knob, "value": str(knobs[knob]), f"in {name}": str(default[knob])}
                          for knob in (*changed, *(knob for knob in knobs if knob not in changed))])
    text = f"{len(changed)} {'knob differs' if len(changed) == 1 else 'knobs differ'} from it."
    return Section("Settings", f"The closest recipe is {name}. {text}",
                   [table[:len(changed)], table] if changed else [table])


def closest_recipe(recipe: Recipe) -> tuple[str, list[str]]:
    """Return the name of the named recipe with the fewest different knobs, and these knobs."""
    knobs = flatten(dataclasses.asdict(recipe))
    changed = {name: [knob for knob, value in flatten(dataclasses.asdict(other)).items() if knobs[knob] != value]
               for name, other in RECIPES.items()}
    closest = min(changed, key=lambda name: len(changed[name]))
    return closest, changed[closest]
