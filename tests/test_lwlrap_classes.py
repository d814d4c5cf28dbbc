"""Which classes `python lwlrap.py` scores, and which columns it refuses."""
import re

import numpy as np
import pandas as pd
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
    assert re.fullmatch(r"error: submission\.csv.*\n", done.err)
    assert named in done.err or "no name" in done.err


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


def test_the_labels_of_the_truth_are_said_to_be_the_classes(case, tmp_path, score):
    truth, scores = case
    (tmp_path / "sample_submission.csv").unlink()
    write_labels(tmp_path / "truth.csv", truth)
    scores.drop(columns="Never heard").to_csv(tmp_path / "submission.csv")
    assert "5 classes, the labels of truth.csv\n" in score("submission.csv", "--truth", "truth.csv").out


def test_row_numbers_are_no_class(case, tmp_path, score):
    truth, scores = case
    write_labels(tmp_path / "truth.csv", truth)
    sample = scores.assign(id=range(40))
    sample.to_csv(tmp_path / "submission.csv")
    sample.iloc[:3].to_csv(tmp_path / "sample_submission.csv")
    done = score("submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and "sample_submission.csv: the column id numbers the rows and is no class" in done.err


@pytest.mark.parametrize("name", ["label", "Labels"])
def test_another_name_of_the_column_labels(case, tmp_path, score, name):
    write_labels(tmp_path / "truth.csv", case[0])
    text = (tmp_path / "truth.csv").read_text(encoding="utf-8").replace("labels", name, 1)
    (tmp_path / "truth.csv").write_text(text, encoding="utf-8")
    done = score("submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and f"truth.csv has no column labels, but a column {name}. Rename it" in done.err


@pytest.mark.parametrize("listed", [True, False])
def test_labels_beside_columns_of_classes_are_refused(case, tmp_path, score, listed):
    truth, _ = case
    if not listed:
        (tmp_path / "sample_submission.csv").unlink()
    write_labels(tmp_path / "truth.csv", truth, Bark=1 - truth.Bark, Meow=truth.Meow, licence="CC0")
    done = score("submission.csv", "--truth", "truth.csv")
    assert done.code == 2 and "has the column labels, and columns for 2 classes: Bark, Meow" in done.err


def test_the_submission_is_no_truth(case, tmp_path, score):
    truth, _ = case
    truth.to_csv(tmp_path / "submission.csv")
    (tmp_path / "link.csv").symlink_to("submission.csv")
    for path in ("submission.csv", "link.csv"):
        done = score("submission.csv", "--truth", path)
        assert done.code == 2 and f"--truth {path} is the submission itself" in done.err


def test_invisible_characters_are_shown(case, tmp_path, score):
    truth, scores = case
    truth.to_csv(tmp_path / "truth.csv")
    scores.rename(columns={"Bark": "Bark\u200b", "Meow": "\xa0Meow"}).to_csv(tmp_path / "submission.csv")
    done = score("submission.csv", "--truth", "truth.csv")
    assert "1 columns too many (Bark\\u200b)" in done.err
    scores.rename(columns={"Möwe": "Mo\u0308we"}).to_csv(tmp_path / "submission.csv")
    done = score("submission.csv", "--truth", "truth.csv")
    assert "1 columns missing (M\\xf6we) and 1 columns too many (Mo\\u0308we)" in done.err


# --- usages ---

@pytest.fixture
def private(case, tmp_path, score):
    """Score the rows of usage Private, after a change of the usages and of the submission."""
    def call(usage=lambda column: column, change=lambda scores: scores):
        truth, scores = case
        write_labels(tmp_path / "truth.csv", truth, usage=usage(np.resize(["Public", "Private"], 40).astype("<U9")))
        change(scores).to_csv(tmp_path / "submission.csv")
        return score("submission.csv", "--truth", "truth.csv", "--usage", "Private")
    return call


def with_usage(place, value):
    def put(column):
        column[place] = value
        return column
    return put


@pytest.mark.parametrize("value", ["private", "Private ", " PRIVATE"])
def test_almost_the_same_usage_is_refused(private, value):
    done = private(with_usage(1, value))
    assert done.code == 2 and f"truth.csv, line 3: the usage '{value}' is almost 'Private'" in done.err


@pytest.mark.parametrize("value, shown", [("", "1 without a usage"), ("Privat", "1 Privat"),
                                          ("Private\u200b", "1 Private\\u200b")])
def test_other_usages_are_counted(private, value, shown):
    done = private(with_usage(1, value))
    assert done.code == 0
    assert f"19 rows are of usage Private. The other rows do not count: 20 Public, {shown}." in done.out
    assert "21 rows of submission.csv are not of usage Private and do not count" in done.out


@pytest.mark.parametrize("name", ["00000001", "x/00000001.wav", "00000002", "unknown.wav"])
@pytest.mark.parametrize("rest", ["all rows", "private rows"])
def test_rows_of_no_clip_and_second_rows_of_a_clip_are_refused_with_a_usage_too(private, name, rest):
    def change(scores):
        kept = scores if rest == "all rows" else scores[np.resize([False, True], 40)]
        return pd.concat([kept, scores.iloc[[0]].set_axis([name])]).rename_axis("fname")
    done = private(change=change)
    if rest == "private rows" and name == "00000002":       # a row of Public, which does not count
        assert done.code == 0
    else:
        assert done.code == 2 and name in done.err
