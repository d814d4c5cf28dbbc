"""Tagging files from the command line, by a run and by an exported model."""
import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from tagging.data.tables import read_scores

# Runs a module as `python -m` does, without some of the modules that are installed here.
WITHOUT = """
import runpy, sys
module, absent, *words = sys.argv[1:]

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in absent.split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
sys.argv = ["", *words]
runpy.run_module(module, run_name="__main__")
"""


@pytest.fixture
def tag(trained, exported):
    def call(*words, model=False):
        which = ["--model", exported] if model else ["--run", "first", "--models", trained.folder / "models",
                                                      "--device", "cpu"]
        return trained.call("tools/tag.py", *which, *words)
    return call


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("model", [False, True])
def test_the_tags_of_the_test_clips_are_those_of_the_submission(trained, tag, tmp_path, model):
    out = tmp_path / "submission.csv"
    assert trained.predict("first", "--out", str(out)).code == 0
    expected = read_scores(out)
    result = tag(trained.data / "test", "--format", "csv", "--top", "10", model=model)
    assert result.code == 0 and result.err == ""
    rows = rows_of(result.out)
    assert len(rows) == expected.size
    for row in rows:
        assert row["second"] == ""
        wanted = expected.loc[row["path"].split("/")[-1], row["tag"]]
        assert float(row["probability"]) == pytest.approx(wanted, abs=2e-6)


def test_all_formats_say_the_same(trained, tag):
    clip = next((trained.data / "test").iterdir())
    words = [clip, "--timeline", "--top", "3"]
    entry, = json.loads(tag(*words, "--format", "json").out)
    rows = rows_of(tag(*words, "--format", "csv").out)
    assert entry["path"] == str(clip) and len(entry["tags"]) == 3
    assert len(entry["timeline"]) == -(-soundfile.info(clip).frames // 16_000)
    seconds = [("", entry["tags"]), *((str(row["second"]), row["tags"]) for row in entry["timeline"])]
    assert [(row["second"], row["tag"], float(row["probability"])) for row in rows] == [
        (second, tag["tag"], pytest.approx(tag["probability"], abs=1e-6)) for second, tags in seconds for tag in tags]
    lines = tag(*words).out.splitlines()
    assert lines[0].startswith(f"{clip}  {entry['tags'][0]['tag']} ")
    assert [line.split()[1] for line in lines[1:]] == [row["tags"][0]["tag"] for row in entry["timeline"]]


def test_a_folder_with_odd_names_formats_and_rates(tag, tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.1, (48_000, 2))
    (tmp_path / "deep folder").mkdir()
    for name in ("a b.wav", "deep folder/ü.flac", "c.OGG", "d.mp3"):
        soundfile.write(tmp_path / name, wave, 48_000, format="OGG" if name.endswith("OGG") else None)
    (tmp_path / "notes.txt").write_text("not a sound")
    entries = json.loads(tag(tmp_path, "--format", "json", "--threshold", "0").out)
    assert [entry["path"] for entry in entries] == [
        str(tmp_path / name) for name in ("a b.wav", "c.OGG", "d.mp3", "deep folder/ü.flac")]
    assert all(entry["seconds"] == pytest.approx(1, abs=0.1) and len(entry["tags"]) == 5 for entry in entries)
    probabilities = [{tag["tag"]: tag["probability"] for tag in entry["tags"]} for entry in entries]
    assert probabilities[0] == pytest.approx(probabilities[3], abs=1e-3)      # flac loses nothing


@pytest.mark.parametrize("words", [(), ("--format", "json"), ("--format", "csv")])
def test_unreadable_files_are_named_at_the_end_and_the_rest_is_done(trained, tag, tmp_path, words):
    good = next((trained.data / "test").iterdir()).read_bytes()
    for name, content in {"a.wav": good, "b.wav": b"", "c.wav": b"hello", "d.wav": good}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "e.wav").symlink_to(tmp_path / "nowhere")
    result = tag(tmp_path, *words)
    assert result.code == 1
    assert "a.wav" in result.out and "d.wav" in result.out and "b.wav" not in result.out
    assert result.err.startswith("3 files could not be tagged:\n")
    assert "b.wav: 0 bytes" in result.err and "c.wav: unreadable" in result.err
    assert "e.wav: a link to a file that does not exist" in result.err
    assert "--format" not in words or "json" not in words or len(json.loads(result.out)) == 2


