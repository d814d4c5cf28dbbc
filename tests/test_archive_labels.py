"""Files of labels in the folder of `--out`, and options that do not fit."""
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from archive_case import call
from test_archive_folder import sounds as sounds

from tagging_lite.errors import TaggingError


@pytest.mark.parametrize("form, suffix", [("audacity", ".txt"), ("raven", ".selections.txt")])
def test_labels_are_a_file_for_each_sound(tmp_path, sounds, form, suffix, capsys):
    out = tmp_path / "out"
    assert call(*sounds, "--out", out, "--format", form, "--timeline", "--top", "1") == 0
    for name in sounds:
        lines = (out / f"{name.lstrip('/')}{suffix}").read_text().splitlines()
        assert len(lines) >= (2 if form == "raven" else 1) and "\t" in lines[-1]
    capsys.readouterr()
    assert call(sounds[0], "--format", form, "--timeline", "--top", "1") == 0
    assert capsys.readouterr().out == (out / f"{sounds[0].lstrip('/')}{suffix}").read_text()
    with pytest.raises(TaggingError, match="Give a folder with --out, or name one sound"):
        call(*sounds, "--format", form)


def test_two_colons_in_a_name_are_no_folder_of_labels(tmp_path, sounds):
    (tmp_path / "b").mkdir()
    names = [tmp_path / "b::c.wav", tmp_path / "b/c.wav"]
    for sound, name in zip(sounds, names):
        Path(sound).rename(name)
    assert call(*names, "--out", tmp_path / "out", "--format", "audacity") == 0
    assert len(list((tmp_path / "out").rglob("*.wav.txt"))) == 2


def test_a_sound_whose_labels_cannot_be_named_is_listed_and_the_others_are_tagged(tmp_path, sounds):
    long = tmp_path / "sounds" / f"{'n' * 248}.wav"
    Path(sounds[0]).rename(long)
    (tmp_path / "sounds" / f"{Path(sounds[1]).name}.txt").mkdir()
    inner = tmp_path / "sounds" / f"{Path(sounds[1]).name}.txt" / "x.wav"
    shutil.copy(sounds[2], inner)
    words = [long, *sounds[1:], inner, "--out", tmp_path / "out", "--format", "audacity"]
    assert call(*words) == 1
    failed = pd.read_csv(next((tmp_path / "out/_failed").iterdir()))
    assert list(failed.path) == [str(long), str(inner)]
    assert failed.reason.str.startswith("its file of labels cannot have this name").all()
    assert len([path for path in (tmp_path / "out").rglob("*.wav.txt") if path.is_file()]) == len(sounds) - 1


def test_packages_that_are_missing_are_named(tmp_path, sounds, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TaggingError, match=r"pip install pyarrow`. For tags, --format csv and jsonl"):
        call(*sounds, "--out", tmp_path / "out")
    assert call(*sounds, "--out", tmp_path / "out", "--format", "jsonl") == 0


@pytest.mark.parametrize("words, part", [
    (["--format", "parquet"], "--format parquet is a folder"), (["--embeddings"], "with --out"),
    (["--ray", "local"], "with --out"), (["--out", "x", "--format", "text"], "--out takes --format parquet, csv"),
    (["--part", "0"], "--part"), (["--workers", "-1"], "--workers"), (["--null"], "--list"),
    *((["--shard", text], f'--shard "{text}"') for text in ("0/3", "4/3", "3", "a/b", "1/-2", "1/2/3", "")),
    (["--out", "x", "--shard", "1/2", "--ray", "local"], "--shard or --ray"),
    (["--threshold", "precise"], "--threshold"), (["--threshold", "auto"], "no thresholds")])
def test_options_that_do_not_fit_are_refused(tmp_path, sounds, monkeypatch, words, part):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaggingError) as error:
        call(sounds[0], *words)
    assert part in str(error.value)
    assert not (tmp_path / "x").exists()
