"""Both sets in one stage, through the real command lines."""
import shutil

import pandas as pd
from conftest import JOINT, TINY, Workshop, mislabel_a_noisy_clip


def test_stage_2_can_take_the_noisy_clips_of_other_folds_along(workshop, monkeypatch):
    """Of a fold's own noisy clips it sees none: only then can it judge them."""
    from tagging.training import stage
    assert workshop.train("train_noisy.py", "joint", *TINY, "--folds", 1).code == 0     # for its clips.csv
    folds = pd.read_csv(workshop.stage("joint", "noisy") / "clips.csv", index_col="fname").fold
    seen, train_fold = {}, stage.train_fold

    def spy(folder, metadata, *words, noisy, **options):
        seen[metadata.fold] = noisy
        train_fold(folder, metadata, *words, noisy=noisy, **options)

    monkeypatch.setattr(stage, "train_fold", spy)
    result = workshop.train("train_curated.py", "joint", *JOINT)
    assert result.code == 0 and "45 clips of 10 classes, and 90 of the noisy set" in result.out
    assert len(seen) == 2
    for fold, noisy in seen.items():
        assert set(noisy.fnames) == set(folds.index[folds != fold])
    assert workshop.predict("joint", "--out", workshop.folder / "joint.csv").code == 0


def test_a_recipe_without_stage_1_says_so(workshop, expect_error):
    expect_error(workshop.train("train_noisy.py", "joint", *JOINT), "The recipe has no noisy stage",
                 "Run train_curated.py")
    assert not (workshop.folder / "models").exists()


def test_a_run_with_other_noisy_clips_is_not_gone_on_with(workshop, sample, tmp_path, expect_error):
    shutil.copytree(sample, tmp_path / "own")
    shop = Workshop(workshop.folder, tmp_path / "own")
    assert shop.train("train_curated.py", "joint", *JOINT, "--folds", 1).code == 0
    mislabel_a_noisy_clip(shop)
    expect_error(shop.train("train_curated.py", "joint", *JOINT), "exists with other settings", "noisy_clips")
