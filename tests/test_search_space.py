"""The space of a search: its file, its limits, and the command lines of its trials."""
import sys
from pathlib import Path

import optuna
import pytest

from tagging.cli import TrainCurated, parse_training
from tagging.errors import TaggingError
from tagging.recipe import RECIPES, STAGES
from tagging.search.commands import knob_words, show_changes
from tagging.search.limits import DEFAULT, describe
from tagging.search.space import Space, read_space


def read(tmp_path: Path, text: str, recipe: str = "podium", stages=STAGES, **options) -> Space:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return read_space(path, RECIPES[recipe], stages, **{"noisy_set": True} | options)


def draw(space: Space, count: int) -> list[dict]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=count))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", RECIPES)
def test_the_default_space_suits_every_recipe(name, monkeypatch):
    recipe = RECIPES[name]
    space = read_space(None, recipe, recipe.stages, noisy_set=True)
    names = {"curated.lrs", "curated.wave_mix", "curated.speed", "mask_width", "noisy_share", "crop_seconds",
             "weight_decay", "trim_db", "mels", "network"} | ({"noisy.lrs"} if "noisy" in recipe.stages else set())
    assert {knob.name for knob in space.knobs} == names
    assert space.recipe_of(space.first) == recipe and not knob_words(recipe, name)
    for params in draw(space, 3):      # the training script builds the same recipe from its command line
        drawn = space.recipe_of(params)
        monkeypatch.setattr(sys, "argv", ["train_curated.py", "--data", "d", "--run", "r", "--recipe", name,
                                          *knob_words(drawn, name)])
        assert parse_training(TrainCurated, "").knobs == drawn != recipe


def test_the_default_space_leaves_out_what_the_search_does_not_need(caplog):
    space = read_space(None, RECIPES["capstone"], ["curated"], noisy_set=False, fixed=["network"])
    assert not {"noisy.lrs", "noisy_share", "network"} & {knob.name for knob in space.knobs}
    assert caplog.messages == []        # nothing was widened
    read_space(None, RECIPES["smoke"], STAGES, noisy_set=True)
    assert caplog.messages == [f"note: {DEFAULT}: the recipe has mask_width = [0, 6], so the space is widened to "
                               "[0, 0], [0, 4], [0, 8], [0, 16], [0, 24], [0, 6]."]


def test_values_stay_within_their_limits_and_have_four_digits(tmp_path):
    space = read(tmp_path, """
        curated.lrs = {low = 1e-4, high = 1e-2, log = true}
        curated.epochs = {low = 20, high = 100, step = 20}
        crop-seconds = {low = 1, high = 3, step = 0.2}
        [mask_width]
        choices = [[0, 8], [4, 12]]
        [pooling]
        choices = ["mean", "maximum"]
        [trim_db]
        choices = [0, 20]
        [normalise]
        choices = [true, false]
        [lighting]
        choices = [0, 0.2]
    """)
    seen = []
    for params in draw(space, 60):
        try:
            seen.append(space.recipe_of(params))
        except TaggingError as error:
            assert "--lighting needs --normalise" in str(error)
    assert {recipe.mask_width for recipe in seen} == {(0, 8), (4, 12)}
    assert {recipe.curated.epochs for recipe in seen} == {(20,), (40,), (60,), (80,), (100,)}
    assert {recipe.crop_seconds for recipe in seen} <= {round(0.2 * steps, 1) for steps in range(5, 16)}
    assert {recipe.pooling for recipe in seen} == {"mean", "maximum"}
    assert {recipe.trim_db for recipe in seen} == {0.0, 20.0} and all(type(each.trim_db) is float for each in seen)
    assert {(recipe.normalise, recipe.lighting) for recipe in seen} == {(True, 0.0), (True, 0.2), (False, 0.0)}
    rates = [recipe.curated.lrs[0] for recipe in seen]
    assert all(1e-4 <= rate <= 1e-2 and rate == float(f"{rate:.4g}") for rate in rates) and min(rates) < 5e-4
    assert show_changes(seen[0], seen[0]) == "the recipe itself" and "mask_width 4 12" in show_changes(
        next(each for each in seen if each.mask_width == (4, 12)), RECIPES["podium"])


def test_the_rates_of_all_cycles_keep_their_ratio(tmp_path):
    space = read(tmp_path, "[noisy.lrs]\nlow = 1e-4\nhigh = 1e-2", "capstone")
    assert space.first == {"noisy.lrs": 3e-3}
    assert space.recipe_of({"noisy.lrs": 6e-3}).noisy.lrs == (6e-3, 2e-3)
    assert space.recipe_of(space.first) == RECIPES["capstone"]


@pytest.mark.parametrize(("text", "widened"), [
    ("[weight_decay]\nlow = 0.1\nhigh = 0.5", "0.01 to 0.5"),
    ("[curated.lrs]\nlow = 1e-5\nhigh = 1e-3\nlog = true", "1e-05 to 0.003, logarithmic"),
    ("[curated.mixup]\nlow = 0.1\nhigh = 1.0\nlog = true", "0 to 1"),           # zero has no logarithm
    ("[crop_seconds]\nlow = 1.5\nhigh = 3.0\nstep = 0.75", "1.5 to 3"),         # 2.0 is between two steps
    ("[curated.epochs]\nlow = 10\nhigh = 50\nstep = 10", "10 to 100 in steps of 10"),
    ("[mels]\nlow = 64\nhigh = 100\nstep = 12", "64 to 128"),
    ('[network]\nchoices = ["xresnet18", "timm:resnet10t"]', "xresnet18, timm:resnet10t, xresnet50"),
    ("[curated.sizes]\nchoices = [64, [96]]", "[64], [96], [128]")])
