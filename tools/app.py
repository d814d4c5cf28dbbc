"""A page on localhost: tag sounds, look at the data and at the errors of a run, and compare all runs.

    python -m tools.app --run NAME --data DIR

The page loads nothing from other hosts, and serves no files except those that it shows.
"""
import html
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"        # gradio reads it at import

import gradio as gr
import numpy as np
import pandas as pd

from tagging.cli import parse, run_script
from tagging.data.competition import Clips, Competition, open_competition
from tagging.data.tables import check_same, label_texts
from tagging.errors import TaggingError
from tagging.evaluation import error_analysis
from tagging.evaluation.predict import make_tagger
from tagging.options import CompetitionOption, DeviceOption, Flat, RunOptions
from tagging.recipe import STAGES
from tagging.reporting import eda, plots
from tagging.reporting.data_sections import data_sections
from tagging.reporting.report import format_cell
from tagging.reporting.sections import error_sections, index_to_column, prediction_bars, read_logs
from tagging.run import StageFolder, stage_folder
from tagging.utils.devices import choose_device
from tagging.utils.files import read_json
from tagging_lite.audio import RemoveSilence, make_trim, read_mono
from tagging_lite.cores import available_cores
from tagging_lite.errors import SoundError
from tagging_lite.pictures import bars_figure, log_mel_figure, timeline_figure
from tagging_lite.tagger import Tagger
from tools.page_parts import clip_player, picture, play, show
from tools.runs import list_runs

LONGEST_UPLOAD = 300    # seconds of a sound
LARGEST_UPLOAD = "100mb"
BARS = 10               # tags shown as bars
EXAMPLES = 20           # test clips in the list of examples
LISTED = 500            # clips in the list of errors; the csv contains all clips


@dataclass(frozen=True, kw_only=True)
class PageOptions(DeviceOption, CompetitionOption):
    """The page and its data."""
    clips: int = 500        # Number of clips of each split whose sounds are measured. 0 measures all clips.
    port: int = 7860        # Port of the page on localhost, from 1 to 65535.


@dataclass(frozen=True, kw_only=True)
class App:
    """tools.app."""
    run: Flat[RunOptions]
    page: Flat[PageOptions]


def main() -> None:
    args = parse(App, __doc__)
    run, port = args.run, args.page.port
    if args.page.clips < 0 or not 0 < port < 2**16:
        raise TaggingError("--clips must not be negative, and --port must be from 1 to 65535.")
    competition = open_competition(args.page.data)
    folder = stage_folder(run.models, run.run, run.stage)
    check_same(folder.settings()["classes"], competition.classes, f"{folder}, compared with {args.page.data},",
               "classes", "Use the data that the run was trained on.")
    tagger = make_tagger(folder.load_models((), choose_device(args.page.device)))
    splits = eda.open_splits(competition)
    # If the split is missing, `clips` raises the same error as in the scripts.
    clips = splits[run.stage] if run.stage in splits else competition.clips(run.stage)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["GRADIO_TEMP_DIR"] = scratch     # so that uploads and recordings are deleted with the page
        with gr.Blocks(title=f"audio tagging: {run.run}") as page:
            gr.Markdown(f"# {run.run}, {run.stage} stage")
            with gr.Tab("Tag"):
                tag_tab(tagger, splits)
            with gr.Tab("Data"):
                data_tab(competition, splits, args.page.clips, make_trim(folder.recipe().trim_db))
            with gr.Tab("Mistakes"):
                errors_tab(folder, clips, Path(scratch))
            with gr.Tab("Runs"):
                runs_tab(run.models)
        serve(page, port)


