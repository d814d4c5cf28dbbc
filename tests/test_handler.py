"""The function for AWS Lambda, with stored events and moto's S3."""
import copy
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
import pytest
import soundfile
from conftest import ROOT

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

from botocore.exceptions import ClientError  # noqa: E402

from tagging_lite import handler as module  # noqa: E402
from tagging_lite.errors import TaggingError  # noqa: E402
from tagging_lite.handler import Settings, handler  # noqa: E402
from tagging_lite.tagger import ModelInfo, Tagger  # noqa: E402

EVENT = json.loads((ROOT / "tests" / "data" / "s3_event.json").read_text())
KEY = "field recordings/garçon + 1.wav"
INFO = ModelInfo(("Bark", "Meow", "Bell"), 8000, 4000, 0.5, 0)


def sound(seconds: float, rate: int = 8000, form: str = "WAV") -> bytes:
    """A sound file of noise."""
    content = io.BytesIO()
    soundfile.write(content, np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)), rate, format=form)
    return content.getvalue()


class Context:
    """Lambda's context, with a time limit that shrinks by `step` seconds with each look at it."""

    def __init__(self, seconds: float = 60, step: float = 0):
        self.seconds, self.step = seconds, step

    def get_remaining_time_in_millis(self) -> float:
        self.seconds -= self.step
        return self.seconds * 1000


def record(key: str, **changes: object) -> dict:
    """The stored record with another key, as S3 writes it."""
    changed = copy.deepcopy(EVENT["Records"][0])
    changed["s3"]["object"] |= {"key": quote_plus(key, safe="/")} | changes.pop("object", {})
    return changed | changes


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket, and a model that always gives the same logits."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="sounds")
        tagger = Tagger(INFO, lambda windows: np.tile(np.float32([2, 0, -2]), (len(windows), 1, 1)))
        monkeypatch.setattr(module, "load", lambda: (Settings(top=2, megabytes=0.5, seconds=20), tagger, client))
        yield client


def keys(client) -> list[str]:
    return sorted(entry["Key"] for entry in client.list_objects_v2(Bucket="sounds").get("Contents", []))


def read_tags(client, key: str) -> dict:
    answer = client.get_object(Bucket="sounds", Key=f"{key}.tags.json")
    assert answer["ContentType"] == "application/json"
    return json.loads(answer["Body"].read())


def test_the_results_of_a_stored_event_are_beside_the_sound(bucket):
    bucket.put_object(Bucket="sounds", Key=KEY, Body=sound(2))
    assert handler(EVENT, Context()) == {"tagged": [KEY], "unusable": [], "ignored": []}
    assert keys(bucket) == sorted([KEY, *(f"{KEY}{end}" for end in (".tags.json", ".tags.png", ".spectrogram.png"))])
    tags = read_tags(bucket, KEY)
    assert tags["key"] == KEY and tags["seconds"] == 2
    assert [(tag["tag"], tag["probability"]) for tag in tags["tags"]] == [
        ("Bark", pytest.approx(0.880797)), ("Meow", pytest.approx(0.5))]
    for end in (".tags.png", ".spectrogram.png"):
        answer = bucket.get_object(Bucket="sounds", Key=KEY + end)
        assert answer["ContentType"] == "image/png" and answer["Body"].read().startswith(b"\x89PNG")


def test_the_results_do_not_start_the_function_again(bucket):
    bucket.put_object(Bucket="sounds", Key=KEY, Body=sound(1))
    handler(EVENT, Context())
    first = keys(bucket)
    others = [record(key) for key in first if key != KEY]
    assert handler({"Records": others}, Context())["ignored"] == first[1:] and keys(bucket) == first


def test_folders_and_removed_objects_are_ignored(bucket):
    records = [record("new folder/"), record("gone.wav", eventName="ObjectRemoved:Delete")]
    assert handler({"Records": records}, Context())["ignored"] == ["new folder/", "gone.wav"]
    assert handler({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "sounds"}, Context())["tagged"] == []
    assert keys(bucket) == []


def test_the_version_of_the_event_is_tagged(bucket):
    bucket.put_bucket_versioning(Bucket="sounds", VersioningConfiguration={"Status": "Enabled"})
    versions = [bucket.put_object(Bucket="sounds", Key="a.wav", Body=sound(seconds))["VersionId"] for seconds in (1, 2)]
    for seconds, version in enumerate(versions, 1):
        handler({"Records": [record("a.wav", object={"versionId": version})]}, Context())
        tags = read_tags(bucket, "a.wav")
        assert (tags["seconds"], tags["version"]) == (seconds, version)


@pytest.mark.parametrize(("body", "words"), [
    (b"", "0 bytes"), (b"hello", "Format not recognised"), (sound(1)[:-1000], "cut short"), (sound(0), "no samples"),
    (bytes(2**20), "1.0 MB large, but at most 0.5 are allowed"), (sound(21, 8000, "FLAC"), "at most 20")])
