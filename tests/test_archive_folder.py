"""The folder of --out: parts, resuming, shards, and refusing what does not fit."""
import csv
import gc
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import archive_case
import numpy as np
import pandas as pd
import pytest
import soundfile
from archive_case import call, load, write_sounds

from tagging_lite.archive import parts, run
from tagging_lite.errors import TaggingError


@pytest.fixture
def sounds(tmp_path):
    return write_sounds(tmp_path / "sounds", 23, seconds=0.5)


def read_csv(folder):
    return pd.concat([pd.read_csv(path) for path in sorted(folder.glob("part*.csv"))], ignore_index=True)


def names_of(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("_"))


def test_parquet_csv_and_jsonl_have_the_same_tags_in_the_order_of_the_input(tmp_path, sounds, capsys):
    words = [tmp_path / "sounds", "--top", "2", "--threshold", "0.3", "--timeline", "--part", "10"]
    for form in ("parquet", "csv", "jsonl"):
        assert call(*words, "--format", form, "--out", tmp_path / form) == 0
        assert names_of(tmp_path / form) == [f"part-{number:05}.{form}" for number in range(3)]
    table = pd.read_parquet(tmp_path / "parquet")
    assert list(table) == ["path", "duration", "second", "tag", "probability"]
    assert list(dict.fromkeys(table.path)) == sounds
    pd.testing.assert_frame_equal(table, read_csv(tmp_path / "csv"), check_dtype=False, rtol=1e-5)
    entries = [json.loads(line) for path in sorted((tmp_path / "jsonl").glob("part*"))
               for line in path.read_text().splitlines()]
    rows = [(entry["path"], entry["seconds"], second, tag["tag"], tag["probability"]) for entry in entries
            for second, tags in [(np.nan, entry["tags"]), *((row["second"], row["tags"]) for row in entry["timeline"])]
            for tag in tags]
    pd.testing.assert_frame_equal(table.dropna(subset="tag").reset_index(drop=True),
                                  pd.DataFrame(rows, columns=list(table)), check_dtype=False, rtol=1e-5)
    one = load().tag_file(sounds[5], timeline=True)
    tag, probability = load().top_tags(one.probabilities, 1)[0]
    first = table[table.path == sounds[5]].iloc[0]
    assert first.tag == tag and first.probability == pytest.approx(probability, abs=1e-6)
    assert first.duration == pytest.approx(one.seconds, abs=1e-3) and np.isnan(first.second)
    assert "-> " in capsys.readouterr().out


def test_a_file_without_a_tag_is_in_the_table(tmp_path, sounds):
    assert call(*sounds, "--threshold", "1", "--out", tmp_path / "out") == 0
    table = pd.read_parquet(tmp_path / "out")
    assert list(table.path) == sounds and table.tag.isna().all() and table.probability.isna().all()


@pytest.mark.parametrize("timeline", [False, True])
def test_embeddings_are_float16_of_each_file_and_second(tmp_path, sounds, timeline):
    words = [*sounds[:5], "--embeddings", "--part", "2", *(["--timeline"] if timeline else [])]
    assert call(*words, "--format", "csv", "--out", tmp_path / "out") == 0
    table = pd.read_parquet(tmp_path / "out/_embeddings")
    whole = table[table.second.isna()]
    assert list(whole.path) == sounds[:5] and list(table) == ["path", "second", "embedding"]
    for path, rows in table.groupby("path"):
        expected = load().tag_file(path, timeline, embeddings=True)
        assert rows.embedding.iloc[0].dtype == np.float16
        np.testing.assert_allclose(rows.embedding.iloc[0], expected.embedding, rtol=2e-3)
        if timeline:
            np.testing.assert_allclose(np.stack(rows.embedding[1:]), expected.timeline_embeddings, rtol=2e-3)
            assert list(rows.second[1:]) == list(range(len(rows) - 1))


def test_failed_files_and_remarks_are_listed_and_the_rest_is_tagged(tmp_path, sounds, capsys):
    (tmp_path / "sounds/0004.wav").write_bytes(b"")
    (tmp_path / "sounds/0015.wav").write_bytes(b"RIFF")
    wave = np.full(4000, 2, np.float32) * np.sin(np.arange(4000))
    soundfile.write(tmp_path / "sounds/0007.wav", wave, archive_case.RATE, subtype="FLOAT")
    for _ in range(2):          # the second call finds everything done
        assert call(tmp_path / "sounds", "--out", tmp_path / "out", "--part", "10") == 1
        err = capsys.readouterr().err
        assert "2 files could not be tagged." in err and f"{sounds[4]}: 0 bytes" in err and "_failed" in err
    failed = read_csv(tmp_path / "out/_failed")
    assert failed.to_numpy().tolist() == [[sounds[4], "0 bytes"], [sounds[15], "cut short: it has no data chunk"]]
    notes = read_csv(tmp_path / "out/_notes")
    assert list(notes.path) == [sounds[7]] and "exceed full scale" in notes.note[0]
    tagged = pd.read_parquet(tmp_path / "out").path.unique()
    assert sorted([*tagged, *failed.path]) == sounds


