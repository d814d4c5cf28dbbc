"""tools.benchmark: the arithmetic, the synthetic clips, and a whole run in small. The tests assert no figure."""
import json
import mmap
import re
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from tagging.cli import parse
from tagging.data.waveforms import open_store
from tagging.errors import TaggingError
from tagging.modeling.logmel import build_log_mel
from tagging.modeling.transforms import resize
from tagging.recipe import RECIPES, SMOKE, Schedule
from tagging_lite.audio import make_trim
from tools.benchmark import __main__ as benchmark
from tools.benchmark import recipe as recipe_part
from tools.benchmark import sounds, step
from tools.benchmark.measure import Row, Setting, a_second
from tools.benchmark.memory import own_memory, watch_memory
from tools.benchmark.profile import covered
from tools.benchmark.recipe import Fold, measure_fold, project, split_times
from tools.benchmark.reference import ClipByClip
from tools.benchmark.step import Awaited, training_flops

TINY = replace(SMOKE, network="timm:test_resnet", fold_count=2, mels=32, frames=32, batch_size=2,
               noisy=Schedule(epochs=(1, 2), lrs=(1e-3, 1e-3), sizes=(32, 48)),
               curated=Schedule(epochs=(1,), lrs=(1e-3,), sizes=(32,), mixup=0.4))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Call the benchmark's main with the tiny recipe on 20 noisy, 10 curated and 10 test clips; give the content of its
    JSON back."""
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    monkeypatch.setattr(sounds, "CLASSES", 10)
    monkeypatch.setitem(step.SIDE, "cpu", 64)

    def call(*words: str) -> dict:
        monkeypatch.setattr(sys, "argv", ["benchmark", "--recipe", "tiny", "--scale", "0.001", "--repeats", "2",
                                          "--device", "cpu", "--scratch", str(tmp_path / "scratch"),
                                          "--out", str(tmp_path / "small.json"), *words])
        benchmark.main()
        return json.loads((tmp_path / "small.json").read_text())
    return call


@pytest.mark.slow
def test_every_part_is_measured_and_the_table_says_what_the_json_says(small, capsys, tmp_path):
    content = small("--full", "--profile")
    rows, printed = content["rows"], capsys.readouterr().out
    assert list(dict.fromkeys(row["part"] for row in rows)) == [*benchmark.PARTS, "profile"]
    table = printed.split("ratio\n")[1].splitlines()
    assert table == [*map(benchmark.line, rows), f"-> {tmp_path / 'small.json'}"]
    for row in rows:
        assert row["repetitions"] >= 1 and row["least"] <= row["median"] <= row["greatest"], row
        assert all(str(benchmark.figure(row[name])) in benchmark.line(row) for name in ("median", "least", "ratio"))
    assert content["about"]["clips"].startswith("20 of 19815 noisy, 10 of 4970 curated, 10 of 3361 test")
    assert {"commit", "versions", "device", "host", "repetitions"} <= content["about"].keys()
    assert all(f"{name}: {value}" in printed for name, value in content["about"].items())
    assert (tmp_path / "small.trace.json.gz").stat().st_size > 0


@pytest.mark.slow
def test_the_ratios_and_totals_follow_from_the_rows(small):
    rows = {row["what"]: row for row in small("--parts", "input", "step", "recipe", "predict")["rows"]}

    def median(pattern: str) -> float:
        return next(row["median"] for what, row in rows.items() if re.search(pattern, what))

    def ratio(pattern: str) -> float:
        return next(row["ratio"] for what, row in rows.items() if re.search(pattern, what))

    assert ratio("32 px, batches from") == pytest.approx(median("32 px, batches from") / median("32 px.*processes"))
    peak = next(row["greatest"] for what, row in rows.items() if "matrix product" in what)
    assert ratio("48 px.*GFLOP") == pytest.approx(median("48 px.*GFLOP") / peak)
    assert ratio("--tta 2") == pytest.approx(median("--tta 2") / median("--tta 0"))
    gflop = next(float(found[1]) for what in rows if (found := re.search(r"32 px.*, (\S+) GFLOP", what)))
    assert median("32 px.*GFLOP") == pytest.approx(median("32 px.*same batch") * gflop / 1000, rel=0.01)
    large_images = median("noisy: an epoch of 10 clips at 48")
    assert TINY.noisy.epochs == (1, 2)      # the first one is the fold's first
    fold = median("noisy: a fold until") + 2 * large_images + median("noisy: predict")
    assert median("noisy: 2 folds") == pytest.approx(2 * fold + median("noisy: open"))
    assert median("noisy and curated at") == pytest.approx(median("noisy: 2 folds") + median("curated: 2 folds"))


@pytest.mark.slow
def test_a_recipe_of_one_stage_is_measured_with_the_noisy_clips_that_go_along(small, monkeypatch):
    alone = replace(TINY, noisy=Schedule(epochs=(), lrs=(), sizes=()), noisy_share=0.5,
                    curated=replace(TINY.curated, wave_mix=0.5))
    monkeypatch.setitem(RECIPES, "tiny", alone)
    rows = [row["what"] for row in small("--parts", "input", "step", "recipe", "--full")["rows"]]
    assert "curated: an epoch of 5 clips, 50% noisy beside, at 32 px, look and checkpoint" in rows
    assert "curated at 0.001 of the clips, projected" in rows and "curated: all folds in full, this call" in rows
    assert not any(row.startswith(("noisy", "not measured")) for row in rows)


def test_a_part_that_fails_says_why_and_the_others_go_on(small, monkeypatch, capsys):
    def broken(setting):
        yield Row("before it broke", "s", [1.0])
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nadvice")

    monkeypatch.setitem(benchmark.PARTS, "input", broken)
    rows = small("--parts", "input", "store")["rows"]
    assert [row["what"] for row in rows[:2]] == ["before it broke", "not measured"]
    assert rows[1]["remark"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB"
    assert rows[1]["median"] is None and rows[1]["repetitions"] == 0
    assert len(rows) == 6 and rows[2]["part"] == "store"
    assert "Tried to allocate 9 GiB" in capsys.readouterr().out


def test_what_was_measured_is_written_before_the_next_part_begins(small, monkeypatch, tmp_path):
    seen = []

    def second(setting):
        seen.extend(json.loads((tmp_path / "small.json").read_text())["rows"])
        yield Row("second", "s", [2.0])

    monkeypatch.setitem(benchmark.PARTS, "input", lambda setting: iter([Row("first", "s", [1.0])]))
    monkeypatch.setitem(benchmark.PARTS, "step", second)
    small("--parts", "input", "step")
    assert [row["what"] for row in seen] == ["first"]


def test_too_few_clips_for_ten_times_as_many_are_said_so(small, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", replace(TINY, batch_size=4))
    (row,) = small("--parts", "memory")["rows"]
    assert "Ten batches of 4 clips are needed. Choose a larger --scale." in row["remark"]


@pytest.mark.parametrize("words", [("--scale", "0"), ("--scale", "nan"), ("--repeats", "0")])
def test_numbers_that_cannot_be_used_are_refused(small, words):
    with pytest.raises(TaggingError, match="--scale must be above 0"):
        small(*words)


@pytest.mark.parametrize("words, message", [(("--recipe", "tinny"), "Did you mean 'tiny'"),
                                            (("--parts",), "--parts must name")])
def test_an_unknown_recipe_and_no_part_are_refused(small, words, message):
    with pytest.raises(TaggingError, match=message):
        small(*words)


def test_quick_changes_only_what_was_not_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--quick", "--scale", "0.5"])
    size = benchmark.choose_size(parse(benchmark.Benchmark, "").size)
    assert (size.recipe, size.scale, size.repeats) == ("smoke", 0.5, 2)


def test_flops_are_those_worked_by_hand():
    # Forward, gradient of the weights, and gradient of the input for all layers but the first; two for a product and
    # its sum: 2 * 4 * 3 * 5 = 120 for the first layer, 2 * 4 * 5 * 2 = 80 for the second.
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    assert training_flops(network, torch.rand(4, 3), torch.rand(4, 2)) == 2 * 120 + 3 * 80
    assert all(parameter.grad is None for parameter in network.parameters())
    # 2 clips, 6 x 6 places, 7 channels, 9 weights.
    network = nn.Sequential(nn.Conv2d(1, 7, 3), nn.Flatten())
    assert training_flops(network, torch.rand(2, 1, 8, 8), torch.rand(2, 252)) == 2 * (2 * 2 * 36 * 7 * 9)


def test_a_recipe_is_projected_as_by_hand():
    fold = split_times([10, 13, 17, 40, 50, 61], 66, repeats=2)
    assert fold == Fold(first=10, epochs=[[3, 4], [10, 11]], end=5)
    schedule = Schedule(epochs=(2, 3), lrs=(1e-3, 1e-3), sizes=(128, 256))
    # The first epoch, one more of the first cycle, three of the second, and the end.
    assert project(fold, 0, schedule, folds=5) == 5 * (10 + 3 + 3 * 10 + 5)
    assert project(fold, 1, schedule, folds=5) == 5 * (10 + 4 + 3 * 11 + 5)


def test_only_the_epochs_that_are_reported_are_timed(monkeypatch, tmp_path):
    slept, end = ((0.05, 0.02, 0.04), (0.03, 0.06, 0.02)), 0.07        # two cycles of a warm-up and two repetitions

    def train_fold(folder, metadata, train, valid, device, *, noisy, on_epoch):
        assert metadata.recipe.noisy.epochs == (3, 3) and metadata.recipe.curated == TINY.curated
        for seconds in (*slept[0], *slept[1]):
            time.sleep(seconds)
            on_epoch({"epoch": 1})
        time.sleep(end)         # the out-of-fold prediction, which is not reported

    monkeypatch.setattr(recipe_part, "train_fold", train_fold)
    setting = Setting(TINY, torch.device("cpu"), repeats=2, scale=0.001, full=False, scratch=tmp_path, trace=tmp_path,
                      competition=SimpleNamespace(classes=("a", "b")))
    started = time.perf_counter()
    fold = measure_fold(setting, "noisy", None, None)
    extra = time.perf_counter() - started - sum(slept[0]) - sum(slept[1]) - end
    assert [len(epochs) for epochs in fold.epochs] == [2, 2]
    for found, least in zip((fold.first, *fold.epochs[0], *fold.epochs[1], fold.end),
                            (slept[0][0], *slept[0][1:], *slept[1][1:], end)):
        assert least <= found <= least + extra


def test_the_training_waits_for_its_input_and_not_for_itself():
    class Slow(list):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep(0.05)
                yield batch

    batches = Awaited(Slow("abc"))
    for number in range(2):
        started = time.perf_counter()
        assert [time.sleep(0.1) or batch for batch in batches] == ["a", "b", "c"]
        assert 0.15 <= batches.waits[number] <= time.perf_counter() - started - 0.3


def test_shares_and_rates_are_those_worked_by_hand():
    assert a_second(100, [2.0, 4.0]) == [50.0, 25.0]
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 1.7)]) == 4 and covered([]) == 0


def test_a_row_gives_median_and_spread():
    record = Row("what", "s", [3.0, 1.0, 7.0], 2.0, "of it").record("step")
    assert record == {"part": "step", "what": "what", "unit": "s", "median": 3.0, "least": 1.0, "greatest": 7.0,
                      "repetitions": 3, "ratio": 2.0, "remark": "of it"}
    assert [benchmark.figure(value) for value in (19_815.4, 123.44, 45.678, 0.01234, None)] == [
        "19815", "123.4", "45.7", "0.0123", ""]


def test_lengths_are_like_the_real_ones():
    rng = np.random.default_rng(0)
    noisy = sounds.draw_seconds("noisy", 19_815, rng)
    assert 1 <= noisy.min() < 1.2 and 15.9 < noisy.max() <= 16 and noisy.mean() == pytest.approx(14.6, abs=0.1)
    assert (noisy > 15).mean() > 0.8
    for part, mean in (("curated", 7.6), ("test", 10.4)):
        lengths = sounds.draw_seconds(part, 19_815, rng)
        assert 0.3 <= lengths.min() < 0.5 and 25 < lengths.max() <= 30
        assert lengths.mean() == pytest.approx(mean, abs=0.2)


def test_the_synthetic_clips_are_links_to_a_few_files_and_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sounds, "CLASSES", 5)
    monkeypatch.setattr(sounds, "FILES", 4)
    competition = sounds.make_competition(tmp_path / "clips", 0.0005)
    noisy = competition.clips("noisy")
    assert len(noisy) == 10 and len(competition.clips("curated")) == len(competition.clips("test")) == 5
    assert len({path.stat().st_ino for path in noisy.paths}) == 4
    _, store = open_store(noisy, make_trim(SMOKE.trim_db), tmp_path / "cache")
    assert store.sample_rate == 44_100 and (store.checksums[:2] == store.checksums[4:6]).all()
    before = noisy.paths[0].stat()
    sounds.make_competition(tmp_path / "clips", 0.0005)
    assert noisy.paths[0].stat() == before


def test_the_clip_by_clip_pipeline_does_the_same_work(tmp_path):
    recipe = replace(TINY, trim_db=0.0, mask_width=(0, 0))
    wave = sounds.noise_in_bursts(1, np.random.default_rng(0))          # one crop, so that there is nothing to choose
    soundfile.write(tmp_path / "clip.wav", wave, sounds.RATE, subtype="PCM_16")
    (image,) = ClipByClip([tmp_path / "clip.wav"], recipe, size=48)
    ours = resize(build_log_mel(recipe, sounds.RATE)(torch.from_numpy(wave)[None]), 48)[0]
    assert image.shape == (1, 48, 48)
    torch.testing.assert_close(image, ours, atol=5e-3, rtol=0)


def test_memory_that_a_file_backs_does_not_count(tmp_path):
    (tmp_path / "mapped").write_bytes(bytes(60_000_000))
    mapped, before = np.memmap(tmp_path / "mapped", np.uint8, mode="r"), own_memory()
    with watch_memory() as seen:
        assert mapped.sum() == 0
    assert max(seen) < before + 30
    with watch_memory() as seen, mmap.mmap(-1, 60_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken[:] = mapped.tobytes()         # new memory; an array may get memory that was freed before
        time.sleep(0.1)
    assert max(seen) > before + 50