def test_a_sound_that_cannot_be_used_has_the_reason_and_no_figures(bucket, body, words):
    bucket.put_object(Bucket="sounds", Key=KEY, Body=body)
    assert handler(EVENT, Context())["unusable"] == [KEY]
    tags = read_tags(bucket, KEY)
    assert words in tags["error"] and "/tmp" not in tags["error"] and "tags" not in tags
    assert keys(bucket) == [KEY, f"{KEY}.tags.json"]


def test_a_sound_that_takes_too_long_has_the_reason(bucket):
    bucket.put_object(Bucket="sounds", Key=KEY, Body=sound(15, 8000))
    assert handler(EVENT, Context(10, step=0.5))["unusable"] == [KEY]
    error = read_tags(bucket, KEY)["error"]
    assert error.startswith("15 seconds long, which was not tagged within 8 seconds.") and "more time" in error
    assert handler(EVENT, Context(10))["tagged"] == [KEY]


def test_an_error_of_s3_is_raised_after_the_other_records(bucket):
    bucket.put_object(Bucket="sounds", Key="b.wav", Body=sound(1))
    with pytest.raises(ClientError, match="NoSuchKey"):
        handler({"Records": [record("a.wav"), record("b.wav")]}, Context())
    assert read_tags(bucket, "b.wav")["seconds"] == 1
    absent = record("a.wav")
    absent["s3"]["bucket"]["name"] = "another"
    with pytest.raises(ClientError, match="NoSuchBucket"):
        handler({"Records": [absent]}, Context())


@pytest.mark.parametrize("event", [{"key1": "value1"}, {"Records": [{"body": "{}"}]}, {"Records": "x"}])
def test_another_event_is_an_error(bucket, event):
    with pytest.raises(TaggingError, match="notification of S3"):
        handler(event, Context())


def test_the_environment(monkeypatch):
    assert Settings.read() == Settings()
    for name, value in (("MODEL", "m.onnx"), ("TOP", "3"), ("MAX_MEGABYTES", "0.5"), ("MAX_SECONDS", "60")):
        monkeypatch.setenv(name, value)
    assert Settings.read() == Settings(Path("m.onnx"), 3, 0.5, 60)
    for value in ("many", "-1"):
        monkeypatch.setenv("TOP", value)
        with pytest.raises(TaggingError, match="TOP is"):
            Settings.read()


MEASURE = """
import json, sys, time
start = time.monotonic()
import boto3, moto
moto.mock_aws().start()
client = boto3.client("s3")
client.create_bucket(Bucket="sounds")
client.put_object(Bucket="sounds", Key=sys.argv[2], Body=open(sys.argv[3], "rb").read())
before = time.monotonic()
from tagging_lite.handler import handler
class Context:
    end = time.monotonic() + 10
    def get_remaining_time_in_millis(self): return 1000 * (self.end - time.monotonic())
done = handler(json.load(open(sys.argv[1])), Context())
seconds = time.monotonic() - before
tags = json.loads(client.get_object(Bucket="sounds", Key=sys.argv[2] + ".tags.json")["Body"].read())
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))     # kilobytes
print(json.dumps({"peak": peak, "done": done, "seconds": seconds, "tags": tags, "modules": sorted(sys.modules)}))
"""


def test_a_new_container_keeps_the_limits(exported, tmp_path):
    """1,024 MB and 10 seconds, with the imports and the model."""
    (tmp_path / "a.wav").write_bytes(sound(5, 16_000))
    command = [sys.executable, "-c", MEASURE, ROOT / "tests" / "data" / "s3_event.json", KEY, tmp_path / "a.wav"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={
        "MODEL": str(exported), "AWS_LAMBDA_FUNCTION_NAME": "tag", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "MPLCONFIGDIR": str(tmp_path)})
    answer = json.loads(done.stdout)
    assert answer["done"]["tagged"] == [KEY] and len(answer["tags"]["tags"]) == 10 and answer["seconds"] < 10
    assert not {"torch", "pandas", "tagging"} & {*answer["modules"]}
    assert answer["peak"] < 1024 * 1024


def test_the_image_contains_the_files_that_its_steps_copy():
    docker, ignored = ((ROOT / "tagging_lite" / f"Dockerfile.lambda{end}").read_text() for end in ("", ".dockerignore"))
    copied = {source.split("/")[0] for line in re.findall(r"^COPY (.+) \S+$", docker, re.M) for source in line.split()}
    lines = [line for line in ignored.splitlines() if not line.startswith("#")]
    assert lines[0] == "*" and {line[1:] for line in lines if line.startswith("!")} == copied
    name = re.search(r'^CMD \["(.+)"\]', docker, re.M)[1]
    assert name == f"{handler.__module__}.{handler.__name__}"