def serve(page: gr.Blocks, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        TaggingError: the port is in use.
    """
    page.queue(default_concurrency_limit=available_cores())
    try:
        page.launch(server_name="127.0.0.1", server_port=port, max_file_size=LARGEST_UPLOAD, footer_links=[],
                    quiet=True, prevent_thread_lock=True)
        print(f"http://127.0.0.1:{port}  until Ctrl-C", flush=True)
        page.block_thread()
    except OSError as error:
        raise TaggingError(f"--port {port} is in use. Choose another one.") from error


def tag_tab(tagger: Tagger, splits: dict[str, Clips]) -> None:
    examples = next(iter(splits.values())) if "test" not in splits else splits["test"]
    paths = dict(zip(examples.fnames[:EXAMPLES], examples.paths))

    def tag(upload: str | None) -> tuple[str, str, str, str]:
        """Return the strongest tag of an upload, and three pictures."""
        if upload is None:
            return "", "", "", ""
        try:
            result = tagger.tag_file(Path(upload), True, LONGEST_UPLOAD)
            wave = np.concatenate(list(read_mono(Path(upload), tagger.info.sample_rate)))
        except SoundError as error:
            name = Path(upload).name
            return f"{name} cannot be tagged: {str(error).replace(upload, name)}.", "", "", ""
        tags = tagger.top_tags(result.probabilities, BARS)
        assert result.timeline is not None
        return (f"{tags[0][0]}: {tags[0][1]:.0%}, in {result.seconds:.1f} seconds of sound",
                picture(bars_figure(tags, "probability of each tag")),
                picture(log_mel_figure(wave, tagger.info.sample_rate, "log-mel spectrogram")),
                picture(timeline_figure(result.timeline, tagger.info.classes)))

    with gr.Row():
        with gr.Column():
            upload = gr.Audio(label="a sound to tag", sources=["upload", "microphone"], type="filepath",
                              buttons=["download"])
            example = gr.Dropdown(list(paths), value=None, label="or an example")
            found = gr.Textbox(label="strongest tag", elem_id="found")
        bars = gr.HTML()
    spectrogram, timeline = gr.HTML(), gr.HTML()
    example.input(lambda fname: play(paths[fname])[0], example, upload)
    upload.change(tag, upload, [found, bars, spectrogram, timeline])


def data_tab(competition: Competition, splits: dict[str, Clips], limit: int, trim: RemoveSilence | None) -> None:
    labelled = eda.labelled(splits)

    def clips_of(split: str, name: str | None) -> gr.Dropdown:
        if name is None:        # no class is chosen yet
            return gr.Dropdown([], value=None, label="clips")
        clips = labelled[split]
        fnames = list(clips.fnames[clips.targets[:, competition.classes.index(name)] == 1])
        return gr.Dropdown(fnames, value=None, label=f"{len(fnames)} clips")

    def show_clip(split: str, fname: str | None) -> tuple:
        clips = labelled[split]
        if fname is None:
            return None, "", ""
        place = clips.fnames.get_loc(fname)
        return *play(clips.paths[place]), label_texts(clips.targets[place:place + 1], competition.classes)[0]

    gr.Markdown("### Clips by class")
    with gr.Row():
        split = gr.Dropdown(list(labelled), label="set")
        name = gr.Dropdown(list(competition.classes), value=None, label="class")
        clip = gr.Dropdown([], label="clips")
        labels = gr.Textbox(label="labels")
    player = clip_player()
    gr.on([split.input, name.input], clips_of, [split, name], clip)
    clip.change(show_clip, [split, clip], [*player, labels])

    measured = {split: eda.choose_clips(clips, limit) for split, clips in splits.items()}
    sounds = {split: eda.measure_sounds(clips, trim or RemoveSilence()) for split, clips in measured.items()}
    show(data_sections(splits, sounds, competition.classes))


def errors_tab(folder: StageFolder, clips: Clips, scratch: Path) -> None:
    truth, predictions = error_analysis.out_of_fold(folder)
    table = error_analysis.clip_table(truth, predictions)
    paths = dict(zip(clips.fnames, clips.paths))

    def show_clip(event: gr.SelectData) -> tuple:
        fname = event.row_value[0]
        if fname not in paths:
            return None, f"{html.escape(fname)} is no longer in the data", ""
        return *play(paths[fname]), picture(prediction_bars(truth.loc[fname], predictions.loc[fname]))

    exported = scratch / f"{folder.run}-{folder.path.name}-clips.csv"
    error_analysis.write_clip_table(exported, table)
    gr.Markdown(f"### {len(table):,} clips, the lowest precision first\n"
                "Choose a row to play the clip and to see its labels and predictions. The list has at most "
                f"{LISTED} clips.")
    rows = gr.Dataframe(index_to_column(table[:LISTED], "fname").drop(columns="new_labels").map(format_cell),
                        interactive=False, max_height=300, elem_id="worst")
    gr.DownloadButton("Export all as csv, to relabel", value=str(exported))
    player = clip_player()
    bars = gr.HTML()
    rows.select(show_clip, None, [*player, bars])
    show(error_sections(truth, predictions))


def runs_tab(models: Path) -> None:
    """Show all runs. The page reads them again each time that it is opened."""
    gr.Dataframe(lambda: list_runs(models)[0], label="all runs, newest first", interactive=False)
    for stage in reversed(STAGES):
        gr.Markdown(f"### {stage} stage")
        gr.HTML(partial(stage_curves, models, stage))


def stage_curves(models: Path, stage: str) -> str:
    """Return the scores and the learning curves of a stage of all runs as html."""
    table, errors = list_runs(models)
    logs: dict[str, dict[int, pd.DataFrame]] = {}
    scores: dict[str, pd.Series] = {}
    for run in table.run[table.stage == stage] if len(table) else ():
        folder = StageFolder(models / run / stage)
        try:
            logs[run] = read_logs(folder)
            # From the records, because scores.json is older than the last finished fold during a training.
            records = {fold: read_json(folder.record(fold), "Train the fold again.")
                       for fold in folder.finished_folds()}
            scores[run] = pd.Series({fold: record["lwlrap"] for fold, record in records.items()})
        except TaggingError as error:       # one damaged run must not hide the others
            errors.append(error)
    logs = {run: folds for run, folds in logs.items() if folds}
    scores = {run: folds for run, folds in scores.items() if len(folds)}
    return "".join([*(f"<p>{html.escape(str(error))}</p>" for error in errors),
                    picture(plots.fold_scores(scores)) if scores else "",
                    picture(plots.learning_curves(logs, f"{stage} stage")) if logs else ""])


if __name__ == "__main__":
    run_script(main)
