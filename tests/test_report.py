"""The pages about runs and data sets, and their charts."""
import base64
import hashlib
import io
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import Workshop
from PIL import Image

from tagging.data.competition import open_competition
from tagging.data.tables import join_labels, write_scores
from tagging.evaluation import error_analysis
from tagging.recipe import CAPSTONE, SMOKE
from tagging.reporting import sections
from tagging.reporting.report import TEMPLATES, write_run_report
from tagging.reporting.sections import closest_recipe, read_logs
from tagging.run import StageFolder

HOSTILE = ["<script>alert(1)</script>", 'Bell & "Drum" \'n\' <b>', "$a_1$ costs $", "x" * 200]


class Page(HTMLParser):
    """The HTML tags of a page, all its text, and its pictures."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.text, self.addresses = [], "", []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.pictures = [Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
                         for address in self.addresses if address.startswith("data:image/png;base64,")]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data

    def has_one_script(self) -> bool:
        """Whether the only script is ours, and the browser is told to run no other."""
        script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return self.source.count("<script") == 1 and f"<script>{script}</script>" in self.source and (
            f"script-src 'sha256-{digest}'" in self.source)

    def is_self_contained(self) -> bool:
        """Whether the page loads nothing from outside."""
        return (all(address.startswith(("data:image/png;base64,", "#")) for address in self.addresses)
                and not {"link", "iframe", "object", "audio"} & set(self.tags) and self.has_one_script()
                and not any(word in self.source for word in ("http://", "https://", "file://", "url(", "@import")))


@pytest.fixture(autouse=True)
def all_worst_clips(monkeypatch):
    """As many as in the product: elsewhere the tests draw two."""
    monkeypatch.setattr(sections, "WORST", 12)


@pytest.fixture
def copied(trained, tmp_path) -> Workshop:
    """A copy of a trained run and its data, which a test may change."""
    shutil.copytree(trained.folder / "models", tmp_path / "models")
    shutil.copytree(trained.data, tmp_path / "sample")
    return Workshop(tmp_path, tmp_path / "sample")


def report(shop: Workshop) -> Page:
    return Page(write_run_report(StageFolder(shop.stage("first", "curated")), open_competition(shop.data)))


def worst_clips(shop: Workshop) -> pd.DataFrame:
    table = error_analysis.clip_table(*error_analysis.out_of_fold(StageFolder(shop.stage("first", "curated"))))
    return table[table.precision < 1][:12]


def test_training_writes_a_self_contained_page_with_all_results_of_the_run(trained):
    page = Page(trained.folder / "models" / "first" / "report.html")
    folder = trained.stage("first", "curated")
    settings, scores = (json.loads((folder / name).read_text()) for name in ("settings.json", "scores.json"))
    assert page.is_self_contained()
    assert "Run first" in page.text and "not finished" not in page.text
    for text in (f"{scores['mean']:.5f} ± {scores['spread']:.5f}", f"{scores['out_of_fold']:.5f}",
                 "noisy stage of run first", settings["made_by"]["command"], settings["made_by"]["commit"][:10],
                 "timm:test_resnet", "cpu (", *settings["classes"],
                 *(f"{score:.5f}" for score in scores["folds"].values())):
        assert text in page.text, text
    worst = worst_clips(trained)
    assert len(worst) == 12 and all(fname in page.text for fname in worst.index)
    # the spectrograms of the worst clips, and two learning curves of each stage and the calibration
    assert len(page.pictures) == 12 and all(picture.height == 128 for picture in page.pictures)
    assert page.source.count('<figure class="plot">') == 5 and page.tags.count("caption") == 2 + 12
    assert all(f'alt="Spectrogram of {fname}' in page.source for fname in worst.index)


def test_the_knobs_that_differ_from_the_closest_recipe_come_first(trained):
    page = Page(trained.folder / "models" / "first" / "report.html")
    about = page.text.split("Settings")[-1]
    assert "The closest recipe is smoke." in about
    assert about.index("fold_count") < about.index("crop_seconds")


def test_the_closest_recipe():
    assert closest_recipe(CAPSTONE) == ("capstone", [])
    changed = replace(SMOKE, seed=7, curated=replace(SMOKE.curated, epochs=(5,)))
    assert closest_recipe(changed) == ("smoke", ["seed", "curated.epochs"])


def test_the_report_names_unfinished_folds(copied):
    (copied.stage("first", "curated") / "fold2.json").unlink()
    page = report(copied)
    assert "Fold 2 of 2 is not finished" in page.text and "±" not in page.text


def test_a_clip_that_cannot_be_used_has_a_sentence_instead_of_its_spectrogram(copied):
    first, second = worst_clips(copied).index[:2]
    (copied.data / "train_curated" / first).unlink()
    soundfile.write(copied.data / "train_curated" / second, np.zeros((100, 2)), 16_000)
    page = report(copied)
    assert page.text.count("There is no spectrogram") == 2
    assert "No such file" in page.text and "2 channels, but a clip must be mono" in page.text
    assert len(page.pictures) == 12 - 2


def test_the_report_of_a_run_from_random_weights_has_one_stage(copied):
    path = copied.stage("first", "curated") / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"initial_weights": "scratch"}))
    page = report(copied)
    assert "random weights" in page.text and page.source.count('<figure class="plot">') == 3


def test_training_succeeds_if_the_page_cannot_be_written(copied):
    path = copied.folder / "models" / "first" / "report.html"
    path.unlink()
    path.mkdir()
    result = copied.train("train_curated.py", "first")
    assert result.code == 0 and "note: no report was written" in result.err and str(path) in result.err


def test_a_bug_in_the_page_is_not_hidden(copied, monkeypatch):
    monkeypatch.setattr("tagging.reporting.sections.settings_section", lambda folder: {}["bug"])
    with pytest.raises(KeyError, match="bug"):
        copied.train("train_curated.py", "first")


def hostile_competition(root: Path) -> list[str]:
    """Write four classes and eight clips with names that could break a page or a formula. Return the clip names."""
    folder = root / "train_curated"
    folder.mkdir(parents=True)
    fnames = [f"<img src=x onerror=alert({number})>&amp;.wav" for number in range(8)]
    rng = np.random.default_rng(0)
    for fname in fnames:
        soundfile.write(folder / fname, rng.normal(0, 0.1, 8000), 16_000)
    labels = [join_labels(HOSTILE[place % 4:place % 4 + 2]) for place in range(8)]
    pd.DataFrame({"fname": fnames, "labels": labels}).to_csv(root / "train_curated.csv", index=False)
    pd.DataFrame([["test.wav", 0, 0, 0, 0]], columns=["fname", *HOSTILE]).to_csv(
        root / "sample_submission.csv", index=False)
    return fnames


def assert_harmless(page: Page, fnames: list[str]) -> None:
    assert page.is_self_contained() and "b" not in page.tags
    for name in (*HOSTILE, *fnames):
        assert name in page.text


def test_names_of_a_run_cannot_change_the_page(copied, tmp_path):
    fnames = hostile_competition(tmp_path / "hostile")
    folder = StageFolder(copied.stage("first", "curated"))
    settings = json.loads(folder.settings_path.read_text())
    folder.settings_path.write_text(json.dumps(settings | {"classes": HOSTILE}))
    table = pd.read_csv(tmp_path / "hostile" / "train_curated.csv")
    table.assign(fold=[1] * 4 + [2] * 4, crc32="0").to_csv(folder.path / "clips.csv", index=False)
    for fold in (1, 2):
        scores = np.random.default_rng(fold).random((4, 4))
        scores[:, fold] = 1             # a class that is wrong for some clips
        write_scores(folder.predictions(fold), pd.DataFrame(scores, fnames[4 * fold - 4:4 * fold], HOSTILE))
    wrong = error_analysis.clip_table(*error_analysis.out_of_fold(folder)).query("precision < 1").index
    page = Page(write_run_report(folder, open_competition(tmp_path / "hostile")))
    assert len(wrong) and "There is no spectrogram" not in page.text
    assert_harmless(page, list(wrong))


def test_names_of_a_data_set_cannot_change_the_page(tmp_path, workshop):
    fnames = hostile_competition(tmp_path / "hostile")
    for fname in fnames:
        (tmp_path / "hostile" / "train_curated" / fname).write_bytes(b"nothing")
    result = workshop.call("tools/eda.py", "--data", tmp_path / "hostile", "--out", tmp_path / "data.html")
    assert result.code == 0, result.err
    page = Page(tmp_path / "data.html")
    assert_harmless(page, fnames)       # each clip is in the list of clips that cannot be used
    assert "There is no noisy split." in page.text and not page.pictures
    assert page.tags.count("caption") == 2 and "plot" not in page.tags      # the labels only


def test_the_page_about_a_data_set(workshop, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(workshop.data, data)
    broken, copy, *_, original = sorted(path.name for path in (data / "train_curated").iterdir())
    (data / "train_curated" / broken).write_bytes(b"")
    shutil.copy(data / "train_curated" / original, data / "train_curated" / copy)
    result = workshop.call("tools/eda.py", "--data", data, "--out", tmp_path / "pages" / "data.html")
    assert result.code == 0 and "curated: 45 clips, 45 measured, 1 cannot be used" in result.out
    page = Page(tmp_path / "pages" / "data.html")
    assert page.is_self_contained()
    # labels by class, labels per clip; pairs of two splits; lengths, silence, noise floor
    assert page.tags.count("caption") == 2 and page.source.count('class="matrix"') == 2
    assert page.source.count('<figure class="plot">') == 3
    assert "0 bytes" in page.text and "PCM_16" in page.text and "16,000" in page.text
    duplicates = page.text.split("Duplicate clips")[-1].split("Extreme clips")[0]
    assert copy in duplicates and original in duplicates and broken not in duplicates


def test_some_of_the_clips_can_be_measured(workshop, tmp_path, expect_error):
    words = ["--data", workshop.data, "--out", tmp_path / "data.html", "--clips"]
    result = workshop.call("tools/eda.py", *words, 10)
    assert "noisy: 90 clips, 10 measured" in result.out
    assert "at most 10 random clips of each split" in Page(tmp_path / "data.html").text
    expect_error(workshop.call("tools/eda.py", *words, -1), "--clips")


def test_the_logs_of_a_run(trained, copied):
    logs = read_logs(StageFolder(trained.stage("first", "noisy")))
    assert list(logs) == [1, 2] and list(logs[1].columns) == ["epoch", "train_loss", "valid_loss", "lwlrap"]
    assert logs[1].epoch.tolist() == [1]
    (copied.stage("first", "noisy") / "fold2.log.csv").unlink()
    assert list(read_logs(StageFolder(copied.stage("first", "noisy")))) == [1]
