"""A page on localhost: tag sounds, look at the data, at the mistakes of a run, and at all runs side by side.

    python -m tools.app --run NAME --data DIR

Nothing is loaded from outside, and no file outside of what the page itself shows is served.
"""
import base64
import html
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"        # read when gradio is imported

import gradio as gr
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tagging.cli import parse, run_script
from tagging.data.competition import Clips, Competition, open_competition
from tagging.data.tables import check_same, label_texts
from tagging.errors import TaggingError
from tagging.evaluation import error_analysis
from tagging.evaluation.predict import make_tagger
from tagging.recipe import STAGES
from tagging.reporting import eda, plots, report
from tagging.run import StageFolder, stage_folder
from tagging.utils.devices import choose_device
from tagging.utils.files import read_json
from tagging_lite.audio import RemoveSilence, SoundError, load_clip, make_trim, read_mono
from tagging_lite.pictures import bars_figure, log_mel_figure, png, timeline_figure
from tagging_lite.tagger import Tagger
from tools.runs import list_runs

LONGEST_UPLOAD = 300    # seconds of a sound
LARGEST_UPLOAD = "100mb"
BARS = 10               # tags shown as bars
EXAMPLES = 20           # test clips to try
LISTED = 500            # clips in a list; the csv has them all


@dataclass(frozen=True, kw_only=True)
class App:
    data: Path                                          # competition folder, as Kaggle or Zenodo give it
    run: str                                            # the run that tags, and whose mistakes are shown
    models: Path = Path("models")                       # where the runs lie
    device: str = "auto"                                # auto is the GPU where there is one
    stage: Literal["noisy", "curated"] = "curated"      # which of its stages
    clips: int = 500                                    # clips of each set that are measured; 0 is all of them
    port: int = 7860                                    # of the page


def main() -> None:
    args = parse(App, __doc__.splitlines()[0])
    if args.clips < 0 or not 0 < args.port < 2**16:
        raise TaggingError("--clips must not be negative, and --port must lie from 1 to 65535.")
    competition = open_competition(args.data)
    folder = stage_folder(args.models, args.run, args.stage)
    check_same(folder.settings()["classes"], competition.classes, f"{folder}, compared with {args.data},", "classes",
               "Take the data that the run was trained on.")
    tagger = make_tagger(folder.load_models((), choose_device(args.device)))
    splits = eda.open_splits(competition)
    # What the set lacks is said by the same check as in the scripts.
    clips = splits[args.stage] if args.stage in splits else competition.clips(args.stage)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["GRADIO_TEMP_DIR"] = scratch     # uploads and recordings go when the page does
        with gr.Blocks(title=f"audio tagging: {args.run}") as page:
            gr.Markdown(f"# {args.run}, {args.stage} stage")
            with gr.Tab("Tag"):
                tag_tab(tagger, splits)
            with gr.Tab("Data"):
                data_tab(competition, splits, args.clips, make_trim(folder.recipe().trim_db))
            with gr.Tab("Mistakes"):
                mistakes_tab(folder, clips, Path(scratch))
            with gr.Tab("Runs"):
                runs_tab(args.models)
        page.queue(default_concurrency_limit=os.cpu_count())
        try:
            page.launch(server_name="127.0.0.1", server_port=args.port, max_file_size=LARGEST_UPLOAD, footer_links=[],
                        quiet=True, prevent_thread_lock=True)
            print(f"http://127.0.0.1:{args.port}  until Ctrl-C", flush=True)
            page.block_thread()
        except OSError as error:
            raise TaggingError(f"--port {args.port} is in use. Choose another one.") from error


def picture(figure: Figure) -> str:
    """As html that a page shows without asking for a file."""
    content = base64.b64encode(png(figure, report.DPI)).decode()
    return f'<img src="data:image/png;base64,{content}" style="max-width: 100%; width: 1000px">'


def show(sections: list[report.Section]) -> None:
    """Sections of a report as splits of a tab."""
    for section in sections:
        with gr.Accordion(section.title):
            gr.Markdown(section.text)
            for block in section.blocks:
                if isinstance(block, Figure):
                    gr.HTML(picture(block))
                elif isinstance(block, pd.DataFrame):
                    gr.Dataframe(block.map(report.cell), interactive=False, max_height=300)
                else:
                    gr.Markdown(block)


