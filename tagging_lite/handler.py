"""AWS Lambda: tag each sound that is put into an S3 bucket, and write the results beside it.

For an object KEY the function writes three others into its bucket:

    KEY.tags.json           length, tags and probabilities; or "error" if the sound cannot be used
    KEY.tags.png            figure of the probabilities
    KEY.spectrogram.png     log-mel spectrogram

The environment can set MODEL, the path of the exported model; TOP, the number of tags; MAX_MEGABYTES and MAX_SECONDS,
the limits of a sound. Errors of S3 are raised, so that Lambda calls the function again.
"""
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import boto3
import numpy as np

from tagging_lite.audio import concatenate, read_mono
from tagging_lite.console import json_text
from tagging_lite.errors import SoundError, TaggingError, one_line
from tagging_lite.onnx import load_onnx
from tagging_lite.pictures import bars_figure, log_mel_figure, png
from tagging_lite.tagger import Tagger, TagResult

TAGS, BARS, SPECTROGRAM = ".tags.json", ".tags.png", ".spectrogram.png"
RESERVE = 2.0       # seconds of the function's time limit that are kept for the figures and the uploads
Clock = Callable[[], float]

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)


@dataclass(frozen=True)
class Settings:
    """The environment of the function."""
    model: Path = Path("model.onnx")
    top: int = 10
    megabytes: float = 200          # size of a sound; Lambda has 512 MB of disk
    seconds: float = 300            # length of a sound

    @classmethod
    def read(cls) -> "Settings":
        """
        Raises:
            TaggingError: a variable has an invalid value.
        """
        kinds = {"model": Path, "top": int, "megabytes": float, "seconds": float}
        names = {"model": "MODEL", "top": "TOP", "megabytes": "MAX_MEGABYTES", "seconds": "MAX_SECONDS"}
        values: dict[str, Any] = {}
        for field, name in names.items():
            if text := os.environ.get(name):
                try:
                    values[field] = kinds[field](text)
                    valid = field == "model" or values[field] > 0
                except ValueError:
                    valid = False
                if not valid:
                    raise TaggingError(f"The environment variable {name} is '{text}', which is no number above 0. "
                                       "Correct it in the configuration of the function.")
        return cls(**values)


@cache
def load() -> tuple[Settings, Tagger, Any]:
    """Load the settings, the model and the client of S3 once for each container.

    Raises:
        TaggingError: the settings or the model are invalid.
    """
    settings = Settings.read()
    return settings, load_onnx(settings.model), boto3.client("s3")


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:        # in Lambda, before the first event
    load()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Tag the objects of an event of S3.

    Args:
        event: notification of S3, with one or more records.
        context: of Lambda, with the time that is left.
    Returns:
        "tagged", "unusable" and "ignored": lists of keys.
    Raises:
        TaggingError: the event is no notification of S3, or as `load`.
        Exception: an error of S3. The other records were processed before.
    """
    if event.get("Event") == "s3:TestEvent":
        return {"tagged": [], "unusable": [], "ignored": []}
    if not isinstance(event.get("Records"), list):
        raise TaggingError("The event has no Records. Use a notification of S3 as the trigger of the function.")
    done: dict[str, Any] = {"tagged": [], "unusable": [], "ignored": []}
    errors: list[Exception] = []
    for record in event["Records"]:
        try:
            bucket, place = record["s3"]["bucket"]["name"], record["s3"]["object"]
            key = unquote_plus(place["key"])
            created = record.get("eventName", "ObjectCreated").startswith("ObjectCreated")
        except (LookupError, TypeError, AttributeError) as error:
            raise TaggingError(f"A record of the event is no notification of S3: {error!r} is missing or invalid. Use "
                               "a notification of S3 as the trigger of the function.") from error
        # Our own results start the function too, if the trigger has no filter.
        if not created or key.endswith(("/", TAGS, BARS, SPECTROGRAM)):
            done["ignored"].append(key)
            continue
        try:
            usable = tag_object(bucket, key, place.get("versionId"),
                                lambda: context.get_remaining_time_in_millis() / 1000)
            done["tagged" if usable else "unusable"].append(key)
        except Exception as error:      # of S3; the other records must be processed
            log.error("%s in %s: %s", one_line(key), bucket, error)
            errors.append(error)
    if errors:
        raise errors[0]
    return done


def tag_object(bucket: str, key: str, version: str | None, remaining: Clock) -> bool:
    """Tag an object, and write the results.

    Args:
        version: of the object, in a bucket with versions.
        remaining: returns the seconds until Lambda stops the function.
    Returns:
        whether the sound can be used. If not, KEY.tags.json has the reason.
    """
    settings, tagger, client = load()
    identity = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})

    def put(suffix: str, content: bytes, kind: str) -> None:
        client.put_object(Bucket=bucket, Key=key + suffix, Body=content, ContentType=kind)

    about = {"key": key} | ({"version": version} if version else {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sound")
        try:
            download(client, identity, path, settings.megabytes)
            result, wave = tag_sound(tagger, path, settings.seconds, remaining)
        except SoundError as error:
            reason = str(error).replace(str(path), "the object")
            log.info("%s in %s cannot be used: %s", one_line(key), bucket, reason)
            put(TAGS, json_text(about | {"error": reason}, indent=1).encode(), "application/json")
            return False
    put(BARS, png(bars_figure(tagger.top_tags(result.probabilities, settings.top))), "image/png")
    put(SPECTROGRAM, png(log_mel_figure(wave, tagger.info.sample_rate)), "image/png")
    # The last one: if it is there, the others are complete.
    put(TAGS, json_text(about | tagger.describe(result, settings.top), indent=1).encode(), "application/json")
    return True


def download(client: Any, identity: dict[str, str], path: Path, megabytes: float) -> None:
    """Write an object to a file, if it is not too large.

    Raises:
        SoundError: it is.
    """
    answer = client.get_object(**identity)
    with closing(answer["Body"]) as body:
        if answer["ContentLength"] > megabytes * 2**20:
            raise SoundError(f"{answer['ContentLength'] / 2**20:.1f} MB large, but at most {megabytes:g} are allowed. "
                             "Upload a shorter or a compressed sound, or set MAX_MEGABYTES")
        with open(path, "wb") as file:
            for block in body.iter_chunks(2**20):
                file.write(block)


def tag_sound(tagger: Tagger, path: Path, longest: float, remaining: Clock) -> tuple[TagResult, np.ndarray]:
    """Return the tags of a file and its samples (samples,) int16.

    Raises:
        SoundError: the file cannot be used, it is longer than `longest` seconds, or the time is not enough.
    """
    whole, slowest = remaining(), 0.0
    wave = concatenate(read_mono(path, tagger.info.sample_rate, longest))

    def logits(windows: np.ndarray) -> np.ndarray:
        """(windows, samples) int16 -> (windows, models, classes), window by window to check the time."""
        nonlocal slowest
        results = []
        for window in windows:
            before = remaining()
            if before < RESERVE + slowest:
                raise SoundError(f"{len(wave) / tagger.info.sample_rate:.0f} seconds long, which was not tagged within "
                                 f"{whole - RESERVE:.0f} seconds. Upload a shorter sound, or give the function more "
                                 "time and memory")
            results.append(tagger.logits(window[None]))
            slowest = max(slowest, before - remaining())
        return np.concatenate(results)

    return replace(tagger, logits=logits).tag_file(path, longest=longest), wave
