"""The routes of the page."""
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tagging.data.competition import Clips, Competition
from tagging.errors import TaggingError
from tagging.evaluation import error_analysis
from tagging.reporting import eda
from tagging.reporting.data_sections import data_sections
from tagging_lite.audio import RemoveSilence
from tagging_lite.errors import SoundError
from tagging_lite.pictures import printable
from tools.page.clips import ClassClips, Mistakes
from tools.page.render import HERE, render, show_sections
from tools.page.runs import compare_runs, read_entries, runs_page
from tools.page.sounds import Sounds
from tools.page.tags import Tagging, describe_sound

LARGEST = 100 * 2**20   # bytes of an upload
LARGEST_MOMENT = 10 * 2**20
Second = Annotated[float, Query(ge=0, le=1e6)]
EXAMPLES = 20           # test clips in the list of examples
# The browser loads nothing from other hosts for this page, and shows it in no other page.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


@dataclass(frozen=True)
class Page:
    """Everything that the page shows."""
    title: str
    competition: Competition
    splits: dict[str, Clips]
    limit: int                      # clips of each split whose sounds are measured; 0 measures all
    trim: RemoveSilence
    models: Path
    tagging: Tagging
    mistakes: Mistakes
    lock: threading.Lock

    @property
    def sounds(self) -> Sounds:
        return self.tagging.sounds

    @cached_property
    def labelled(self) -> ClassClips:
        return ClassClips(eda.labelled(self.splits), self.competition.classes)

    @cached_property
    def examples(self) -> Clips:
        return self.splits.get("test", next(iter(self.splits.values())))

    def home(self) -> str:
        clips, classes = self.examples, self.competition.classes
        return render("app.html", title=self.title, data=self.competition.root.resolve().name, classes=classes,
                      splits=list(self.labelled.splits), window=self.tagging.tagger.info.window
                      / self.tagging.tagger.info.sample_rate, stage=self.mistakes.clips.split,
                      examples=[(f"{clips.split}-{place}", fname)
                                for place, fname in enumerate(clips.fnames[:EXAMPLES])],
                      clips=len(self.mistakes.table), entries=[entry.name for entry in read_entries(self.models)[0]
                                                               if len(entry.scores)])

    @cached_property
    def data(self) -> str:
        """The sections about the data. Measuring the sounds can take minutes."""
        measured = {split: eda.choose_clips(clips, self.limit) for split, clips in self.splits.items()}
        sounds = {split: eda.measure_sounds(clips, self.trim) for split, clips in measured.items()}
        return show_sections(data_sections(self.splits, sounds, self.competition.classes), "data")


def make_app(page: Page) -> FastAPI:
    """Build the server of the page."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.mount("/static", StaticFiles(directory=HERE / "static"))

    @app.middleware("http")
    async def guard(request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse requests that other web pages make, and limit what the page may load."""
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            return JSONResponse({"detail": "Requests from other pages are refused. Open the page itself."}, 403)
        response = await respond(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.exception_handler(SoundError)
    @app.exception_handler(TaggingError)
    async def explain(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": printable(str(error))}, 422)

    @app.exception_handler(LookupError)
    async def not_found(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "This is no longer available. Load the page again."}, 404)

    @app.get("/", response_class=HTMLResponse)
    def home() -> str:
        return page.home()

    @app.get("/charts.css")
    def style() -> Response:
        return Response(render("charts.css"), media_type="text/css")

    @app.post("/tag")
    async def tag(request: Request, name: str = "the sound") -> dict[str, object]:
        """Tag the body of the request, a sound file."""
        with tempfile.NamedTemporaryFile(suffix=Path(name).suffix[:10] if name.isprintable() else "") as file:
            file.write(await read_body(request, LARGEST))
            file.flush()
            return await run_in_threadpool(page.tagging.tag_upload, Path(file.name), printable(name))

    @app.post("/live")
    async def live(request: Request, rate: int) -> dict[str, object]:
        """Tag the body of the request: the newest samples of a microphone."""
        return await run_in_threadpool(page.tagging.tag_moment, await read_body(request, LARGEST_MOMENT), rate)

    @app.get("/example/{sound}")
    def example(sound: str) -> dict[str, object]:
        path = page.sounds.path(sound)
        return page.tagging.tag_upload(path, path.name)

    @app.get("/sound/{sound}")
    def describe(sound: str) -> dict[str, object]:
        wave, rate = page.sounds.get(sound)
        return describe_sound(sound, page.sounds.path(sound).name, len(wave), rate)

    @app.get("/sound/{sound}/audio.wav")
    def audio(sound: str) -> Response:
        return Response(page.sounds.wav(sound), media_type="audio/wav")

    @app.get("/sound/{sound}/spectrogram.png")
    def spectrogram(sound: str, start: Second, end: Second) -> Response:
        return Response(page.sounds.spectrogram(sound, start, end), media_type="image/png")

    @app.get("/clips")
    def clips(split: str, name: str, first: int = 0) -> dict[str, object]:
        return page.labelled.rows(split, name, max(first, 0))

    @app.get("/mistakes")
    def mistakes(name: str = "", other: str = "", first: int = 0) -> dict[str, object]:
        return page.mistakes.rows(name, other, max(first, 0))

    @app.get("/mistakes/{clip}")
    def mistake(clip: int) -> dict[str, str]:
        return {"bars": page.mistakes.bars(clip)}

    @app.get("/clips.csv")
    def export() -> Response:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clips.csv"
            error_analysis.write_clip_table(path, page.mistakes.table)
            content = path.read_bytes()
        name = f"{page.mistakes.folder.run}-{page.mistakes.folder.path.name}-clips.csv"
        return Response(content, media_type="text/csv",
                        headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @app.get("/sections/mistakes", response_class=HTMLResponse)
    def mistake_sections() -> str:
        return page.mistakes.sections

    @app.get("/sections/data", response_class=HTMLResponse)
    def data() -> str:
        with page.lock:         # measure once, however many visitors wait
            return page.data

    @app.get("/sections/runs", response_class=HTMLResponse)
    def runs() -> str:
        return runs_page(*read_entries(page.models))

    @app.get("/sections/compare", response_class=HTMLResponse)
    def compare(run: str, other: str) -> str:
        return compare_runs(page.models, run, other)

    return app


async def read_body(request: Request, limit: int) -> bytes:
    """
    Raises:
        HTTPException: 413, the body is larger than `limit` bytes.
    """
    content = bytearray()
    async for block in request.stream():
        content += block
        if len(content) > limit:
            raise HTTPException(413, f"The sound is larger than {limit // 2**20} MB. Send a shorter or a compressed "
                                "one.")
    return bytes(content)
