"""The paths of the service."""
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteException
from starlette.middleware.cors import CORSMiddleware

from tagging_lite.audio import concatenate, read_mono, require_sound
from tagging_lite.batching import SharedBatches
from tagging_lite.console import json_text
from tagging_lite.errors import TaggingError
from tagging_lite.pictures import bars_figure, log_mel_figure, png
from tagging_lite.service.docs import BODIES, ERRORS, POLICY, Health, Ready, TagsAnswer, docs_page
from tagging_lite.service.limits import Limits, Stop
from tagging_lite.service.observe import Metrics, ModelName, Observer
from tagging_lite.service.processing import Processing
from tagging_lite.service.upload import raw_command
from tagging_lite.tagger import Tagger, TagResult
from tagging_lite.thresholds import choose_thresholds

Content = TypeVar("Content")

LINGER = 5.0      # seconds

Responses = dict[int | str, dict[str, Any]]

UPLOADS = ["/tags", "/tags.png", "/spectrogram.png"]
PATHS = [*UPLOADS, "/health", "/ready", "/metrics", "/docs", "/openapi.json"]
TAGS: Responses = {200: {"model": TagsAnswer, "description": "The tags."}}
PICTURE: Responses = {200: {"description": "The figure.", "content": {"image/png": {"schema": {"type": "string",
                                                                                    "format": "binary"}}}}}


class NoOptions(BaseModel, extra="forbid"):
    """A path without options."""


class BarsOptions(NoOptions):
    """The options of /tags.png."""
    top: int = Field(10, ge=1, le=1000, description="Number of tags, at most.")
    threshold: str = Field("0", description="Leave out tags with a lower probability: a number from 0 to 1, auto, or "
                                            "precision:P such as precision:0.9.")


class TagsOptions(BarsOptions):
    """The options of /tags."""
    top: int = Field(5, ge=1, le=1000, description="Number of tags, at most.")
    timeline: bool = Field(False, description="Also tag each second.")


OPTIONS: dict[str, type[BaseModel]] = dict(zip(UPLOADS, (TagsOptions, BarsOptions, NoOptions)))


@dataclass
class Service:
    """The application, and what its server needs of it."""
    app: Observer
    processing: Processing
    metrics: Metrics