def test_names_that_are_not_utf8_are_kept_in_csv_and_escaped_in_parquet(tmp_path, sounds):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/o\xffd,\n.wav")
    Path(sounds[0]).rename(odd)
    for form in ("csv", "parquet", "jsonl"):
        assert call(odd, "--out", tmp_path / form, "--format", form) == 0
    with open(tmp_path / "csv/part-00000.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert next(csv.DictReader(file))["path"] == odd
    assert pd.read_parquet(tmp_path / "parquet").path[0].endswith("/o\\xffd,\n.wav")
    assert json.loads((tmp_path / "jsonl/part-00000.jsonl").read_text())["path"] == odd


def test_csv_quotes_a_carriage_return_in_a_name(tmp_path, sounds):
    odd = str(tmp_path / "cr\rhere.wav")
    Path(sounds[0]).rename(odd)
    assert call(odd, tmp_path / "sounds", "--out", tmp_path / "out", "--format", "csv") == 0
    assert list(read_csv(tmp_path / "out").path.unique()) == [odd, *sounds[1:]]


def test_a_part_whose_files_all_failed_has_no_embeddings(tmp_path, sounds):
    for name in sounds[:5]:
        Path(name).write_bytes(b"")
    assert call(*sounds, "--out", tmp_path / "out", "--embeddings", "--part", "5") == 1
    assert list(pd.read_parquet(tmp_path / "out/_embeddings").path) == sounds[5:]
    assert sorted(pd.read_parquet(tmp_path / "out").path.unique()) == sounds[5:]


def test_failed_names_are_printed_without_control_characters(tmp_path, capsys):
    (tmp_path / "a\x1b[2J,\n.wav").write_bytes(b"")
    assert call(tmp_path, "--out", tmp_path / "out") == 1
    assert "a\\x1b[2J,\\n.wav: 0 bytes\n" in capsys.readouterr().err


def test_ctrl_c_prints_no_error_of_pyarrow(tmp_path, sounds, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.PartWriter, "finish", interrupt)
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(KeyboardInterrupt):
        call(*sounds, "--out", tmp_path / "out", "--embeddings")
    gc.collect()
    assert not unraisable and not list((tmp_path / "out").rglob("*part*"))


@pytest.mark.slow
@pytest.mark.parametrize("shards", [None, 2])
def test_after_kill_9_the_same_command_completes_the_folder(tmp_path, shards):
    """Killed in many places, with another reader that never sees a part that is not whole."""
    names = write_sounds(tmp_path / "sounds", 40, seconds=2)
    call(tmp_path / "sounds", "--out", tmp_path / "whole", "--format", "csv", "--part", "4")
    expected = read_csv(tmp_path / "whole")
    killed, out = 0, tmp_path / "out"
    for shard in range(1, (shards or 1) + 1):
        words = [tmp_path / "sounds", "--out", out, "--format", "csv", "--part", "4", "--workers", "1",
                 *(["--shard", f"{shard}/{shards}"] if shards else [])]
        for attempt in range(4):
            begun = len(list(out.glob("part*.csv")))
            process = subprocess.Popen([sys.executable, archive_case.__file__, *map(str, words)],
                                       env={**os.environ, "SLOW": "0.1"}, stdout=subprocess.DEVNULL)
            while process.poll() is None:
                parts = list(out.glob("part*.csv"))
                for path in parts:
                    assert len(pd.read_csv(path).path.unique()) == 4
                if attempt < 3 and len(parts) > begun:
                    time.sleep(random.uniform(0, 0.1))
                    process.kill()
                time.sleep(0.01)
            killed += process.wait() != 0
    assert killed >= 2
    found = read_csv(out)
    assert sorted(found.path.unique()) == names and len(found) == len(expected)
    pd.testing.assert_frame_equal(found.sort_values(["path", "probability"]).reset_index(drop=True),
                                  expected.sort_values(["path", "probability"]).reset_index(drop=True), atol=2e-6)
    assert not list(out.glob("_part*"))


def test_a_part_that_was_written_but_not_noted_is_replaced(tmp_path, sounds):
    words = [tmp_path / "sounds", "--out", tmp_path / "out", "--format", "csv", "--part", "10"]
    assert call(*words) == 0
    expected = read_csv(tmp_path / "out")
    done = tmp_path / "out/_done.jsonl"
    lines = done.read_text().splitlines(keepends=True)
    done.write_text("".join(lines[:2]) + lines[2][:9])      # the interruption cut the last line
    assert call(*words) == 0
    pd.testing.assert_frame_equal(read_csv(tmp_path / "out"), expected)
    assert done.read_text().splitlines(keepends=True) == lines


def test_a_failure_of_the_disk_leaves_no_half_part(tmp_path, sounds, monkeypatch):
    words = [tmp_path / "sounds", "--out", tmp_path / "out", "--format", "csv", "--part", "10"]

    def fail(file):
        raise OSError(28, "No space left on device", "part")

    with monkeypatch.context() as patch:
        patch.setattr(parts, "sync", fail)
        with pytest.raises(TaggingError, match=r"part could not be written: No space left on device. Check the free"):
            call(*words)
    assert names_of(tmp_path / "out") == [] and not list((tmp_path / "out").glob("*part*"))
    assert call(*words) == 0 and read_csv(tmp_path / "out").path.nunique() == 23


@pytest.mark.parametrize("count", [1, 2, 5, 25])
def test_shards_share_a_folder_and_tag_each_file_once(tmp_path, sounds, count):
    order = np.random.default_rng(0).permutation(count) + 1
    for number in order:
        assert call(tmp_path / "sounds", "--out", tmp_path / "out", "--shard", f"{number}/{count}", "--part", "3") == 0
    table = pd.read_parquet(tmp_path / "out")
    assert sorted(table.path.unique()) == sounds and len(table) == 3 * len(sounds)
    if count == 5:
        parts_of_2 = [pd.read_parquet(path) for path in sorted((tmp_path / "out").glob("part-2-of-5-*"))]
        assert list(pd.concat(parts_of_2).path.unique()) == sounds[1::5]


def test_a_part_is_closed_after_some_time(tmp_path, sounds, monkeypatch):
    monkeypatch.setattr(run.tag_parts, "__defaults__", (None, 0.0))
    assert call(tmp_path / "sounds", "--out", tmp_path / "out", "--format", "csv") == 0
    assert len(names_of(tmp_path / "out")) == len(sounds)
    assert list(read_csv(tmp_path / "out").path.unique()) == sounds


@pytest.mark.parametrize("change, parts_of_message", [
    (["--top", "4"], ["--top was 5 and is now 4"]), (["--threshold", "0.5"], ['--threshold was "0"', '"0.5"']),
    (["--timeline"], ["--timeline was false"]), (["--format", "csv"], ['--format was "parquet"']),
    (["--embeddings"], ["--embeddings"]), (["--shard", "1/2"], ["the number of shards was 1 and is now 2"])])
def test_other_options_are_refused(tmp_path, sounds, change, parts_of_message):
    assert call(*sounds, "--out", tmp_path / "out") == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part*")}
    with pytest.raises(TaggingError) as error:
        call(*sounds, "--out", tmp_path / "out", *change)
    assert all(part in str(error.value) for part in [*parts_of_message, "choose a new folder for --out"])
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part*")} == before
    assert call(*sounds, "--out", tmp_path / "out", "--threshold", "0.0", "--workers", "2", "--part", "7") == 0


def test_another_model_is_refused(tmp_path, sounds, monkeypatch):
    assert call(*sounds, "--out", tmp_path / "out") == 0
    about = json.loads((tmp_path / "out/_archive.json").read_text())
    (tmp_path / "out/_archive.json").write_text(json.dumps(about | {"the model": "another"}))
    with pytest.raises(TaggingError, match='begun with something else: the model was "another" and is now "tones"'):
        call(*sounds, "--out", tmp_path / "out")


def test_a_list_that_grew_is_continued_and_one_that_lost_files_is_refused(tmp_path, sounds, capsys):
    words = [tmp_path / "sounds", "--out", tmp_path / "out", "--part", "10"]
    assert call(*words) == 0
    new = write_sounds(tmp_path / "sounds/0002b", 2)        # between the others
    capsys.readouterr()
    assert call(*words) == 0
    out, err = capsys.readouterr()
    assert "note: 2 files are new" in err and "23 of 25 files are done" in err and "25 files" in out
    table = pd.read_parquet(tmp_path / "out")
    assert list(table.path.unique()) == [*sounds, *new] and len(table) == 75
    Path(sounds[3]).unlink()
    with pytest.raises(TaggingError, match=r"begun with 25 files, and 1 of them are not among the 24 .*0003\.wav"):
        call(*words)


@pytest.mark.slow
def test_two_processes_do_not_write_one_folder(tmp_path, sounds):
    words = [*sounds, "--out", tmp_path / "out"]
    process = subprocess.Popen([sys.executable, archive_case.__file__, *map(str, words), "--part", "2"],
                               env={**os.environ, "SLOW": "0.3"}, stdout=subprocess.DEVNULL)
    while not (tmp_path / "out/_lock").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    with pytest.raises(TaggingError, match=r"Another process writes .*out. Wait until it ends"):
        call(*words)
    process.kill()
    process.wait()
    assert call(*words) == 0 and pd.read_parquet(tmp_path / "out").path.nunique() == len(sounds)


def test_a_folder_of_something_else_and_a_damaged_one_are_refused(tmp_path, sounds):
    with pytest.raises(TaggingError, match=r"sounds has other files .*0000.wav, .*Choose a new folder"):
        call(*sounds, "--out", tmp_path / "sounds")
    assert call(*sounds, "--out", tmp_path / "out", "--part", "5") == 0
    done = tmp_path / "out/_done.jsonl"
    done.write_text("nonsense\n" + done.read_text())
    with pytest.raises(TaggingError, match=r"_done.jsonl, line 1 is damaged"):
        call(*sounds, "--out", tmp_path / "out", "--part", "5")
    (tmp_path / "out/_archive.json").write_text("{}")
    with pytest.raises(TaggingError, match=r"_archive.json is damaged"):
        call(*sounds, "--out", tmp_path / "out")
