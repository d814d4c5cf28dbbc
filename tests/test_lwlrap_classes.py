"""Which classes `python lwlrap.py` scores, and which columns it refuses."""
import re

import numpy as np
import pytest
from lwlrap_case import CLASSES, expected_line, write_labels
from lwlrap_case import case as case
from lwlrap_case import score as score


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
