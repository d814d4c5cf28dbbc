"""What decoding changes is said once, with the names of the files, by everything that reads sounds."""
import json
import logging

import numpy as np
import soundfile
from clips import RATE, clips_of, noise, whole, write_clips
from clips import small_margin as small_margin
from conftest import Workshop

from tagging.data.waveforms import open_store
from tagging.errors import list_notes

REMARK = "its floating-point samples are in the range of 16-bit integers, so all were divided by 32768"


def write_floats(path, rate=RATE):
    """A file of floating-point samples in the range of 16-bit integers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(8000).astype(np.float64), rate, subtype="FLOAT")


def test_equal_remarks_share_a_line():
    notes = [("a", ("one", "two")), ("b", ()), ("c", ("one",)), *((f"d{number}", ("two",)) for number in range(12))]
    assert list_notes(notes) == ["note: 2 files: one (a, c)", "note: 13 files: two (a, d0, d1, d2, d3, d4, d5, d6, d7, "
                                 "d8 and 3 more)"]
    assert list_notes([("a", ())]) == []


def test_control_characters_in_names_are_shown_as_escapes():
    assert list_notes([("a\nb.wav", ("one",)), ("\x1b[31m.wav", ("one",))]) == [
        "note: 2 files: one (a\\nb.wav, \\x1b[31m.wav)"]


def test_a_name_with_a_line_break_stays_on_its_line(exported, trained, tmp_path):
    soundfile.write(tmp_path / "a\nb.wav", noise(8000), RATE)
    (tmp_path / "c\nd.wav").write_bytes(b"")
    result = trained.call("tools/tag.py", "--model", exported, tmp_path)
    assert len(result.out.splitlines()) == 1 and "a\\nb.wav  " in result.out
    assert "c\\nd.wav: 0 bytes" in result.err


def test_the_wave_store_keeps_remarks_and_logs_them_each_time(tmp_path, caplog):
    caplog.set_level(logging.INFO, "tagging")
    write_clips(tmp_path / "clips", {"a.wav": noise(300)})
    write_floats(tmp_path / "clips/b.wav")
    for _ in range(2):      # a new store, and the existing one
        caplog.clear()
        _, store = open_store(clips_of(tmp_path / "clips", ["a.wav", "b.wav"]), None, tmp_path / "cache")
        assert f"note: 1 file: {REMARK} (b.wav)" in caplog.text
        assert store.notes == {"b.wav": [REMARK]} and np.array_equal(whole(store, 1), noise(8000))


def test_make_competition_prints_remarks(tmp_path):
    for label in ("Dog", "Siren"):
        for number in range(6):
            write_floats(tmp_path / f"own/{label}/{number}.wav", 8000 if number else RATE)
    result = Workshop(tmp_path, tmp_path / "out").call("tools/make_competition.py", tmp_path / "out", "--folders",
                                                       tmp_path / "own", "--sample-rate", 8000)
    assert result.code == 0
    assert f"note: 12 files: {REMARK} (Dog/0.wav, Dog/1.wav, " in result.out


def test_tagging_prints_remarks_at_the_end_and_json_has_them(exported, trained, tmp_path):
    write_floats(tmp_path / "own/b.wav")
    soundfile.write(tmp_path / "own/a.wav", noise(8000), RATE)
    result = trained.call("tools/tag.py", "--model", exported, "--format", "json", tmp_path / "own")
    plain, floats = json.loads(result.out)
    assert result.code == 0 and f"note: 1 file: {REMARK} ({tmp_path / 'own/b.wav'})" in result.err
    assert floats["notes"] == [REMARK] and "notes" not in plain and floats["tags"] == plain["tags"]