def clip_player() -> list[gr.components.Component]:
    """To hear and see one clip; what `play` returns goes there."""
    return [gr.Audio(label="sound", interactive=False, buttons=["download"]), gr.HTML()]


def play(path: Path) -> tuple[tuple[int, np.ndarray] | None, str]:
    """The sound of a clip, and its picture or what is wrong with it."""
    wave, rate, fault = load_clip(path, None)
    return (None, html.escape(f"{path.name}: {fault}")) if fault else (
        (rate, wave), picture(log_mel_figure(wave, rate, path.name)))


def tag_tab(tagger: Tagger, splits: dict[str, Clips]) -> None:
    examples = next(iter(splits.values())) if "test" not in splits else splits["test"]
    paths = dict(zip(examples.fnames[:EXAMPLES], examples.paths))

    def tag(upload: str | None) -> tuple[str, str, str, str]:
        """The path of an upload -> what was found, and three pictures."""
        if upload is None:
            return "", "", "", ""
        try:
            heard = tagger.tag_file(Path(upload), True, LONGEST_UPLOAD)
            wave = np.concatenate(list(read_mono(Path(upload), tagger.info.sample_rate)))
        except SoundError as error:
            name = Path(upload).name
            return f"{name} cannot be tagged: {str(error).replace(upload, name)}.", "", "", ""
        best = tagger.best(heard.probabilities, BARS)
        return (f"{best[0][0]}: {best[0][1]:.0%}, in {heard.seconds:.1f} seconds of sound",
                picture(bars_figure(best, "probability of each tag")),
                picture(log_mel_figure(wave, tagger.info.sample_rate, "log-mel spectrogram")),
                picture(timeline_figure(heard.timeline, tagger.info.classes)))

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
        if name is None:        # the set was chosen first
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
    show(report.data_sections(splits, sounds, competition.classes))


def mistakes_tab(folder: StageFolder, clips: Clips, scratch: Path) -> None:
    truth, predictions = error_analysis.out_of_fold(folder)
    table = error_analysis.clip_table(truth, predictions)
    paths = dict(zip(clips.fnames, clips.paths))

    def show_clip(event: gr.SelectData) -> tuple:
        fname = event.row_value[0]
        if fname not in paths:
            return None, f"{html.escape(fname)} is no longer in the data", ""
        return *play(paths[fname]), picture(report.prediction_bars(truth.loc[fname], predictions.loc[fname]))

    exported = scratch / f"{folder.run}-{folder.path.name}-clips.csv"
    error_analysis.write_clip_table(exported, table)
    gr.Markdown(f"### {len(table):,} clips, the lowest precision first\n"
                f"Choose a row to hear and see the clip, with its labels and predictions. {LISTED} are listed at most.")
    rows = gr.Dataframe(report.named(table[:LISTED], "fname").drop(columns="new_labels").map(report.cell),
                        interactive=False, max_height=300, elem_id="worst")
    gr.DownloadButton("Export all as csv, to relabel", value=str(exported))
    player = clip_player()
    bars = gr.HTML()
    rows.select(show_clip, None, [*player, bars])
    show(report.about_mistakes(truth, predictions))


def runs_tab(models: Path) -> None:
    """Read anew whenever the page is opened."""
    def curves(stage: str) -> str:
        table, odd = list_runs(models)
        logs, scores = {}, {}
        for run in table.run[table.stage == stage] if len(table) else ():
            folder = StageFolder(models / run / stage)
            try:
                logs |= {run: found} if (found := report.read_logs(folder)) else {}
                # Not from scores.json: a training under way writes that after its first fold.
                found = {fold: read_json(folder.record(fold), "Train the fold again.")["lwlrap"]
                         for fold in folder.finished_folds()}
                scores |= {run: pd.Series(found)} if found else {}
            except TaggingError as error:       # one odd run must not hide the others
                odd.append(error)
        return "".join([*(f"<p>{html.escape(str(error))}</p>" for error in odd),
                        picture(plots.fold_scores(scores)) if scores else "",
                        picture(plots.learning_curves(logs, f"{stage} stage")) if logs else ""])

    gr.Dataframe(lambda: list_runs(models)[0], label="all runs, newest first", interactive=False)
    for stage in reversed(STAGES):
        gr.Markdown(f"### {stage} stage")
        gr.HTML(partial(curves, stage))


if __name__ == "__main__":
    run_script(main)
