"""`python lwlrap.py` as a user runs it."""
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Result, Workshop
from sklearn.metrics import label_ranking_average_precision_score

from tagging.data import csv_files
from tagging.data.tables import join_labels

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ["Bark", "Meow", "Chink, clink", "Möwe", "Tap water", "Never heard"]     # the last one has no label


def run(*arguments, cwd):
    return subprocess.run([sys.executable, ROOT / "lwlrap.py", *map(str, arguments)], cwd=cwd, timeout=60,
                          capture_output=True, text=True, encoding="utf-8")


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Score in the folder of the test and in this process, which is quicker."""
    def call(*arguments) -> Result:
        monkeypatch.setattr(csv_files, "said", set())
        monkeypatch.chdir(tmp_path)
        return Workshop(tmp_path, tmp_path).call("lwlrap.py", *arguments)
    return call


def last_line(*arguments, cwd):
    done = run(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()[-1]


def expected_line(truth, scores):
    marks = truth.to_numpy()
    scores = scores.loc[truth.index, truth.columns].to_numpy()
    value = label_ranking_average_precision_score(marks, scores, sample_weight=marks.sum(1))
    return f"lwlrap {value:.5f}"


def write_classes(folder, classes=CLASSES):
    """Write a sample submission beside the truth, as in Kaggle's layout."""
    pd.DataFrame([[0] * len(classes)], pd.Index(["x.wav"], name="fname"), classes).to_csv(
        folder / "sample_submission.csv")


def labels_of(truth):
    return [join_labels([name for name in CLASSES if row[name]]) for _, row in truth.iterrows()]


@pytest.fixture
def case(tmp_path):
    """A submission with ties, and its truth as a frame; both in the same order."""
    rng = np.random.default_rng(19)
    fnames = pd.Index([f"{number:08x}.wav" for number in range(40)], name="fname")
    truth = pd.DataFrame((rng.random((40, 6)) < 0.3).astype(int), fnames, CLASSES)
    truth["Never heard"] = 0
    truth.iloc[0, :2] = 1                       # one row with two labels
    truth.iloc[1] = 0                           # one without any
    scores = pd.DataFrame(rng.integers(0, 20, (40, 6)) / 20 + truth / 5, fnames, CLASSES)
    scores.to_csv(tmp_path / "submission.csv")
    write_classes(tmp_path)
    return truth, scores


def shuffled(frame, seed=7):
    rng = np.random.default_rng(seed)
    return frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])]


def write_labels(path, truth, **columns):
    pd.DataFrame({"labels": labels_of(truth), **columns}, truth.index).to_csv(path)


def test_truth_as_labels(case, tmp_path):
    truth, scores = case
    write_labels(tmp_path / "truth.csv", shuffled(truth))
    line = last_line("submission.csv", "--truth", "truth.csv", cwd=tmp_path)
    assert re.fullmatch(r"lwlrap 0\.\d{5}", line)
    out = run("submission.csv", "--truth", "truth.csv", cwd=tmp_path).stdout
    assert out == f"6 classes, those of sample_submission.csv\n{line}\n"
    assert line == expected_line(truth, scores)


def test_truth_as_a_table_of_zeros_and_ones(case, tmp_path):
    truth, scores = case
    shuffled(truth).to_csv(tmp_path / "truth.csv")
    assert last_line("submission.csv", "--truth", "truth.csv", cwd=tmp_path) == expected_line(truth, scores)


def test_usage_scores_its_rows_only(case, tmp_path):
    truth, scores = case
    usage = np.resize(["Public", "Private", "Private"], 40)
    write_labels(tmp_path / "truth.csv", truth, usage=usage)
    lines = [last_line("submission.csv", "--truth", "truth.csv", *choice, cwd=tmp_path)
             for choice in ((), ("--usage", "Private"), ("--usage", "Public"))]
    assert lines == [expected_line(rows, scores) for rows in (truth, truth[usage == "Private"],
                                                              truth[usage == "Public"])]
    assert len(set(lines)) == 3