def test_the_recipe_is_always_within_the_space(tmp_path, caplog, text, widened):
    space = read(tmp_path, text)
    assert describe(space.knobs[0].limits) == widened
    assert f"so the space is widened to {widened}." in caplog.text
    assert space.recipe_of(space.first) == RECIPES["podium"]


@pytest.mark.parametrize(("text", "message"), [
    ("", "names no knob"), ("[mels", "is no TOML file"), ("mels = 64", r"mels must be a table .* option --mels"),
    ("[mel]\nlow = 1\nhigh = 2", r"no knob 'mel'\. Did you mean 'mels'\?"),
    ("[curated.lr]\nlow = 1\nhigh = 2", r"no knob 'curated.lr'\. Did you mean 'curated.lrs'\?"),
    ("[curated]\nlow = 1\nhigh = 2", "no knob 'curated.low'"),
    ("[mask_width]\nchoices = [[0, 1], [0, 2]]\n[mask-width]\nchoices = [[0, 1], [0, 2]]", "two tables"),
    ("[mels]\nlow = 64", "low or high is missing"), ("[mels]\nlow = 64\nhigh = 96\nmax = 3", "no key 'max'"),
    ("[mels]\nlow = 64.0\nhigh = 96", "low = 64.0 must be an integer"),
    ("[mels]\nlow = true\nhigh = 96", "low = True must be an integer"),
    ("[weight_decay]\nlow = '0'\nhigh = 1", "low = '0' must be a number"),
    ("[weight_decay]\nlow = 0\nhigh = inf", "high = inf must be a number"),
    ("[weight_decay]\nlow = 0\nhigh = nan", "high = nan must be a number"),
    ("[mels]\nlow = 96\nhigh = 64", "low = 96 must be below high = 64"),
    ("[weight_decay]\nlow = 0\nhigh = 1\nlog = true", "log = true needs low above 0"),
    ("[weight_decay]\nlow = 0.1\nhigh = 1\nlog = true\nstep = 0.1", "and no step"),
    ("[weight_decay]\nlow = 0.1\nhigh = 1\nlog = 1.5", "log must be true or false"),
    ("[weight_decay]\nlow = 0.1\nhigh = 1\nstep = 0.7", "high must be low plus a multiple"),
    ("[weight_decay]\nlow = 0.1\nhigh = 1\nstep = -0.1", "step must be above 0"),
    ("[network]\nlow = 1\nhigh = 2", "a range does not suit it"),
    ("[mask_width]\nlow = 1\nhigh = 2", "a range does not suit it"),
    ("[normalise]\nlow = 0\nhigh = 1", "a range does not suit it"),
    ("[mels]\nchoices = [64]", "two or more values"), ("[mels]\nchoices = 64", "two or more values"),
    ("[mels]\nchoices = [64, 96]\nlow = 1", "the only key"), ("[mels]\nchoices = [64, 64]", "two choices are equal"),
    ("[mels]\nchoices = [64, 'x']", '"x" does not suit the knob, whose value in the recipe is 128'),
    ("[mels]\nchoices = [64, true]", "true does not suit"), ("[mels]\nchoices = [64, 96.0]", "96.0 does not suit"),
    ("[mask_width]\nchoices = [[0, 8], 8]", "8 does not suit"),
    ("[mask_width]\nchoices = [[0, 8], [8]]", r"\[8\] does not suit"),
    ("[pooling]\nchoices = ['mean', 'max']", '"max" does not suit'),
    ("[fold_seed]\nlow = 1\nhigh = 9", "fold_seed cannot be searched: the scores of the trials would not"),
    ("[view_speeds]\nchoices = [[], [0.9]]", "view_speeds cannot be searched")])
def test_a_wrong_space_is_refused(tmp_path, text, message):
    with pytest.raises(TaggingError, match=rf"space\.toml.*{message}"):
        read(tmp_path, text)


def test_a_knob_that_the_search_cannot_vary_is_refused(tmp_path):
    with pytest.raises(TaggingError, match=r"noisy\.lrs cannot be searched: the trials do not train the noisy stage"):
        read(tmp_path, "[noisy.lrs]\nlow = 0.1\nhigh = 1", stages=["curated"])
    with pytest.raises(TaggingError, match="noisy_share cannot be searched: the data have no noisy set"):
        read(tmp_path, "[noisy_share]\nlow = 0.1\nhigh = 0.9", noisy_set=False)
    with pytest.raises(TaggingError, match="network cannot be searched: the weights of --noisy-run"):
        read(tmp_path, "[network]\nchoices = ['xresnet18', 'xresnet50']", fixed=["network"])


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(TaggingError, match="could not be read: No such file"):
        read_space(tmp_path / "none.toml", RECIPES["podium"], STAGES, True)
    (tmp_path / "space.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TaggingError, match="is no TOML file"):
        read_space(tmp_path / "space.toml", RECIPES["podium"], STAGES, True)


def test_an_end_that_cannot_work_is_announced(tmp_path, caplog):
    read(tmp_path, "[curated.wave_mix]\nlow = 0.0\nhigh = 1.5")
    assert "curated.wave_mix = 1.5 does not work with the recipe's other knobs, and such trials fail" in caplog.text
