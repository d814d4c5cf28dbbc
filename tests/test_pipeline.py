"""The whole path through the real scripts, on a small synthetic competition."""
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, TINY, Workshop, classes_of, weighted_lrap
from safetensors import safe_open
from safetensors.torch import load_file

from tagging.data.competition import open_competition
from tagging.data.tables import read_labels, read_scores
from tagging.data.waveforms import open_store
from tagging.utils import progress
from tagging_lite.audio import RemoveSilence


def test_a_stage_leaves_what_is_needed_to_use_it_and_to_judge_it(trained):
    for stage, csv in (("noisy", "train_noisy.csv"), ("curated", "train_curated.csv")):
        folder = trained.stage("first", stage)
        ends = ".safetensors", ".log.csv", ".predictions.csv", ".json"
        assert {path.name for path in folder.iterdir() if not path.name.endswith(".lock")} == {
            "settings.json", "clips.csv", "scores.json", *(f"fold{fold}{end}" for fold in (1, 2) for end in ends)}
        settings = json.loads((folder / "settings.json").read_text())
        assert settings["recipe"]["network"] == "timm:test_resnet" and settings["sample_rate"] == 16_000
        assert "train_" in settings["made_by"]["command"] and len(settings["made_by"]["commit"]) == 40

        truth, _ = read_labels(trained.data / csv, classes_of(trained))
        scores = json.loads((folder / "scores.json").read_text())
        frames = []
        for fold in (1, 2):
            frame = read_scores(folder / f"fold{fold}.predictions.csv")
            frames.append(frame)
            assert list(frame.columns) == classes_of(trained)
            score = weighted_lrap(truth.loc[frame.index], frame)
            with safe_open(folder / f"fold{fold}.safetensors", "pt") as file:
                about = json.loads(file.metadata()["about"])
            assert about["classes"] == classes_of(trained) and (about["fold"], about["stage"]) == (fold, stage)
            assert about["score"] == pytest.approx(score, abs=1e-6)
            assert scores["folds"][str(fold)] == about["score"]
            log = pd.read_csv(folder / f"fold{fold}.log.csv")
            assert list(log.epoch) == [1] and {"train_loss", "valid_loss", "lwlrap"} <= set(log.columns)
        together = pd.concat(frames)
        assert sorted(together.index) == sorted(truth.index)        # each clip once, none lost
        assert scores["out_of_fold"] == pytest.approx(weighted_lrap(truth.loc[together.index], together), abs=1e-6)
        assert scores["mean"] == pytest.approx(np.mean(list(scores["folds"].values())))
        assert scores["spread"] == pytest.approx(np.std(list(scores["folds"].values()), ddof=1))


def test_the_recipe_learns_and_the_second_stage_adds_to_the_first(workshop):
    """On more epochs than elsewhere: curated fine-tuning must end well above the noisy stage on unseen clips."""
    words = ["--recipe", "smoke", "--fold-count", "2", "--folds", "1", "--noisy.epochs", "4", "--curated.epochs", "16"]
    assert workshop.train("train_noisy.py", "learn", *words).code == 0
    assert workshop.train("train_curated.py", "learn", *words).code == 0
    scores = {}
    for stage in ("noisy", "curated"):
        out = workshop.folder / f"{stage}.csv"
        assert workshop.predict("learn", "--stage", stage, "--out", out).code == 0
        result = workshop.call("lwlrap.py", out, "--truth", workshop.data / "test_post_competition.csv")
        scores[stage] = float(result.out.split()[-1])
    assert scores["curated"] > 0.6 and scores["curated"] > scores["noisy"] + 0.1     # chance is 0.3


def test_same_seed_same_bits_for_folds_in_any_order(trained, workshop):
    for fold in (2, 1):
        for script, words in (("train_noisy.py", TINY), ("train_curated.py", ())):
            assert workshop.train(script, "again", *words, "--folds", fold).code == 0
    for stage in ("noisy", "curated"):
        ours, theirs = workshop.stage("again", stage), trained.stage("first", stage)
        scores, others = (json.loads((folder / "scores.json").read_text()) for folder in (ours, theirs))
        assert all(scores[name] == others[name] for name in ("folds", "mean", "spread", "out_of_fold", "clips"))
        for fold in (1, 2):
            name = f"fold{fold}.predictions.csv"
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()
            mine, other = (load_file(folder / f"fold{fold}.safetensors") for folder in (ours, theirs))
            assert all(mine[key].equal(other[key]) for key in other)


def test_the_store_is_the_same_for_any_number_of_decoding_threads(sample, tmp_path, monkeypatch):
    clips = open_competition(sample).clips("noisy")
    stores = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(progress, "available_cores", lambda count=threads: count)
        open_store(clips, RemoveSilence(), tmp_path / str(threads))
        (folder,) = (tmp_path / str(threads)).glob("noisy-*")
        stores.append([(folder / name).read_bytes() for name in ("samples.i16", "index.json")])
    assert stores[0] == stores[1] == stores[2]


def test_another_seed_gives_other_weights(trained, workshop):
    assert workshop.train("train_noisy.py", "other", *TINY, "--folds", 1, "--seed", 1).code == 0
    mine, other = (load_file(shop.stage(run, "noisy") / "fold1.safetensors")
                   for shop, run in ((workshop, "other"), (trained, "first")))
    assert not mine["head.weight"].equal(other["head.weight"])