@pytest.mark.parametrize("form", ["text", "csv", "json"])
@pytest.mark.parametrize("model", [False, True])
def test_what_is_left_out_of_a_folder_is_named_on_stderr(trained, tag, tmp_path, form, model):
    good = next((trained.data / "test").iterdir()).read_bytes()
    for name in ("a.wav", "A/b.WAV", "._a.wav", "@eaDir/a.wav/x.wav", "A/.ipynb_checkpoints/b.wav", "c.mid",
                 "d.wav.part", "nameless", "Thumbs.db", "cover.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"picture" if name == "cover.jpg" else good)
    (tmp_path / "linked").symlink_to(trained.data / "test")
    result = tag(tmp_path, "--format", form, "--top", "1", model=model)
    assert result.code == 0 and len(result.out.splitlines()) == {"text": 2, "csv": 3, "json": 4}[form]
    home = f"{tmp_path}/"
    assert result.err.replace(home, "").splitlines() == [
        "Not read, links to folders (1): linked",
        "Not read, hidden or left by the system (3): ._a.wav, @eaDir, A/.ipynb_checkpoints",
        "Not read, of unsupported formats (1): c.mid", "Not read, backups or unfinished downloads by their names (1): "
        "d.wav.part", "Not read, without a suffix, but with the first bytes of a sound file (1): nameless",
        "To read one of them, name it on the command line."]
    named = [tmp_path / name for name in ("._a.wav", "d.wav.part", "nameless", "linked", "@eaDir")]
    result = tag(*named, "--format", form, "--top", "1", model=model)
    assert result.code == 0 and result.err == ""
    assert all(str(path) in result.out for path in named)


def test_the_threshold_leaves_tags_out(trained, tag):
    clip = next((trained.data / "test").iterdir())
    entry, = json.loads(tag(clip, "--format", "json", "--threshold", "1").out)
    assert entry["tags"] == []
    assert tag(clip, "--threshold", "1").out == f"{clip}  -\n"


@pytest.mark.parametrize("words, parts", [
    (["nowhere.wav"], ["nowhere.wav does not exist"]), (["empty"], ["empty holds no sound file"]),
    (["clip.wav", "--top", "0"], ["--top"]), (["clip.wav", "--threshold", "2"], ["--threshold"]),
    (["--fold", "7", "clip.wav"], ["no finished fold 7", "among 1, 2"])])
def test_what_cannot_be_done_is_said(tag, tmp_path, expect_error, monkeypatch, words, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "clip.wav", np.zeros(100), 8000)
    expect_error(tag(*words), *parts)


@pytest.mark.parametrize("content, reason", [(None, "is missing"), (b"", "is damaged"), (b"no onnx", "is damaged")])
def test_a_bad_model_is_named(trained, tmp_path, expect_error, content, reason):
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    result = trained.call("tools/tag.py", "--model", tmp_path / "model.onnx", trained.data / "test")
    expect_error(result, "model.onnx", reason, "tools.export")


def test_an_exported_model_is_used_without_torch_and_the_lite_package_without_the_rest(trained, exported, tmp_path):
    """In an own process each: nothing of torch may be imported, and the copied folder must stand alone."""
    clip = next((trained.data / "test").iterdir())
    (tmp_path / "tagging_lite").symlink_to(ROOT / "tagging_lite")
    outputs = []
    for folder, module, words, more in ((ROOT, "tools.tag", ["--model", exported, clip], []),
                                        (tmp_path, "tagging_lite", [exported, clip],
                                         ["tagging", "tools", "tyro", "tqdm", "matplotlib", "fastapi"])):
        absent = ",".join(["torch", "pandas", "fastai", "timm", *more])
        outputs.append(subprocess.run([sys.executable, "-c", WITHOUT, module, absent, *words], cwd=folder,
                                      capture_output=True, text=True, check=True).stdout)
    whole, lite = outputs
    assert whole == lite and whole.startswith(str(clip))


def test_many_files_take_no_more_memory_than_few(trained, exported, tmp_path):
    """The second hundred, 10 MB as samples, must not stay in memory."""
    wave = np.random.default_rng(0).integers(-9000, 9000, 3 * 16_000, np.int16)
    for number in range(200):
        soundfile.write(tmp_path / f"{number:03}.wav", wave, 16_000)
    code = ("import sys, resource; from tagging_lite.onnx import load_onnx; from pathlib import Path; "
            "tagger = load_onnx(Path(sys.argv[1]), 1); peaks = []\n"
            "for path in sorted(Path(sys.argv[2]).iterdir()):\n"
            "    tagger.tag_file(path); peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
            "print(peaks[99], peaks[199])")
    out = subprocess.run([sys.executable, "-c", code, exported, tmp_path], cwd=ROOT, capture_output=True, text=True,
                         check=True).stdout
    half, whole = map(int, out.split())
    assert whole - half < 4000 * (1 if sys.platform == "linux" else 1024)      # kilobytes; bytes on a Mac
