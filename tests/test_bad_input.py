"""What a user can get wrong ends in one error that names the file, the place and the remedy, before any training."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT, TINY, Workshop

from tagging.data.tables import read_scores

RATE = 16_000


@pytest.fixture
def own(tmp_path, sample) -> Workshop:
    """A workshop with its own copy of the competition, to break."""
    shutil.copytree(sample, tmp_path / "sample")
    return Workshop(tmp_path, tmp_path / "sample")


def rewrite(path: Path, change) -> None:
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)


@pytest.mark.parametrize("script, part", [
    ("train_noisy.py", "train_noisy.csv"), ("train_noisy.py", "train_noisy"), ("train_curated.py", "train_curated.csv"),
    ("train_curated.py", "train_curated"), ("predict.py", "test"), ("train_noisy.py", "sample_submission.csv")])
def test_a_missing_part_of_the_folder(own, trained, expect_error, script, part):
    shutil.copytree(trained.folder / "models", own.folder / "models")
    path = own.data / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = {"train_curated.py": ["--from-scratch"]}.get(script, [])
    expect_error(own.call(script, *own.options("first"), *words), part)


def test_what_later_steps_will_miss_is_said_at_the_start(own):
    shutil.rmtree(own.data / "test")
    result = own.train("train_noisy.py", "r", *TINY, "--folds", 1)
    assert result.code == 0 and f"{own.data / 'test'} are missing" in result.out


@pytest.mark.parametrize("script", ["train_noisy.py", "train_curated.py"])
def test_a_sample_submission_of_other_clips_is_found_before_training(own, expect_error, script):
    rewrite(own.data / "sample_submission.csv", lambda table: table.assign(fname="other-" + table.fname))
    words = ["--from-scratch"] if script == "train_curated.py" else []
    expect_error(own.train(script, "r", *TINY, *words), "sample_submission.csv", "30 clips", "missing", "rename")
    assert not own.stage("r", "noisy").exists() and not own.stage("r", "curated").exists()


def test_names_without_extension_and_an_excel_file_train_and_predict_the_same(own, trained):
    """The run resumes as finished, and the submission has the names of the sample submission as they stand."""
    shutil.copytree(trained.folder / "models", own.folder / "models")
    for name in ("train_curated.csv", "sample_submission.csv"):
        path = own.data / name
        table = pd.read_csv(path, keep_default_na=False)
        table.fname = "clips\\" + table.fname.str.removesuffix(".wav")
        path.write_bytes(table.to_csv(sep=";").encode("utf-16"))
    result = own.train("train_curated.py", "first")
    assert result.code == 0 and "fold 2 is finished" in result.out, result.err
    assert "45 of 45 names were matched" in result.out and "semicolons separate the fields" in result.out
    names = []
    for shop, out in ((own, own.folder / "own.csv"), (trained, own.folder / "trained.csv")):
        assert shop.predict("first", "--out", out).code == 0
        names.append(read_scores(out))
    assert list(names[0].index) == ["clips\\" + name.removesuffix(".wav") for name in names[1].index]
    assert np.array_equal(names[0], names[1])
    for name in ("own.csv", "trained.csv"):
        result = own.call("lwlrap.py", own.folder / name, "--truth", own.data / "test_post_competition.csv")
        assert result.code == 0, result.err
        names.append(result.out.splitlines()[-1])
    assert names[2] == names[3] and names[2].startswith("lwlrap 0.")


def test_a_folder_that_is_none(own, expect_error):
    expect_error(own.call("train_noisy.py", "--data", "nowhere", "--run", "r"), "nowhere is not a folder")


def test_a_csv_without_its_column(own, expect_error):
    rewrite(own.data / "train_noisy.csv", lambda table: table.rename(columns={"labels": "label"}))
    expect_error(own.train("train_noisy.py", "r", *TINY), "train_noisy.csv", "labels")


def test_a_label_that_is_no_class(own, expect_error):
    def change(table):
        table.loc[4, "labels"] = "Unicorn"
        return table
    rewrite(own.data / "train_noisy.csv", change)
    expect_error(own.train("train_noisy.py", "r", *TINY), "train_noisy.csv, line 6", "Unicorn")


def test_a_clip_that_is_missing_on_disk(own, expect_error):
    fname = pd.read_csv(own.data / "train_noisy.csv").fname[3]
    (own.data / "train_noisy" / fname).unlink()
    expect_error(own.train("train_noisy.py", "r", *TINY), fname, "missing on disk")


def test_a_clip_named_twice(own, expect_error):
    rewrite(own.data / "train_noisy.csv", lambda table: pd.concat([table, table.iloc[[2]]]))
    expect_error(own.train("train_noisy.py", "r", *TINY), "train_noisy.csv, line 92", "first used in line 4")


def test_a_class_without_a_clip(own, expect_error):
    rewrite(own.data / "sample_submission.csv", lambda table: table.assign(Unicorn=0))
    expect_error(own.train("train_curated.py", "r", *TINY, "--from-scratch"), "train_curated.csv", "Unicorn")


def test_more_folds_than_clips(own, expect_error):
    words = [*TINY, "--from-scratch", "--fold-count", 46]
    expect_error(own.train("train_curated.py", "r", *words), "45 clips", "46 folds")


def test_a_fold_that_there_is_not(own, expect_error):
    expect_error(own.train("train_noisy.py", "r", *TINY, "--folds", 3), "--folds 3", "1 to 2")


@pytest.fixture
def broken(own) -> tuple[Workshop, dict[str, str]]:
    """Seven faulty clips in the noisy set, and what is wrong with each."""
    fnames = pd.read_csv(own.data / "train_noisy.csv").fname[20:27]
    paths = [own.data / "train_noisy" / fname for fname in fnames]
    tone = np.sin(np.arange(RATE) / 9).astype(np.float32) / 2
    paths[0].write_bytes(b"this is no sound")
    paths[1].write_bytes(b"")
    soundfile.write(paths[2], tone[:0], RATE)
    paths[3].write_bytes(paths[3].read_bytes()[:-5000])
    soundfile.write(paths[4], np.stack([tone, tone], 1), RATE)
    soundfile.write(paths[5], tone, 22_050)
    soundfile.write(paths[6], tone * 0, RATE)
    reasons = ["unreadable", "0 bytes", "no samples", "cut short", "2 channels", "22050 Hz", "all silence"]
    return own, dict(zip(fnames, reasons))


def test_all_faulty_clips_are_listed_at_once_with_the_choice(broken, expect_error):
    shop, faults = broken
    for _ in range(2):      # from the first reading, and from the store
        error = expect_error(shop.train("train_noisy.py", "r", *TINY), "7 of 90 clips", "--skip-bad-clips")
        for fname, reason in faults.items():
            assert any(fname in line and reason in line for line in error.splitlines())
    assert not shop.stage("r", "noisy").exists()


def test_faulty_clips_are_left_out_by_name_and_the_folds_of_the_others_stay(broken, trained):
    shop, faults = broken
    result = shop.train("train_noisy.py", "r", *TINY, "--skip-bad-clips")
    assert result.code == 0 and all(fname in result.out for fname in faults)
    ours, all_clips = (pd.read_csv(folder / "clips.csv", index_col="fname").fold
                       for folder in (shop.stage("r", "noisy"), trained.stage("first", "noisy")))
    pd.testing.assert_series_equal(ours, all_clips.drop(list(faults)))
    predicted = [fname for fold in (1, 2)
                 for fname in read_scores(shop.stage("r", "noisy") / f"fold{fold}.predictions.csv").index]
    assert sorted(predicted) == sorted(ours.index)


def test_a_test_clip_that_is_left_out_gets_the_mean_and_is_named(own, trained, expect_error):
    shutil.copytree(trained.folder / "models", own.folder / "models")
    fname = pd.read_csv(own.data / "sample_submission.csv").fname[5]
    (own.data / "test" / fname).write_bytes(b"")
    out = own.folder / "out.csv"
    expect_error(own.predict("first", "--out", out), fname, "--skip-bad-clips")
    result = own.predict("first", "--out", out, "--skip-bad-clips")
    submission = read_scores(out)
    assert result.code == 0 and "1 test clips were left out" in result.out and len(submission) == 30
    np.testing.assert_allclose(submission.loc[fname], submission.drop(index=fname).mean(), atol=1e-7)


def test_a_test_set_at_another_rate_than_the_models(own, trained, expect_error):
    shutil.copytree(trained.folder / "models", own.folder / "models")
    for path in (own.data / "test").iterdir():
        soundfile.write(path, soundfile.read(path)[0], 8000)
    expect_error(own.predict("first", "--out", own.folder / "out.csv"), "8000 Hz", "16000 Hz")


def test_a_run_that_exists_with_other_settings(trained, expect_error):
    result = trained.train("train_noisy.py", "first", *TINY, "--batch-size", 8)
    expect_error(result, "recipe.batch_size: 16 -> 8", "Choose another --run")


def test_a_run_that_exists_with_other_labels(own, trained, expect_error):
    shutil.copytree(trained.folder / "models", own.folder / "models")
    rewrite(own.data / "train_noisy.csv", lambda table: table.assign(labels=table.labels.to_numpy()[::-1]))
    expect_error(own.train("train_noisy.py", "first", *TINY), "the clips, their samples, labels or folds")


def test_stage_2_without_its_stage_1(workshop, expect_error):
    expect_error(workshop.train("train_curated.py", "r", *TINY), "fold 1, 2", "train_noisy.py", "--from-scratch")


def test_stage_2_with_another_network_than_stage_1(trained, expect_error):
    error = trained.train("train_curated.py", "r", "--noisy-run", "first", "--network", "timm:test_vit")
    expect_error(error, "timm:test_resnet", "timm:test_vit", "--network")


def test_two_starts_at_once(trained, expect_error):
    expect_error(trained.train("train_curated.py", "r", "--noisy-run", "first", "--from-scratch"), "exclude each other")


def test_a_run_that_is_not_there(workshop, expect_error):
    expect_error(workshop.predict("nothing"), "nothing", "ls models")


@pytest.mark.parametrize("run", ["../out", "", "a/b"])
def test_a_run_name_that_leaves_the_folder(workshop, expect_error, run):
    expect_error(workshop.train("train_noisy.py", run, *TINY), "--run")


def test_a_damaged_checkpoint(trained, workshop, expect_error):
    shutil.copytree(trained.folder / "models", workshop.folder / "models")
    path = workshop.stage("first", "curated") / "fold2.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    expect_error(workshop.predict("first", "--out", workshop.folder / "x.csv"), str(path), "checksum")


def test_a_checkpoint_of_other_classes(own, trained, expect_error):
    shutil.copytree(trained.folder / "models", own.folder / "models")
    rewrite(own.data / "sample_submission.csv", lambda table: table.rename(columns={"Bell": "Zither"}))
    expect_error(own.predict("first", "--out", own.folder / "x.csv"), "fold1.safetensors", "Zither", "Bell")


def test_a_checkpoint_with_its_classes_in_another_order(own, trained, expect_error):
    shutil.copytree(trained.folder / "models", own.folder / "models")
    rewrite(own.data / "sample_submission.csv", lambda table: table[["fname", *reversed(table.columns[1:])]])
    expect_error(own.predict("first", "--out", own.folder / "x.csv"), "fold1.safetensors", "another order")


@pytest.mark.parametrize("words, named", [
    (["--recipe", "gold"], "capstone"), (["--network", "resnet50"], "timm:NAME"), (["--device", "tpu9"], "tpu9"),
    (["--noisy.epochs", "1", "2"], "--noisy.lrs"), (["--crop-seconds", "0"], "--crop-seconds")])
def test_an_option_out_of_its_range(workshop, expect_error, words, named):
    expect_error(workshop.train("train_noisy.py", "r", *TINY, *words), named)


@pytest.mark.slow
def test_a_real_process_ends_with_2_and_without_a_traceback(tmp_path):
    result = subprocess.run([sys.executable, ROOT / "train_noisy.py", "--data", tmp_path, "--run", "r"],
                            capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    assert str(tmp_path) in result.stderr and "sample_submission.csv" in result.stderr


def test_a_damaged_settings_file(trained, workshop, expect_error):
    shutil.copytree(trained.folder / "models", workshop.folder / "models")
    path = workshop.stage("first", "curated") / "settings.json"
    path.write_text(path.read_text()[:100])
    expect_error(workshop.predict("first"), str(path), "damaged")
    settings = json.loads((trained.stage("first", "curated") / "settings.json").read_text())
    settings["recipe"]["volume"] = 11
    path.write_text(json.dumps(settings))
    expect_error(workshop.predict("first"), "volume", "unknown", "newer version")
