"""An HTTP service around an exported model.

    python -m tagging_lite.serve MODEL.onnx [--host 127.0.0.1] [--port 8000]

    curl --data-binary @dog.wav "localhost:8000/tags?top=5&timeline=true"         seconds, tags, tags by second
    curl --data-binary @dog.wav "localhost:8000/tags.png?top=10" -o tags.png      the probabilities as a picture
    curl --data-binary @dog.wav  localhost:8000/spectrogram.png  -o mel.png       its log-mel spectrogram
    curl localhost:8000/health                                                    200, and what the model hears
"""
import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from starlette.requests import ClientDisconnect

from tagging_lite.audio import join, read_mono, require_sound
from tagging_lite.errors import SoundError, TaggingError
from tagging_lite.onnx import load_onnx
from tagging_lite.pictures import bars_figure, log_mel_figure, png
from tagging_lite.tagger import Tagger

Answer = TypeVar("Answer")
Top = Annotated[int, Query(ge=1, le=1000)]
Threshold = Annotated[float, Query(ge=0, le=1)]


@dataclass(frozen=True)
class Limits:
    """What one request may take."""
    megabytes: float = 20           # of the upload
    sound_seconds: float = 300      # of the sound in it
    wait_seconds: float = 60        # for the upload to come, and again for its turn
    at_once: int = os.cpu_count() or 1      # sounds that are worked on; the others wait their turn


def make_app(tagger: Tagger, limits: Limits) -> FastAPI:
    app = FastAPI(title="audio tagging", docs_url=None, redoc_url=None)     # those pages load scripts from elsewhere
    turn = asyncio.Semaphore(limits.at_once)

    async def answer(request: Request, work: Callable[[Path], Answer]) -> Answer:
        """Receive the sound into a file and let `work` have it in a thread.

        Raises:
            HTTPException: 400 broken off, 408 too slow, 413 too large, 422 no sound that can be used, 503 too busy.
        """
        with tempfile.NamedTemporaryFile() as file:
            try:
                async with asyncio.timeout(limits.wait_seconds):
                    async for block in request.stream():
                        file.write(block)
                        if file.tell() > limits.megabytes * 2**20:
                            raise HTTPException(413, f"The sound may have {limits.megabytes:g} MB at most.")
            except TimeoutError:
                raise HTTPException(408, f"The sound took more than {limits.wait_seconds:g} s to come.") from None
            except ClientDisconnect:
                raise HTTPException(400, "The sound did not come to its end.") from None
            file.flush()
            try:
                async with asyncio.timeout(limits.wait_seconds):
                    await turn.acquire()
            except TimeoutError:
                raise HTTPException(503, "Too many sounds are waiting. Try again later.") from None
            try:
                return await asyncio.to_thread(work, Path(file.name))
            except SoundError as error:
                reason = str(error).replace(file.name, "the upload")
                raise HTTPException(422, f"The sound cannot be used: {reason}") from None
            finally:
                turn.release()

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok", "classes": tagger.info.classes, "sample_rate": tagger.info.sample_rate}

    @app.post("/tags")
    async def tags(request: Request, top: Top = 5, threshold: Threshold = 0.0, timeline: bool = False) -> dict:
        return await answer(request, lambda path: tagger.describe(
            tagger.tag_file(path, timeline, limits.sound_seconds), top, threshold))

    @app.post("/tags.png")
    async def tags_picture(request: Request, top: Top = 10, threshold: Threshold = 0.0) -> Response:
        def draw(path: Path) -> bytes:
            result = tagger.tag_file(path, longest=limits.sound_seconds)
            return png(bars_figure(tagger.best(result.probabilities, top, threshold)))
        return Response(await answer(request, draw), media_type="image/png")

    @app.post("/spectrogram.png")
    async def spectrogram(request: Request) -> Response:
        def draw(path: Path) -> bytes:
            wave = join(read_mono(path, tagger.info.sample_rate, limits.sound_seconds))
            require_sound(wave)
            return png(log_mel_figure(wave, tagger.info.sample_rate))
        return Response(await answer(request, draw), media_type="image/png")

    return app


def main() -> None:
    limits = Limits()
    parser = argparse.ArgumentParser(prog="python -m tagging_lite.serve", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="what tools.export wrote")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-megabytes", type=float, default=limits.megabytes, help="of an upload")
    parser.add_argument("--max-seconds", type=float, default=limits.sound_seconds, help="of a sound")
    parser.add_argument("--max-wait", type=float, default=limits.wait_seconds,
                        help="seconds for an upload to come, and again for its turn")
    args = parser.parse_args()
    try:
        tagger = load_onnx(args.model, threads=1)       # the requests share the cores
    except TaggingError as error:
        parser.exit(2, f"error: {error}\n")
    app = make_app(tagger, Limits(args.max_megabytes, args.max_seconds, args.max_wait))
    uvicorn.run(app, host=args.host, port=args.port, limit_concurrency=200)     # more at once are told 503


if __name__ == "__main__":
    main()
