"""A run, or a data set, as a page: one html file that needs no other file, no network and no script."""
import base64
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from tagging.data.competition import Clips, Competition
from tagging.data.tables import read_numbers, read_table
from tagging.errors import shorten
from tagging.evaluation import error_analysis
from tagging.metric import lwlrap
from tagging.recipe import RECIPES, Recipe
from tagging.reporting import eda, plots
from tagging.run import StageFolder, stage_folder
from tagging.settings import flatten
from tagging.utils.files import atomic, read_json
from tagging_lite.audio import load_clip, make_trim
from tagging_lite.pictures import bars_figure, log_mel_figure, png, short

DPI = 130       # of the pictures, which are then a little larger than they are shown, and sharp
WORST = 12      # clips that a run's page shows
PAIRS = 15      # rows of a table of pairs of classes


@dataclass(frozen=True)
class Section:
    """Part of a page, with what it shows as plain objects: figures, tables, sentences, and sections within."""
    title: str
    text: str                                                               # what it is, and how to read it
    blocks: Sequence["Figure | pd.DataFrame | str | Section"] = ()


def write_page(path: Path, title: str, text: str, sections: Sequence[Section]) -> None:
    """Write sections as one html file, in which every name is escaped."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"kind": lambda block: type(block).__name__, "cell": cell,
                            "picture": lambda figure: base64.b64encode(png(figure, DPI)).decode()}
    page = environment.get_template("page.html").render(title=title, text=text, sections=sections)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def cell(value: object) -> str:
    """A field of a table, as people write it."""
    if pd.isna(value):
        return "-"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.{3 if abs(value) < 10 else 1}f}" if isinstance(value, float) else str(value)


def write_run_report(folder: StageFolder, competition: Competition) -> Path:
    """Write models/RUN/report.html about the finished folds of a stage.

    Raises:
        TaggingError: no fold is finished, a file of the run is damaged, or the page cannot be written.
    """
    path = folder.path.parent / "report.html"
    with folder.lock():     # where several processes train folds, the last one reports on all of them
        write_page(path, f"Run {folder.run}", f"The {folder.path.name} stage. Scores and mistakes are of clips that "
                   "the model in question was not trained on.", run_sections(folder, competition))
    return path


def run_sections(folder: StageFolder, competition: Competition) -> list[Section]:
    """What was trained, how it learnt, where it errs, and with which settings."""
    folds = folder.finished_folds()
    truth, predictions = error_analysis.out_of_fold(folder, folds)
    return [about_scores(folder, folds, truth, predictions), about_learning(folder),
            *about_mistakes(truth, predictions), about_worst_clips(folder, competition, truth, predictions),
            about_settings(folder)]


def about_scores(folder: StageFolder, folds: list[int], truth: pd.DataFrame, predictions: pd.DataFrame) -> Section:
    settings, recipe = folder.settings(), folder.recipe()
    records = {fold: read_json(folder.record(fold), "Train the fold again.") for fold in folds}
    scores = pd.Series({fold: record["lwlrap"] for fold, record in records.items()})
    made, source = settings["made_by"], settings["initial_weights"]
    missing = sorted(set(range(1, recipe.fold_count + 1)) - set(folds))
    facts = {
        "lwlrap, mean of the folds": f"{scores.mean():.5f}" + (f" ± {scores.std():.5f}" if len(scores) > 1 else ""),
        "lwlrap, all folds together": f"{lwlrap(truth=truth.to_numpy(), scores=predictions.to_numpy()):.5f}",
        "clips": f"{len(predictions):,} of {len(truth.columns)} classes",
        "network": recipe.network,
        "starts from": "random weights" if source == "scratch" else f"stage 1 of run {source}",
        "command": made["command"], "begun": made["date"], "commit": commit(made),
        "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items())}
    table = pd.DataFrame([{
        "fold": fold, "lwlrap": f"{record['lwlrap']:.5f}", "clips": record["clips"],
        "minutes": f"{record['seconds'] / 60:.1f}", "hardware": record["device"],
        "peak memory": ", ".join(f"{place} {size:,} MB" for place, size in record["peak_memory_mb"].items()),
        "commit": commit(record)} for fold, record in records.items()])
    text = "lwlrap, from 0 to 1: of the classes that score at least as high as a true label, the share that is true. "
    text += (f"Fold {shorten(missing)} of {recipe.fold_count} is not finished: scores and mistakes are of the others."
             if missing else "The spread between the folds says how far to trust a difference between two runs.")
    text = f"{text} {folder.caveat()}".rstrip()
    return Section("Scores", text, [plots.fold_scores({folder.run: scores}),
                                    pd.DataFrame(facts.items(), columns=["", ""]), table])


def commit(made: dict) -> str:
    """The commit something was made by, as far as it is known."""
    return f"{(made['commit'] or 'unknown')[:10]}{' and uncommitted changes' if made['clean'] is False else ''}"


def read_logs(folder: StageFolder) -> dict[int, pd.DataFrame]:
    """The log of each fold that has one, finished or not: epoch, train_loss, valid_loss and lwlrap, a row an epoch.

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