def test_usage_needs_all_of_its_rows(case, tmp_path):
    truth, scores = case
    usage = np.resize(["Public", "Private"], 40)
    write_labels(tmp_path / "truth.csv", truth, usage=usage)
    scores[usage == "Private"].iloc[1:].to_csv(tmp_path / "submission.csv")
    done = run("submission.csv", "--truth", "truth.csv", "--usage", "Private", cwd=tmp_path)
    assert done.returncode == 2
    assert scores.index[1] in done.stderr and "1 rows missing" in done.stderr


def test_per_class_lists_every_class_lowest_first(case, tmp_path):
    truth, scores = case
    truth.to_csv(tmp_path / "truth.csv")
    done = run("submission.csv", "--truth", "truth.csv", "--per-class", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    rows = [line.rsplit(maxsplit=3) for line in lines if len(line.split()) > 3]
    table = pd.DataFrame([row[1:] for row in rows], [row[0].strip() for row in rows], ["lwlrap", "weight", "clips"])
    table = table.astype(float)
    assert sorted(table.index) == sorted(CLASSES)
    assert table.clips[CLASSES].tolist() == truth.sum().tolist()
    assert np.isnan(table.lwlrap["Never heard"])                        # not 0: nothing is known about it
    known = table.lwlrap.dropna()
    assert known.is_monotonic_increasing and known.iloc[0] < known.iloc[-1]
    assert last == expected_line(truth, scores)
    assert (table.lwlrap * table.weight).sum() == pytest.approx(float(last.split()[1]), abs=5e-5)


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def drop_row(folder):
    scores = pd.read_csv(folder / "submission.csv", index_col="fname")
    scores.drop("00000005.wav").to_csv(folder / "submission.csv")


def put(value):
    def damage(folder):
        scores = pd.read_csv(folder / "submission.csv", index_col="fname", dtype=str)
        scores.loc["00000005.wav", "Tap water"] = value
        scores.to_csv(folder / "submission.csv")
    return damage


def other_classes(folder):
    edit(folder / "submission.csv", "Bark", "Growl")
    (folder / "sample_submission.csv").unlink()
    truth = pd.DataFrame(1, pd.Index(["00000005.wav"], name="fname"), CLASSES)
    truth.to_csv(folder / "truth.csv")


def no_label_at_all(folder):
    truth = pd.read_csv(folder / "truth.csv", index_col="fname", keep_default_na=False)
    truth.assign(labels="").to_csv(folder / "truth.csv")


FAULTS = {
    "missing row": (drop_row, "submission.csv", ["1 rows missing", "00000005.wav"]),
    "extra row": (lambda folder: edit(folder / "submission.csv", "00000005.wav", "00000005.wav,0,0,0,0,0,0\nnew.wav"),
                  "submission.csv", ["1 rows too many", "new.wav"]),
    "NaN": (put("nan"), "submission.csv", ["line 7", "00000005.wav", "Tap water", "nan"]),
    "empty field": (put(""), "submission.csv", ["line 7", "00000005.wav", "Tap water"]),
    "text": (put("loud"), "submission.csv", ["line 7", "00000005.wav", "Tap water", "loud"]),
    "no such file": (lambda folder: (folder / "submission.csv").unlink(), "submission.csv", ["No such file"]),
    "unknown label": (lambda folder: edit(folder / "truth.csv", "Bark", "Growl"), "truth.csv",
                      ["line 2", "00000000.wav", "'Growl'"]),
    "other classes": (other_classes, "truth.csv", ["1 columns missing (Bark)", "1 columns too many (Growl)"]),
    "no label at all": (no_label_at_all, "truth.csv", ["label"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_is_one_line_that_names_the_file(case, tmp_path, fault):
    write_labels(tmp_path / "truth.csv", case[0])
    damage, file, words = FAULTS[fault]
    damage(tmp_path)
    # The user's own path is repeated in the message, whatever form it has.
    done = run(tmp_path / "submission.csv", "--truth", tmp_path / "truth.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*\n", done.stderr), done.stderr           # one line: no traceback
    for word in [str(tmp_path / file), *words]:
        assert word in done.stderr
    assert "lwlrap" not in done.stdout


@pytest.mark.parametrize("columns, named", [
    ({"id": range(40)}, "id"), ({"Other": 0}, "Other"), ({"Other": 1.5, "Unnamed: 0": 0.5}, "Other"),
    ({"a": 0, "b": 1}, "a, b")])
@pytest.mark.parametrize("form", ["labels", "table", "labels alone"])
def test_further_columns_are_an_error_that_names_them(case, tmp_path, score, columns, named, form):
    truth, scores = case
    truth.to_csv(tmp_path / "truth.csv") if form == "table" else write_labels(tmp_path / "truth.csv", truth)
    if form == "labels alone":      # the classes of the truth are those that it has
        (tmp_path / "sample_submission.csv").unlink()
        scores = scores.drop(columns="Never heard")
        scores.to_csv(tmp_path / "submission.csv")
        assert score("submission.csv", "--truth", "truth.csv").out.splitlines()[-1] == expected_line(
            truth[scores.columns], scores)
    scores.assign(**columns).to_csv(tmp_path / "submission.csv")
    done = score("submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and "lwlrap" not in done.out
    assert re.fullmatch(r"error: submission\.csv .*\n", done.err)
    assert named in done.err or "without a name" in done.err


@pytest.mark.parametrize("form", ["labels", "table", "labels alone"])
def test_an_index_without_a_name_changes_no_score(case, tmp_path, score, form):
    truth, scores = case
    truth.to_csv(tmp_path / "truth.csv") if form == "table" else write_labels(tmp_path / "truth.csv", truth)
    if form == "labels alone":
        (tmp_path / "sample_submission.csv").unlink()
        truth, scores = truth.drop(columns="Never heard"), scores.drop(columns="Never heard")
    for rows in (scores.reset_index(), scores.sort_values("Bark").reset_index().sample(frac=1, random_state=0)):
        rows.to_csv(tmp_path / "submission.csv")
        done = score("submission.csv", "--truth", "truth.csv")
        assert done.code == 0 and done.out.splitlines()[-1] == expected_line(truth, scores)
        assert "note: submission.csv: column 1 has no name and numbers the rows. It is ignored." in done.out


def test_a_class_that_the_submission_leaves_out_is_named(case, tmp_path, score):
    truth, scores = case
    write_labels(tmp_path / "truth.csv", truth)
    scores.drop(columns=["Never heard", "Bark"]).to_csv(tmp_path / "submission.csv")
    done = score("submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and "2 columns missing (Bark, Never heard)" in done.err
    assert "The classes are those of sample_submission.csv" in done.err


def test_a_class_without_a_clip_needs_the_list_of_classes(case, tmp_path, score):
    truth, scores = case
    write_labels(tmp_path / "truth.csv", truth)
    (tmp_path / "elsewhere").mkdir()
    lists = {"vocabulary.csv": "".join(f'{number},"{name}",/m/{number}\n' for number, name in enumerate(CLASSES)),
             "names.csv": "".join(f'"{name}"\n' for name in CLASSES),
             "sample.csv": (tmp_path / "sample_submission.csv").read_text(encoding="utf-8")}
    (tmp_path / "sample_submission.csv").unlink()
    done = score("submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and "Never heard" in done.err and "--classes" in done.err
    for name, content in lists.items():
        path = tmp_path / "elsewhere" / name
        path.write_text(content, encoding="utf-8")
        assert score("submission.csv", "--truth", "truth.csv", "--classes", path).out.splitlines()[-1] == expected_line(
            truth, scores)
    (tmp_path / "elsewhere" / "vocabulary.csv").rename(tmp_path / "vocabulary.csv")         # Zenodo's layout
    assert score("submission.csv", "--truth", "truth.csv").out.splitlines()[-1] == expected_line(truth, scores)


def test_the_classes_of_a_usage_are_those_of_the_whole_truth(case, tmp_path, score):
    truth, scores = case
    (tmp_path / "sample_submission.csv").unlink()
    usage = np.where(truth.Bark == 1, "Public", "Private")
    write_labels(tmp_path / "truth.csv", truth, usage=usage)
    truth, scores = truth.drop(columns="Never heard"), scores.drop(columns="Never heard")
    scores.to_csv(tmp_path / "submission.csv")
    assert score("submission.csv", "--truth", "truth.csv", "--usage", "Private").out.splitlines()[-1] == expected_line(
        truth[usage == "Private"], scores)


def test_the_submission_never_decides_its_own_classes(case, tmp_path, score):
    """Also if it lies beside the truth under the name of the sample submission."""
    truth, scores = case
    write_labels(tmp_path / "truth.csv", truth)
    scores.assign(Other=0).to_csv(tmp_path / "sample_submission.csv")
    done = score("sample_submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and "Never heard, Other" in done.err
    done = score("sample_submission.csv", "--truth", "truth.csv", "--classes", tmp_path / "sample_submission.csv")
    assert done.code == 2 and "is the submission" in done.err


def test_two_lists_of_classes_that_differ_are_refused(case, tmp_path, score):
    truth, scores = case
    write_labels(tmp_path / "truth.csv", truth)
    (tmp_path / "vocabulary.csv").write_text("Bark\nMeow\n")
    done = score("submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and "sample_submission.csv and vocabulary.csv have different classes" in done.err
    done = score("submission.csv", "--truth", "truth.csv", "--classes", "sample_submission.csv")
    assert done.out.splitlines()[-1] == expected_line(truth, scores)


@pytest.mark.parametrize("change", [lambda name: name.removesuffix(".wav"), lambda name: f"test/{name}",
                                    lambda name: f"C:\\test\\{name}"])
@pytest.mark.parametrize("side", ["submission", "truth"])
@pytest.mark.parametrize("usage", [(), ("--usage", "Private")])
def test_names_in_another_form_are_matched(case, tmp_path, score, change, side, usage):
    truth, scores = case
    column = np.resize(["Public", "Private"], 40)
    rows = column == "Private" if usage else column != ""
    write_labels(tmp_path / "truth.csv", truth.rename(change) if side == "truth" else truth, usage=column)
    (scores.rename(change) if side == "submission" else scores).to_csv(tmp_path / "submission.csv")
    done = score("submission.csv", "--truth", "truth.csv", *usage)
    assert done.code == 0 and done.out.splitlines()[-1] == expected_line(truth[rows], scores), done.err
    assert "40 of 40 names were matched to the rows of truth.csv" in done.out


def test_excel_with_semicolons_and_decimal_commas(case, tmp_path, score):
    truth, scores = case
    write_labels(tmp_path / "truth.csv", truth)
    text = scores.to_csv(sep=";", decimal=",", lineterminator=";;\r\n")
    for encoding in ("utf-16", "cp1252", "utf-8-sig"):
        (tmp_path / "submission.csv").write_bytes(text.encode(encoding))
        assert score("submission.csv", "--truth", "truth.csv").out.splitlines()[-1] == expected_line(truth, scores)


def test_an_unknown_usage_is_refused_with_those_there_are(case, tmp_path):
    write_labels(tmp_path / "truth.csv", case[0], usage="Public")
    done = run("submission.csv", "--truth", "truth.csv", "--usage", "private", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"error: truth\.csv .*private.*Public.*\n", done.stderr)


def test_importing_the_metric_loads_no_heavy_library(tmp_path):
    # A notebook imports it beside whatever it has; seconds of torch would be paid for one number.
    program = ("import sys, lwlrap; print(lwlrap.lwlrap(truth=[[1, 0]], scores=[[1, 1]]),"
               " {'torch', 'fastai', 'sklearn'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0.5 set()\n", "")
