"""Runs in Weights & Biases and ClearML, in their offline modes and on a server that is played."""
import json
import re
import struct
import zipfile
from pathlib import Path

import pytest
from conftest import digests
from test_track import SECRET, finish, write_log
from test_track import folder as folder
from test_track import models as models
from test_track import quick_pictures as quick_pictures
from test_track import send as send

from tagging.errors import TaggingError
from tools.track.snapshot import read_snapshot
from tools.track.to_clearml import last_error
from tools.track.to_wandb import Wandb
from tools.track.tracker import Sent


def wandb_records(folder: Path) -> list:
    """Read the records of an offline run. Its format is LevelDB's log after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record
    (path,) = folder.glob("*.wandb")
    content, place, data, records = path.read_bytes(), 7, b"", []
    assert content.startswith(b":W&B")
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:           # the rest of a block is too short for a header
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        data += content[place + 7:place + 7 + length]
        place += 7 + length
        if kind in (1, 4):                      # whole, or the last part
            records.append(Record.FromString(data))
            data = b""
    return records


def wandb_history(folder: Path) -> list[dict]:
    return [{(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            for record in wandb_records(folder) if record.HasField("history")]


def test_wandb_offline_runs_hold_everything(models, folder, send):
    out = send("wandb", "--offline")
    home = models / "tiny/wandb"
    assert "wandb sync" in out
    history = wandb_history(home / "offline-run-curated-fold1")
    assert [(row["_step"], row["lwlrap"]) for row in history] == [(1, 0.4), (2, 0.5), (3, 0.9)]
    (run,) = [record.run for record in wandb_records(home / "offline-run-curated-fold2") if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["recipe.batch_size"] == 8 and config["made_by.command"].endswith("--cache PATH")
    assert run.run_group == "tiny" and run.job_type == "curated"
    assert re.fullmatch(r"\w+-fold2", run.run_id)
    summary = home / "offline-run-curated-summary"
    assert len(list(summary.rglob("*.png"))) == 2
    content = b"".join(path.read_bytes() for path in summary.glob("*.wandb"))
    assert b"# tiny" in content and SECRET.encode() not in content
    before = digests(home / "offline-run-curated-fold1")
    finish(folder, 2)
    send("wandb", "--offline")
    assert [row["_step"] for row in wandb_history(home / "offline-run-curated-fold2")] == [1, 2, 3]
    assert digests(home / "offline-run-curated-fold1") == before


class FakeRun:
    """A run of a server that remembers its last step."""
    def __init__(self, server: dict, name: str):
        self.history, self.summary = server.setdefault(name, []), {}

    @property
    def step(self) -> int:
        return self.history[-1][0] + 1 if self.history else 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def log(self, values, step):
        assert step >= self.step, "the server drops earlier steps"
        self.history.append((step, values))


def test_wandb_online_continues_the_run_on_the_server(folder, tmp_path, monkeypatch):
    server: dict = {}
    wandb = Wandb(tmp_path / "out", Sent(tmp_path / "out/sent.json"))
    monkeypatch.setattr(wandb.wandb, "init", lambda **options: FakeRun(server, options["id"]))
    wandb.send(read_snapshot(folder))
    identity = read_snapshot(folder).identity
    assert [step for step, _ in server[f"{identity}-fold2"]] == [1, 2]
    (tmp_path / "out/sent.json").unlink()           # killed after sending and before the record
    wandb.sent = Sent(tmp_path / "out/sent.json")
    write_log(folder, 2)
    assert "fold 2, 3 epochs" in wandb.send(read_snapshot(folder))
    assert [step for step, _ in server[f"{identity}-fold2"]] == [1, 2, 3]
    assert [step for step, _ in server[f"{identity}-fold1"]] == [1, 2, 3]
    assert wandb.send(read_snapshot(folder)) == ""
    write_log(folder, 2, [[0.69, 0.1]])             # the fold starts again with other values
    wandb.send(read_snapshot(folder))
    assert [step for step, _ in server[f"{identity}-fold2-restart1"]] == [1]


def test_wandb_without_an_account_is_a_clear_error(folder, tmp_path, monkeypatch):
    wandb = Wandb(tmp_path / "out", Sent(tmp_path / "out/sent.json"))

    def refuse(**_options):
        raise wandb.wandb.errors.UsageError("api_key not configured (no-tty)")
    monkeypatch.setattr(wandb.wandb, "init", refuse)
    with pytest.raises(TaggingError, match=r"api_key not configured.*`wandb login`.*--offline"):
        wandb.send(read_snapshot(folder))
    assert not list((tmp_path / "out").glob(".partial*"))


@pytest.mark.slow
def test_clearml_offline_sessions_hold_everything(models, send):
    send("clearml", "--offline")
    with zipfile.ZipFile(models / "tiny/clearml/curated.zip") as session:
        names = session.namelist()
        content = "".join(session.read(name).decode() for name in names if name.endswith((".json", ".jsonl")))
        metrics = [event for line in session.read("metrics.jsonl").decode().splitlines() for event in json.loads(line)]
    points = sorted((event["iter"], event["value"]) for event in metrics
                    if event.get("metric") == "lwlrap" and event.get("variant") == "fold 1")
    assert points == [(1, 0.4), (2, 0.5), (3, 0.9)]
    assert sum(name.endswith(".png") for name in names) == 2
    assert "recipe.batch_size" in content and "# tiny" in content and SECRET not in content
    before = digests(models)
    send("clearml", "--offline")
    assert digests(models) == before


def test_the_error_of_clearml_is_found_in_its_output():
    output = "Traceback\n  File\nclearml.defs.MissingConfigError: It seems ClearML is not configured!\nSee the docs.\n"
    assert last_error(output) == "It seems ClearML is not configured"
    assert last_error("killed\n") == "killed" and last_error("") == "it ended without a message"