def about_learning(folder: StageFolder) -> Section:
    source = folder.settings()["initial_weights"]
    stages = {folder.path.name: folder}
    if source != "scratch":
        stages = {f"noisy, of run {source}": stage_folder(folder.path.parents[1], source, "noisy")} | stages
    curves = [plots.learning_curves({"mean": logs}, f"Stage {stage}") for stage, stage_of in stages.items()
              if stage_of.settings_path.exists() and (logs := read_logs(stage_of))]
    return Section("Learning curves", "Each thin line is a fold. A valid loss that rises while the train loss falls is "
                   "overfitting; a score that still rises at the end asks for more epochs. Mixup makes the train loss "
                   "the higher one. The score of an epoch is a quick look, that of a fold is of whole clips.", curves)


def about_mistakes(truth: pd.DataFrame, predictions: pd.DataFrame) -> list[Section]:
    scores, beaten = error_analysis.score_by_class(truth, predictions), error_analysis.confusions(truth, predictions)
    bins = error_analysis.calibration(truth, predictions)
    return [
        Section("Score by class", "The worst class comes first. The right side weighs each class by its labels: what "
                "stands out there is where the total has most to gain. A class with few clips has an uncertain score.",
                [plots.score_by_class(scores), named(scores.sort_values("lwlrap", kind="stable"), "class")]),
        Section("Confusions", "A class beats a label if the clip does not have it, and it scores at least as high. Two "
                "classes that beat each other sound alike, or clips of one lack the label of the other.",
                [plots.confusions(beaten, truth), percent(error_analysis.frequent_confusions(beaten, truth, PAIRS))]),
        Section("Calibration", "Above the dashed line the model is too cautious, below it too sure. The score asks for "
                "the order of classes only, so a bend costs nothing there, but it matters where a threshold is set.",
                [plots.calibration(bins, error_analysis.calibration_error(bins)), bins])]


