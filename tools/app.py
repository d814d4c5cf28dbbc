"""A page on localhost: tag sounds and the microphone, look at the data and the errors of a run, and compare runs.

    python -m tools.app --run NAME --data DIR

The page loads nothing from other hosts, and serves no files except those that it shows.
"""
import socket
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import uvicorn

from tagging.baselines.runs import load_tagger
from tagging.cli import parse, run_script
from tagging.data.competition import open_competition
from tagging.data.tables import check_same
from tagging.errors import TaggingError
from tagging.options import CompetitionOption, DeviceOption, Flat, RunOptions, shown_default
from tagging.reporting import eda
from tagging.run import stage_folder
from tagging.utils.devices import choose_device
from tagging_lite.audio import RemoveSilence, make_trim
from tagging_lite.batching import SharedBatches
from tagging_lite.similar import index_parts
from tools.page.clips import Mistakes
from tools.page.server import Page, make_app
from tools.page.sounds import Sounds
from tools.page.tags import Tagging

HOST = "127.0.0.1"
WAIT = 0.005        # seconds that a batch waits for the windows of other visitors


@dataclass(frozen=True, kw_only=True)
class PageOptions(DeviceOption, CompetitionOption):
    """The page and its data."""
    clips: int = 500        # Number of clips of each split whose sounds are measured. 0 measures all clips.
    index: Annotated[Path | None, shown_default("", "DIR")] = None  # Output of tools.tag --embeddings: similar sounds.
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
    if args.page.index:
        index_parts(args.page.index)        # before the models are loaded
    competition = open_competition(args.page.data)
    folder = stage_folder(run.models, run.run, run.stage)
    check_same(folder.settings()["classes"], competition.classes, f"{folder}, compared with {args.page.data},",
               "classes", "Use the data that the run was trained on.")
    tagger = load_tagger(folder, (), choose_device(args.page.device))
    splits = eda.open_splits(competition)
    if run.stage not in splits:
        competition.clips(run.stage)        # raises the same error as in the scripts
    batches = SharedBatches(tagger.logits, tagger.batch, WAIT)
    page = Page(f"run {run.run}, {run.stage} stage", competition, splits, args.page.clips,
                make_trim(folder.recipe().trim_db) or RemoveSilence(), run.models,
                Tagging(replace(tagger, logits=batches), Sounds(splits, tagger.info.sample_rate), args.page.index),
                Mistakes.of(folder, splits[run.stage]),
                threading.Lock())
    serve(page, port)


def serve(page: Page, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        TaggingError: the port is in use.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise TaggingError(f"--port {port} cannot be used: {error.strerror}. Choose another one.") from error
        listener.listen()
        print(f"http://{HOST}:{port}  until Ctrl-C", flush=True)
        server = uvicorn.Server(uvicorn.Config(make_app(page), log_level="warning", timeout_graceful_shutdown=2))
        server.run([listener])


if __name__ == "__main__":
    run_script(main)