def make_service(tagger: Tagger, name: str, limits: Limits, stop: Stop, log: logging.Logger,
                 origins: list[str]) -> Service:
    """Build the service.

    Args:
        name: of the model.
        log: of the requests.
        origins: web pages on other hosts that may use the service, such as https://example.org, or * for all.
    """
    model = ModelName(name, tagger.file_sha256)
    metrics = Metrics(tagger.info, model, PATHS)
    processing = Processing(limits, stop, metrics)

    def logits(windows: np.ndarray) -> np.ndarray:
        metrics.batches.observe(len(windows))
        return tagger.logits(windows)

    shared = replace(tagger, logits=SharedBatches(logits, limits.batch_windows, limits.batch_wait))
    warm = asyncio.Event()

    async def warm_up() -> None:
        wave = np.random.default_rng(0).integers(-999, 999, shared.info.window).astype(np.int16)
        try:
            await asyncio.wrap_future(processing.pool.submit(shared.tag, wave))
        except Exception as error:
            print(f"error: The model cannot be computed: {error}. Export it again.", file=sys.stderr, flush=True)
            return
        warm.set()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(warm_up())
        yield
        task.cancel()
        processing.close()

    app = FastAPI(title="audio tagging", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan,
                  description="Tags sounds. Send a sound to one of these paths.")

    def answer(content: dict[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return Response(json_text({**content, "model": asdict(model)}), status, headers, "application/json")

    async def tag(request: Request, timeline: bool, form: Callable[[TagResult], Content]) -> Content:
        """Tag the sound of a request, record the tags, and return what `form` makes of them."""
        def work(path: Path) -> tuple[TagResult, Content]:
            result = shared.tag_file(path, timeline, limits.sound_seconds)
            return result, form(result)

        result, content = await processing.process(request, work)
        metrics.add_result(result)
        request.state.entry.add_result(tagger, result)
        return content

    def thresholds(text: str) -> tuple[np.ndarray, list[str]]:
        """Return the threshold of each class, and remarks for the answer."""
        try:
            values, remarks = choose_thresholds(text, tagger.info)
            return values, [remark.removeprefix("note: ") for remark in remarks]
        except TaggingError as error:
            raise HTTPException(422, str(error).replace("--threshold", "threshold")) from error

    @app.post("/tags", summary="Tag a sound.", openapi_extra=BODIES, responses=TAGS | ERRORS)
    async def tags(request: Request, options: Annotated[TagsOptions, Query()]) -> Response:
        threshold, remarks = thresholds(options.threshold)
        return answer(await tag(request, options.timeline, lambda result: tagger.describe(
            replace(result, notes=(*result.notes, *remarks)), options.top, threshold)))

    @app.post("/tags.png", summary="Draw the probabilities of the tags of a sound.", openapi_extra=BODIES,
              responses=PICTURE | ERRORS, response_class=Response)
    async def tags_picture(request: Request, options: Annotated[BarsOptions, Query()]) -> Response:
        threshold, _ = thresholds(options.threshold)
        return Response(await tag(request, False, lambda result: png(bars_figure(
            tagger.top_tags(result.probabilities, options.top, threshold)))), media_type="image/png")

    @app.post("/spectrogram.png", summary="Draw the log-mel spectrogram of a sound.", openapi_extra=BODIES,
              responses=PICTURE | ERRORS, response_class=Response)
    async def spectrogram(request: Request, options: Annotated[NoOptions, Query()]) -> Response:
        def draw(path: Path) -> bytes:
            wave = concatenate(read_mono(path, tagger.info.sample_rate, limits.sound_seconds))
            require_sound(wave)
            return png(log_mel_figure(wave, tagger.info.sample_rate))

        return Response(await processing.process(request, draw), media_type="image/png")

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Whether the service is running, with the classes and the sample rate of the model.",
             responses={200: {"model": Health}})
    async def health() -> Response:
        return answer({"status": "ok", "classes": tagger.info.classes, "sample_rate": tagger.info.sample_rate})

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", summary="Whether the service takes sounds: not before the model has been computed once, and "
             "not while the service shuts down.", responses={200: {"model": Ready}, 503: ERRORS[503]})
    async def ready() -> Response:
        stop.check(0)
        if not warm.is_set():
            raise HTTPException(503, "The model has not been computed yet. Try again in a second.",
                                {"Retry-After": "1"})
        return answer({"status": "ready"})

    @app.get("/metrics", summary="Numbers for Prometheus.", response_class=Response,
             responses={200: {"description": "The numbers.", "content": {"text/plain": {}}}})
    async def numbers() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()), headers={"Content-Security-Policy": POLICY})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(json_text(app.openapi()), media_type="application/json")

    def fail(request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
        request.state.entry.detail = detail
        return answer({"detail": detail}, status, headers)

    @app.exception_handler(StarletteException)
    async def http_error(request: Request, error: StarletteException) -> Response:
        path = request.url.path
        detail = {404: f"There is no {path}. The paths are {', '.join(PATHS)}.",
                  405: f"{path} does not take {request.method}. {usage(request)}"}.get(error.status_code, error.detail)
        return fail(request, error.status_code, detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid_option(request: Request, error: RequestValidationError) -> Response:
        return fail(request, 422, describe_options(request, error))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return fail(request, 500, "The service has a fault, which its own log describes. Tell its operator.")

    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"],
                           expose_headers=["X-Model-Name", "X-Model-SHA256", "Retry-After"])
    return Service(Observer(app, metrics, log, model, min(LINGER, limits.stall_seconds)), processing, metrics)


def usage(request: Request) -> str:
    """Return the right command for a path."""
    if request.url.path in UPLOADS:
        return f"Send a sound: {raw_command(request)}"
    return f"Use GET: curl {request.url.replace(query='')}"


def describe_options(request: Request, error: RequestValidationError) -> str:
    """Return the invalid options of a request as one text."""
    known = [name for name in ("top", "threshold", "timeline") if name in OPTIONS[request.url.path].model_fields]
    texts = []
    for fault in error.errors():
        name = str(fault["loc"][-1])
        if fault["type"] == "extra_forbidden":
            near = get_close_matches(name, known, 1)
            texts.append(f"{request.url.path} has no option '{name}'." + (f" Did you mean '{near[0]}'?" if near else
                         f" Its options are {', '.join(known)}." if known else " It has no options."))
        else:
            texts.append(f"The option {name} is '{fault['input']}'. {fault['msg']}.")
    return " ".join(texts)