def test_no_model_sees_a_clip_of_its_own_out_of_fold_predictions(workshop, monkeypatch):
    """Every crop that is cut before the weights are written is traced back to its clip in the store's file."""
    from tagging.data import folds, waveforms
    from tagging.evaluation.predict import WindowBatches
    seen, phase = {"training": set(), "out of fold": set()}, ["training"]
    crops = waveforms.WaveStore.crops

    def spy(store, clips, starts, size):
        seen[phase[0]].update(store.offsets[clips].tolist())
        return crops(store, clips, starts, size)

    def validation(windows):        # the score after an epoch uses validation clips, as it may
        phase[0] = "out of fold"
        try:
            yield from batches(windows)
        finally:
            phase[0] = "training"

    batches = WindowBatches.__iter__
    monkeypatch.setattr(waveforms.WaveStore, "crops", spy)
    monkeypatch.setattr(WindowBatches, "__iter__", validation)
    stores = []
    open_store = folds.open_store
    monkeypatch.setattr(folds, "open_store", lambda *a, **k: stores.append(open_store(*a, **k)) or stores[-1])

    for script in ("train_noisy.py", "train_curated.py"):
        for fold in (1, 2):
            seen["training"].clear(), seen["out of fold"].clear(), stores.clear()
            words = TINY if script == "train_noisy.py" else ()
            assert workshop.train(script, "spied", *words, "--folds", fold).code == 0
            clips, store = stores[0]
            name_of = dict(zip(store.offsets.tolist(), clips.fnames))
            part = "noisy" if script == "train_noisy.py" else "curated"
            predicted = set(read_scores(workshop.stage("spied", part) / f"fold{fold}.predictions.csv").index)
            assert {name_of[offset] for offset in seen["out of fold"]} == predicted
            assert seen["training"] and not {name_of[offset] for offset in seen["training"]} & predicted


def test_finished_folds_are_kept_and_new_ones_join_them(trained, tmp_path):
    shutil.copytree(trained.folder / "models", tmp_path / "models")
    shop = Workshop(tmp_path, trained.data)
    weights = shop.stage("first", "noisy") / "fold2.safetensors"
    before = weights.read_bytes()
    (shop.stage("first", "noisy") / "fold1.json").unlink()
    result = shop.train("train_noisy.py", "first", *TINY)
    assert result.code == 0 and "fold 2 is finished" in result.out and "noisy fold 1 epoch 1/1" in result.out
    assert weights.read_bytes() == before
    assert set(json.loads((shop.stage("first", "noisy") / "scores.json").read_text())["folds"]) == {"1", "2"}


def test_single_crop_scores_one_masked_crop(workshop):
    assert workshop.train("train_curated.py", "crop", "--from-scratch", *TINY, "--folds", 1, "--single-crop").code == 0
    assert workshop.train("train_curated.py", "whole", "--from-scratch", *TINY, "--folds", 1).code == 0
    crop, whole = (workshop.stage(run, "curated") / "fold1" for run in ("crop", "whole"))
    assert load_file(f"{crop}.safetensors")["head.weight"].equal(load_file(f"{whole}.safetensors")["head.weight"])
    assert not read_scores(f"{crop}.predictions.csv").equals(read_scores(f"{whole}.predictions.csv"))


def test_a_folder_in_zenodos_layout_gives_the_same_models(trained, workshop, tmp_path):
    zenodo, meta = tmp_path / "zenodo", "FSDKaggle2019.meta"
    (zenodo / meta).mkdir(parents=True)
    for part in ("train_curated", "train_noisy", "test"):
        (zenodo / f"FSDKaggle2019.audio_{part}").symlink_to(trained.data / part)
        csv = "test_post_competition.csv" if part == "test" else f"{part}.csv"
        table = pd.read_csv(trained.data / csv).iloc[::-1]            # Zenodo's rows are in another order
        table.assign(license="CC0").to_csv(zenodo / meta / f"{part}_post_competition.csv", index=False)
    pd.Series(classes_of(trained)).to_csv(zenodo / meta / "vocabulary.csv", header=False)
    shop = Workshop(tmp_path, zenodo)
    assert shop.train("train_noisy.py", "z", *TINY, "--folds", 1).code == 0
    name = "fold1.predictions.csv"
    assert (shop.stage("z", "noisy") / name).read_bytes() == (trained.stage("first", "noisy") / name).read_bytes()
    shutil.copytree(trained.folder / "models", tmp_path / "models", dirs_exist_ok=True)
    assert shop.predict("first", "--out", tmp_path / "z.csv").code == 0
    trained.predict("first", "--out", tmp_path / "k.csv")
    zenodo_scores, kaggle_scores = read_scores(tmp_path / "z.csv"), read_scores(tmp_path / "k.csv")
    pd.testing.assert_frame_equal(zenodo_scores.loc[kaggle_scores.index], kaggle_scores, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_noisy.py", "lwlrap.py"])      # test_help.py has all of them
def test_help_tells_every_option_from_any_folder(script, tmp_path):
    result = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0
    assert ("--truth" if script == "lwlrap.py" else "--skip-bad-clips") in result.stdout