def named(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The index as first column."""
    return table.rename_axis(name).reset_index()


def percent(table: pd.DataFrame) -> pd.DataFrame:
    """Shares as per cent."""
    return table.assign(**{name: table[name].map("{:.0%}".format) for name in table if name.startswith("share")})


def about_worst_clips(folder: StageFolder, competition: Competition, truth: pd.DataFrame,
                      predictions: pd.DataFrame) -> Section:
    table, trim = error_analysis.clip_table(truth, predictions), make_trim(folder.recipe().trim_db)
    table = table[table.precision < 1]
    home = competition.root / competition.layout.splits[folder.path.name][1]
    cards = []
    for fname, row in table[:WORST].iterrows():
        bars = prediction_bars(truth.loc[fname], predictions.loc[fname])
        wave, rate, fault = load_clip(home / fname, trim)
        sound = f"No picture of the sound: {fault}." if fault else log_mel_figure(wave, rate)
        for figure in (bars, sound):
            if isinstance(figure, Figure):
                figure.set_size_inches(6, 2.6)      # two stand beside each other
        cards.append(Section(fname, f"labelled {row.labels}; precision {row.precision:.3f}", [sound, bars]))
    return Section("Worst clips", f"{len(table):,} of {len(truth):,} clips have a class that is not theirs above one "
                   "of their labels; here are the worst. Listen to them: some labels are wrong, some sounds are "
                   "missing from the labels, and the rest is what the model has yet to learn.", cards)


def prediction_bars(truth: pd.Series, predictions: pd.Series) -> Figure:
    """The strongest predictions for one clip, and below them the labels that are not among these; labels are marked."""
    tags = dict(error_analysis.top_tags(predictions)) | predictions[truth == 1].to_dict()
    return bars_figure([(short(name, 36) + " (label)" * int(truth[name]), value) for name, value in tags.items()])


def about_settings(folder: StageFolder) -> Section:
    knobs = flatten(dataclasses.asdict(folder.recipe()))
    name, changed = closest_recipe(folder.recipe())
    default = flatten(dataclasses.asdict(RECIPES[name]))
    table = pd.DataFrame([{"knob": knob, "value": str(knobs[knob]), f"in {name}": str(default[knob])}
                          for knob in (*changed, *(knob for knob in knobs if knob not in changed))])
    return Section("Settings", f"The closest recipe is {name}. " + (
        f"{len(changed)} knobs differ from it." if changed else "Nothing differs from it."),
        [table[:len(changed)], table] if changed else [table])


def closest_recipe(recipe: Recipe) -> tuple[str, list[str]]:
    """The named recipe with the fewest other knobs, and these."""
    knobs = flatten(dataclasses.asdict(recipe))
    changed = {name: [knob for knob, value in flatten(dataclasses.asdict(named)).items() if knobs[knob] != value]
               for name, named in RECIPES.items()}
    name = min(changed, key=lambda name: len(changed[name]))
    return name, changed[name]


def data_sections(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame], classes: Sequence[str]) -> list[Section]:
    """What is in a data set: its splits, labels and sounds, and what is odd about them.

    Args:
        sounds: `eda.measure_sounds` of each split, of all its clips or of some.
    """
    return [Section("Overview", "Unusable clips stop a training, unless --skip-bad-clips leaves them out. What stands "
                    "right of them is of the other clips that were measured.", [eda.overview(splits, sounds)]),
            *(about_labels(splits, classes) if eda.labelled(splits) else []),
            *about_sounds({split: table for split, table in sounds.items() if len(eda.usable(table))}),
            *about_oddities(splits, sounds, classes)]


def about_labels(splits: dict[str, Clips], classes: Sequence[str]) -> list[Section]:
    together = []
    for split, clips in eda.labelled(splits).items():
        counts = eda.co_occurrence(clips, classes)
        pairs = eda.frequent_pairs(counts, PAIRS)
        together += [plots.co_occurrence(counts, split), percent(pairs)] if len(pairs) else [
            f"No {split} clip has two labels."]
    return [
        Section("Labels by class", "A class with few clips is learnt less well, and its score is less certain.",
                [plots.labels_by_class(eda.labels_by_class(splits, classes))]),
        Section("Labels a clip", "Where most clips have one label, a model learns little about sounds that overlap.",
                [plots.labels_a_clip(eda.labels_a_clip(splits))]),
        Section("Labels together", "Classes that often occur together are hard to tell apart from these clips alone. A "
                "pair that is frequent in one set and not in the other was labelled by another rule.", together)]


def about_sounds(sounds: dict[str, pd.DataFrame]) -> list[Section]:
    """Pictures of what was measured; each split has a clip that can be used."""
    return [
        Section("Lengths", "A clip shorter than a crop (2 seconds in the recipe capstone) is padded with zeros; of a "
                "longer one, an epoch hears one crop.", [plots.durations(sounds)]),
        Section("Silence", "What lies far below the loudest frame, 20 dB by default, is cut off at both ends.",
                [plots.silence(sounds)]),
        Section("Noise floor", "A tenth of a clip's frames stay below it; -100 dBFS is digital silence. Where it "
                "differs, the sets were recorded in other ways, and what is learnt from one holds less for the other.",
                [plots.noise_floors(sounds)])] if sounds else []


def about_oddities(splits: dict[str, Clips], sounds: dict[str, pd.DataFrame], classes: Sequence[str]) -> list[Section]:
    faults, same = eda.unusable(sounds), eda.duplicates(splits, sounds, classes)
    return [
        Section("Formats", "All clips need one sample rate and one channel; the sample format does not matter.",
                [eda.formats(sounds)]),
        Section("Clips that cannot be used", "Mend these files, or leave them out.", [faults]) if len(faults) else
        Section("Clips that cannot be used", "None of those that were measured."),
        Section("The same sound twice", "Clips with exactly the same samples. With other labels, one of them is wrong; "
                "in two folds, or in training and test, they flatter the score.", [same]) if len(same) else
        Section("The same sound twice", "No two of the clips that were measured have the same samples."),
        Section("Worth a listen", "The clips that lie outermost in one respect.", [eda.extremes(sounds)])]
