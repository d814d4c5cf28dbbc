"""Components of the page of tools.app: figures, sections of a report, and a player for clips."""
import html
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tagging.reporting.report import encode_figure, format_cell
from tagging.reporting.sections import Section
from tagging_lite.audio import load_clip
from tagging_lite.pictures import log_mel_figure


def picture(figure: Figure) -> str:
    """Return a figure as html that contains the image."""
    return (f'<img src="data:image/png;base64,{encode_figure(figure)}" '
            'style="max-width: 100%; width: 1000px">')


def show(sections: Sequence[Section]) -> None:
    """Show sections of a report in a tab."""
    for section in sections:
        with gr.Accordion(section.title):
            gr.Markdown(section.text)
            for block in section.blocks:
                if isinstance(block, Figure):
                    gr.HTML(picture(block))
                elif isinstance(block, pd.DataFrame):
                    gr.Dataframe(block.map(format_cell), interactive=False, max_height=300)
                elif isinstance(block, Section):
                    show([block])
                else:
                    gr.Markdown(block)


def clip_player() -> list[gr.components.Component]:
    """Return a player and a picture for a clip, the outputs of `play`."""
    return [gr.Audio(label="sound", interactive=False, buttons=["download"]), gr.HTML()]


def play(path: Path) -> tuple[tuple[int, np.ndarray] | None, str]:
    """Return the sound of a clip, and its picture or the reason why it cannot be used."""
    wave, rate, fault, _ = load_clip(path, None)
    if fault:
        return None, html.escape(f"{path.name}: {fault}")
    return (rate, wave), picture(log_mel_figure(wave, rate, path.name))
