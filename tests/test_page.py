"""The server of the page: what it sends for any names, its memory of sounds, and the groups of runs."""
import dataclasses
import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from fastapi.testclient import TestClient

from tagging.data.competition import open_competition
from tagging.data.tables import join_labels, write_scores
from tagging.errors import TaggingError
from tagging.evaluation import error_analysis
from tagging.recipe import SMOKE
from tagging.reporting import eda
from tagging.run import StageFolder
from tagging_lite.audio import RemoveSilence
from tagging_lite.tagger import ModelInfo, Tagger
from tools.page import sounds as sounds_module
from tools.page.clips import Mistakes
from tools.page.runs import compare_runs, read_entries, runs_page
from tools.page.server import Page, make_app
from tools.page.sounds import Sounds
from tools.page.tags import Tagging

CLASSES = ["<script>alert(1)</script>", 'Bell & "Drum" \'n\' <b>', "a,b_" + "x" * 200]
RATE = 16_000


def write_competition(root: Path) -> list[str]:
    """Write three classes and six clips with names that could change a page. Return the names of the clips."""
    folder = root / "train_curated"
    folder.mkdir(parents=True)
    fnames = [f"<img src=x onerror=alert({number})>&amp;.wav" for number in range(6)]
    rng = np.random.default_rng(0)
    for fname in fnames:
        soundfile.write(folder / fname, rng.normal(0, 0.1, RATE), RATE)
    labels = [join_labels([CLASSES[place % 3]]) for place in range(6)]
    pd.DataFrame({"fname": fnames, "labels": labels}).to_csv(root / "train_curated.csv", index=False)
    pd.DataFrame([["test.wav", 0, 0, 0]], columns=["fname", *CLASSES]).to_csv(root / "sample_submission.csv",
                                                                             index=False)
    return fnames


