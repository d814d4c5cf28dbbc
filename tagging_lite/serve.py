"""HTTP service for an exported model.

    python -m tagging_lite.serve MODEL.onnx [--host 127.0.0.1] [--port 8000]

    curl --data-binary @dog.wav "localhost:8000/tags?top=5&timeline=true"         length, tags, tags of each second
    curl --data-binary @dog.wav "localhost:8000/tags.png?top=10" -o tags.png      figure of the probabilities
    curl --data-binary @dog.wav  localhost:8000/spectrogram.png  -o mel.png       log-mel spectrogram
    curl localhost:8000/health                                                    classes and sample rate of the model
"""
import argparse
import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from starlette.requests import ClientDisconnect

from tagging_lite.audio import concatenate, read_mono, require_sound
from tagging_lite.console import prepare_streams
from tagging_lite.cores import available_cores
from tagging_lite.errors import SoundError, TaggingError
from tagging_lite.onnx import load_onnx
from tagging_lite.pictures import bars_figure, log_mel_figure, png
from tagging_lite.tagger import Tagger

Answer = TypeVar("Answer")
Top = Annotated[int, Query(ge=1, le=1000)]
Threshold = Annotated[float, Query(ge=0, le=1)]


@dataclass(frozen=True)
class Limits:
    """Limits of the requests."""
    megabytes: float = 20           # size of an upload
    sound_seconds: float = 300      # length of the sound in it
    wait_seconds: float = 60        # time of the upload, and time until its processing starts
    concurrency: int = available_cores()      # number of sounds that are processed at the same time


def make_app(tagger: Tagger, limits: Limits) -> FastAPI:
    """Build the service."""
    app = FastAPI(title="audio tagging", docs_url=None, redoc_url=None)     # those pages load scripts from other hosts
    slots = asyncio.Semaphore(limits.concurrency)

    async def process_upload(request: Request, process: Callable[[Path], Answer]) -> Answer:
        """Write the upload to a file, and call `process` with it in a thread.

        Raises:
            HTTPException: 400 the upload was interrupted, 408 it was too slow, 413 it is too large, 422 the sound
                cannot be used, 503 the service is busy.
        """
        with tempfile.NamedTemporaryFile() as file:
            try:
                async with asyncio.timeout(limits.wait_seconds):
                    async for block in request.stream():
                        file.write(block)
                        if file.tell() > limits.megabytes * 2**20:
                            raise HTTPException(413, f"The upload is too large: at most {limits.megabytes:g} MB are "
                                                "allowed. Send a shorter or a compressed sound.")
            except TimeoutError:
                raise HTTPException(408, f"The upload took more than {limits.wait_seconds:g} seconds. Send a smaller "
                                    "file.") from None
            except ClientDisconnect:
                raise HTTPException(400, "The upload was interrupted. Send it again.") from None
            file.flush()
            try:
                async with asyncio.timeout(limits.wait_seconds):
                    await slots.acquire()
            except TimeoutError:
                raise HTTPException(503, "Too many sounds are waiting. Try again later.") from None
            try:
                return await asyncio.to_thread(process, Path(file.name))
            except SoundError as error:
                reason = str(error).replace(file.name, "the upload")
                raise HTTPException(422, f"The sound cannot be used: {reason}. Send another file.") from None
            finally:
                slots.release()

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "classes": tagger.info.classes, "sample_rate": tagger.info.sample_rate}

    @app.post("/tags")
    async def tags(request: Request, top: Top = 5, threshold: Threshold = 0.0,
                   timeline: bool = False) -> dict[str, object]:
        return await process_upload(request, lambda path: tagger.describe(
            tagger.tag_file(path, timeline, limits.sound_seconds), top, threshold))

    @app.post("/tags.png")
    async def tags_picture(request: Request, top: Top = 10, threshold: Threshold = 0.0) -> Response:
        def draw(path: Path) -> bytes:
            result = tagger.tag_file(path, longest=limits.sound_seconds)
            return png(bars_figure(tagger.top_tags(result.probabilities, top, threshold)))
        return Response(await process_upload(request, draw), media_type="image/png")

    @app.post("/spectrogram.png")
    async def spectrogram(request: Request) -> Response:
        def draw(path: Path) -> bytes:
            wave = concatenate(read_mono(path, tagger.info.sample_rate, limits.sound_seconds))
            require_sound(wave)
            return png(log_mel_figure(wave, tagger.info.sample_rate))
        return Response(await process_upload(request, draw), media_type="image/png")

    return app


def main() -> None:
    prepare_streams()
    limits = Limits()
    parser = argparse.ArgumentParser(prog="python -m tagging_lite.serve", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Exported model, written by tools.export.")
    parser.add_argument("--host", default="127.0.0.1",
                        help="Address of the service. 0.0.0.0 accepts connections from other machines. The default is "
                             "%(default)s.")
    parser.add_argument("--port", type=int, default=8000, help="Port of the service. The default is %(default)s.")
    parser.add_argument("--max-megabytes", type=float, default=limits.megabytes,
                        help="Largest size of an upload. The default is %(default)g.")
    parser.add_argument("--max-seconds", type=float, default=limits.sound_seconds,
                        help="Greatest length of a sound. The default is %(default)g.")
    parser.add_argument("--max-wait", type=float, default=limits.wait_seconds,
                        help="Longest time of an upload, and again until its processing starts, in seconds. The "
                             "default is %(default)g.")
    args = parser.parse_args()
    try:
        tagger = load_onnx(args.model, threads=1)       # the requests share the cores
    except TaggingError as error:
        parser.exit(2, f"error: {error}\n")
    app = make_app(tagger, Limits(args.max_megabytes, args.max_seconds, args.max_wait))
    uvicorn.run(app, host=args.host, port=args.port, limit_concurrency=200)     # further requests get a 503


if __name__ == "__main__":
    main()
