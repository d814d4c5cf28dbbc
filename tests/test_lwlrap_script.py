"""`python lwlrap.py` as a user runs it: the score of the truth in all its forms, and the errors."""
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from lwlrap_case import CLASSES, expected_line, write_labels
from lwlrap_case import case as case
from lwlrap_case import score as score


def run(*arguments, cwd):
    return subprocess.run([sys.executable, ROOT / "lwlrap.py", *map(str, arguments)], cwd=cwd, timeout=60,
                          capture_output=True, text=True, encoding="utf-8")


def last_line(*arguments, cwd):
    done = run(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()[-1]


def shuffled(frame, seed=7):
    rng = np.random.default_rng(seed)
    return frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])]


def test_truth_as_labels(case, tmp_path):
    truth, scores = case
    write_labels(tmp_path / "truth.csv", truth)
    line = last_line("submission.csv", "--truth", "truth.csv", cwd=tmp_path)
    assert re.fullmatch(r"lwlrap 0\.\d{5}", line)
    out = run("submission.csv", "--truth", "truth.csv", cwd=tmp_path).stdout
    assert out == ("6 classes, those of sample_submission.csv\n"
                   f"{(~truth.any(axis=1)).sum()} of 40 clips have no label in truth.csv and do not count: "
                   f"{', '.join(truth.index[~truth.any(axis=1)][:3])} and 4 more\n"
                   f"classes without a clip in truth.csv: Never heard\n{line}\n")
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
    lines = done.stdout.splitlines()
    last, lines = lines[-1], lines[next(n for n, text in enumerate(lines) if text.split()[0] == "lwlrap"):-1]
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