def write_run(models: Path, name: str, data: str, checksum: str, scores: dict[int, float], seed: int = 0,
              date: str = "2026-11-25T20:34:19+00:00", **knobs) -> StageFolder:
    """Write a stage as if it had been trained, without weights: a fold for each score, two clips each."""
    folder = StageFolder(models / name / "curated")
    folder.path.mkdir(parents=True)
    recipe = dataclasses.asdict(dataclasses.replace(SMOKE, seed=seed, fold_count=3, **knobs))
    made_by = {"command": f"python train_curated.py --data x/{data} --run {name}", "date": date, "commit": "abc123",
               "clean": True, "files": {"train_curated.csv": checksum}, "versions": {}}
    folder.settings_path.write_text(json.dumps({
        "schema": 2, "recipe": recipe, "classes": ["a", "b"], "sample_rate": RATE, "initial_weights": "scratch",
        "noisy_clips": None, "noisy_labels": None, "made_by": made_by}))
    rng = np.random.default_rng(seed)
    rows = []
    for fold, score in scores.items():
        fnames = [f"{data}{fold}{number}.wav" for number in (1, 2)]
        rows += [f"{fname},{fold},{label},0" for fname, label in zip(fnames, "ab")]
        write_scores(folder.predictions(fold), pd.DataFrame(rng.random((2, 2)), fnames, ["a", "b"]))
        folder.record(fold).write_text(json.dumps({"lwlrap": score}))
        folder.log(fold).write_text("epoch,train_loss,valid_loss,lwlrap\n1,0.5,0.4,0.3\n2,0.4,0.3,0.5\n")
    (folder.path / "clips.csv").write_text("fname,fold,labels,crc32\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A server with hostile names, and these names. Its model finds the first class in everything."""
    root = tmp_path_factory.mktemp("hostile")
    fnames = write_competition(root / "<i>data")
    competition = open_competition(root / "<i>data")
    splits = eda.open_splits(competition)
    clips = splits["curated"]
    logits = np.array([[3.0, 0.0, -3.0]])                                                   # (models, classes)
    tagger = Tagger(ModelInfo(tuple(CLASSES), RATE, RATE, 0.5, 0), lambda windows: np.stack([logits] * len(windows)))
    truth = pd.DataFrame(clips.targets, clips.fnames, CLASSES)
    scores = pd.DataFrame(np.tile([0.9, 0.5, 0.1], (6, 1)), clips.fnames, CLASSES)
    page = Page("run <b>, curated stage", competition, splits, 0, RemoveSilence(), root / "models",
                Tagging(tagger, Sounds(splits, RATE)),
                Mistakes(StageFolder(root / "models" / "r" / "curated"), truth, scores, clips), threading.Lock())
    return TestClient(make_app(page), base_url="http://127.0.0.1"), fnames


def test_names_cannot_change_the_page(hostile):
    client, _ = hostile
    for address in ("/", "/sections/data", "/sections/mistakes"):
        answer = client.get(address)
        assert answer.status_code == 200, address
        for name in ("<script>alert", "<img src=x", "<b>", "<i>"):
            assert name not in answer.text, (address, name)
    assert "&lt;script&gt;alert(1)" in client.get("/sections/mistakes").text
    answer = client.post("/tag", params={"name": "<b>.wav"}, content=b"no sound")
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/json"
    assert answer.json()["detail"].startswith("<b>.wav cannot be tagged: ")     # shown as text


def test_a_clip_is_listed_played_and_drawn(hostile):
    client, fnames = hostile
    rows = client.get("/clips", params={"split": "curated", "name": CLASSES[1]}).json()
    assert rows["total"] == 2 and [row["name"] for row in rows["rows"]] == [fnames[1], fnames[4]]
    sound = rows["rows"][1]["sound"]
    description = client.get(f"/sound/{sound}").json()
    assert description["name"] == fnames[4] and description["seconds"] == 1
    assert len(client.get(f"/sound/{sound}/audio.wav").content) == 44 + 2 * RATE
    assert client.get(f"/sound/{sound}/spectrogram.png", params={"start": 0.2, "end": 0.4}).content[:4] == b"\x89PNG"
    assert client.get(f"/sound/{sound}/spectrogram.png", params={"start": "nan", "end": 1}).status_code == 422
    result = client.get(f"/example/{sound}").json()
    assert result["found"] == f"{CLASSES[0]} 0.95" and result["similar"] is None
    assert [row["name"] for row in result["timeline"]] == CLASSES and len(result["timeline"][0]["values"]) == 1


def test_mistakes_by_label_and_by_the_class_that_outranks_it(hostile):
    client, fnames = hostile

    def names(**filters):
        return [row["name"] for row in client.get("/mistakes", params=filters).json()["rows"]]

    assert names() == [fnames[place] for place in (2, 5, 1, 4, 0, 3)]       # the lowest precision first
    assert names(name=CLASSES[1]) == [fnames[1], fnames[4]]
    assert names(name=CLASSES[2], other=CLASSES[1]) == [fnames[2], fnames[5]]
    assert names(other=CLASSES[0]) == [fnames[2], fnames[5], fnames[1], fnames[4]]
    assert names(name=CLASSES[0], other=CLASSES[1]) == []
    assert client.get("/mistakes", params={"name": "no class"}).status_code == 404
    bars = client.get("/mistakes/2").json()["bars"]
    assert "0.10" in bars and bars.count('class="mark"') == 1


@pytest.mark.parametrize("path", ["/sound/curated-6", "/sound/curated--1", "/sound/test-0/audio.wav", "/mistakes/99",
                                  "/example/upload-x", "/sound/curated-%C2%B2"])
def test_what_does_not_exist_is_said(hostile, path):
    answer = hostile[0].get(path)
    assert answer.status_code == 404 and "Load the page again" in answer.json()["detail"]


def test_old_sounds_are_forgotten(monkeypatch):
    monkeypatch.setattr(sounds_module, "KEPT", 1000)
    sounds = Sounds({}, RATE)
    first, second, third = (sounds.add(np.full(400, number, np.int16), RATE) for number in range(3))
    with pytest.raises(KeyError):
        sounds.get(first)
    assert sounds.get(second)[0][0] == 1 and sounds.get(third)[0][0] == 2
    assert len({first, second, third}) == 3


def test_runs_are_grouped_by_data_and_recipe(tmp_path):
    write_run(tmp_path, "one", "birds", "1" * 64, {1: 0.5, 2: 0.7})
    write_run(tmp_path, "two", "birds", "1" * 64, {1: 0.6, 2: 0.6, 3: 0.9}, seed=1, date="2026-11-26T08:05:00+00:00")
    write_run(tmp_path, "other_data", "bells", "2" * 64, {1: 0.1})
    write_run(tmp_path, "new_csv", "birds", "3" * 64, {1: 0.2})
    write_run(tmp_path, "training", "bells", "2" * 64, {})
    write_run(tmp_path, "broken", "bells", "2" * 64, {1: 0.2}).settings_path.write_text("{")
    page = runs_page(*read_entries(tmp_path))
    sections = page.split("<section")[1:]
    assert "settings.json" in sections[0] and "broken" in sections[0]
    groups = {section.split("<h3>")[1].split("</h3>")[0]: section for section in sections[1:]}
    assert set(groups) == {"birds, smoke, curated stage (train_curated.csv 1111111)",
                           "birds, smoke, curated stage (train_curated.csv 3333333)", "bells, smoke, curated stage"}
    together = groups["birds, smoke, curated stage (train_curated.csv 1111111)"]
    assert "2 runs" in together and "new_<wbr>csv" not in together and "other_<wbr>data" not in together
    assert "0.6000 ± 0.1414" in together and "25 Nov 2026" in together and "fold 3: 0.9000" in together
    assert "3 of 3" in together and "seed" in together


def test_a_damaged_run_does_not_hide_the_others(tmp_path):
    write_run(tmp_path, "good", "birds", "1", {1: 0.5})
    for number, content in enumerate(("{}", '{"lwlrap": "x"}', "[]")):
        write_run(tmp_path, f"bad{number}", "birds", "1", {1: 0.5}).record(1).write_text(content)
    shutil.copytree(tmp_path / "good" / "curated", tmp_path / "good" / "curated_backup")
    entries, errors = read_entries(tmp_path)
    assert [entry.name for entry in entries] == ["good/curated"] and len(errors) == 4
    page = runs_page(entries, errors)
    assert page.count("fold1.json is damaged") == 3 and page.count("is not the folder of a stage, ") == 1


def test_two_runs_side_by_side(tmp_path):
    write_run(tmp_path, "one", "birds", "1", {1: 0.5, 2: 0.7})
    write_run(tmp_path, "two", "birds", "1", {1: 0.6, 2: 0.6, 3: 0.9}, seed=1)
    write_run(tmp_path, "bells", "bells", "2", {1: 0.6})
    page = compare_runs(tmp_path, "one/curated", "two/curated")
    assert "On the 4 clips that both predicted, with 2 classes" in page and "<td>0 -&gt; 1</td>" in page
    scores = [error_analysis.score_by_class(truth.iloc[:4], predictions.iloc[:4]).lwlrap for truth, predictions in (
        error_analysis.out_of_fold(StageFolder(tmp_path / name / "curated")) for name in ("one", "two"))]
    for name in "ab":
        row = re.search(rf'<th scope="row">{name} \(2\)</th>.*', page)[0]
        assert re.findall(r'"number">(.*?)<', row) == [
            f"{scores[0][name]:.3f}", f"{scores[1][name]:.3f}", f"{scores[1][name] - scores[0][name]:+.3f}"]
    with pytest.raises(TaggingError, match="no clips and classes in common"):
        compare_runs(tmp_path, "one/curated", "bells/curated")
    for name in ("one", "../one/curated", "one/../../x", "nothing/curated"):
        with pytest.raises(TaggingError):
            compare_runs(tmp_path, "two/curated", name)
