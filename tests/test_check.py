"""tools.check: what it finds is true, and it finds what is wrong."""
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import JOINT, TINY, Workshop

from tagging.cli import parse_training
from tagging.data.competition import open_competition
from tagging.data.folds import open_folds
from tagging.modeling.logmel import as_float
from tagging.recipe import RECIPES, Recipe, Schedule
from tools.check import __main__ as main
from tools.check import batch as batch_module
from tools.check import learning
from tools.check.batch import check_crops, check_labels, first_batch, label_text
from tools.check.cost import Speed, StageTime, Steps, check_disk, check_memory, check_time, compare, duration
from tools.check.learning import check_learning_rate, check_overfitting, check_start
from tools.check.subject import Subject

CPU = torch.device("cpu")
QUICK = Speed((Steps(16, 32, 0.01),))
PLAIN = replace(RECIPES["smoke"], network="timm:test_resnet", mels=32, frames=32, fold_count=2, lighting=0.0,
                mask_width=(0, 0), noisy=Schedule((), (), ()), curated=Schedule((2,), (3e-3,), (32,)))


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    monkeypatch.setattr(learning, "STEPS", 40)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make(sample, cache):
    def make(recipe: Recipe = PLAIN, stage: str = "curated") -> Subject:
        competition = open_competition(sample)
        return Subject(stage, recipe, competition, open_folds(stage, competition, recipe, cache), None, CPU)
    return make


def check(workshop: Workshop, *words: str):
    return workshop.call("tools/check/__main__.py", "--data", workshop.data, "--cache", workshop.folder / "cache",
                         "--device", "cpu", "--out", workshop.folder / "check", *words)


@pytest.mark.slow
def test_all_findings_of_both_stages_with_their_files(workshop):
    result = check(workshop, *TINY, "--seconds", "30")
    assert result.code == 0, result.out + result.err
    out = workshop.folder / "check"
    assert {path.name for path in out.iterdir()} == {
        "check.html", "summary.txt", "noisy_batch.png", "noisy_batch.wav", "curated_batch.png", "curated_batch.wav",
        "overfitting.png", "learning_rate.png"}
    summary = (out / "summary.txt").read_text()
    text = " ".join(summary.split())
    for what in ("noisy batch", "curated batch", "noisy crops", "curated labels", "loss at the start", "time", "memory",
                 "disk", "overfitting", "learning rate"):
        assert f"\n{what}: fine\n" in summary, summary
    assert "An epoch of the noisy stage at 32 px takes" in text and "All 2 folds of the recipe take" in text
    assert "0 wrong, 0 not completed" in result.out
    page = (out / "check.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "Learning rate: fine" in page


@pytest.mark.slow
def test_mixed_waves_are_in_the_sound_file_and_faults_give_exit_code_1(workshop):
    result = check(workshop, *JOINT, "--seconds", "90", "--max-hours", "0.00001", "--curated.lrs", "5")
    assert result.code == 1, result.out + result.err
    assert "time: wrong: That is more than --max-hours 1e-05." in result.out
    assert "learning rate: wrong: The recipe has 5. Try --curated.lrs" in result.out
    wave, rate = soundfile.read(workshop.folder / "check/curated_batch.wav")
    assert len(wave) == 8 * rate * (RECIPES["podium"].crop_seconds + batch_module.PAUSE)
    assert "noisy batch" not in result.out          # the recipe has one stage


def test_the_batch_is_that_of_the_training_and_its_waves_are_those_of_its_clips(make):
    subject = make()
    batch = first_batch(subject, subject.model(), 32)
    images, targets = next(iter(subject.batches(subject.model(), 32)))
    assert torch.equal(batch.images, images) and torch.equal(batch.targets, targets)
    dataset = subject.train
    for wave, name, target in zip(batch.waves, batch.names, batch.targets.numpy()):
        clip = dataset.fnames.get_loc(name)
        start, length = dataset.store.offsets[clip], dataset.store.lengths[clip]
        samples = as_float(torch.from_numpy(np.array(dataset.store.samples[start:start + length]))).numpy()
        heard = np.trim_zeros(wave)
        assert heard[:500].tobytes() in samples.tobytes()
        assert (target == dataset.targets[clip]).all()


def test_labels_are_shown_with_their_shares():
    classes = ("Bark", "Bell", "Rain")
    assert label_text(np.array([0.3, 0.7, 0.0]), classes) == "Bell 0.70\nBark 0.30"
    assert label_text(np.array([1.0, 0.0, 1.0]), classes) == "Bark\nRain"
    assert label_text(np.zeros(3), classes) == "(no label)"


def with_samples(subject: Subject, change) -> Subject:
    samples = np.array(subject.folded.store.samples)
    change(samples)
    return replace(subject, folded=replace(subject.folded, store=replace(subject.folded.store, samples=samples)))


@pytest.mark.parametrize("value, words", [(0, "Many crops are silent"), (32767, "Many crops are clipped")])
def test_silent_and_clipped_clips_are_found_and_named(make, value, words):
    subject = make()
    assert not check_crops(subject, subject.model((0.0, 1.0))).wrong
    changed = with_samples(subject, lambda samples: samples.fill(value))
    finding = check_crops(changed, changed.model((0.0, 1.0)))
    assert words in finding.wrong and ".wav" in finding.wrong


def test_a_class_without_a_training_clip_is_found(make):
    subject = make()
    assert not check_labels(subject).wrong
    only = subject.folded.clips.targets[:, 0] == 1
    folds = np.where(only, 1, subject.folded.fold_of)
    finding = check_labels(replace(subject, folded=replace(subject.folded, fold_of=folds)))
    name = subject.competition.classes[0]
    assert f"The model of fold 1 has no training clip of {name}. Add clips" in finding.wrong


def test_the_loss_at_the_start_is_near_ln_2_and_a_large_one_is_wrong(make):
    subject = make()
    model = subject.model()
    images, targets = next(iter(subject.batches(model, 32)))
    assert check_start(model, images, targets).verdict == "fine"
    torch.nn.init.constant_(model.network.head.bias, 9.0)
    assert "it should be near ln 2" in check_start(model, images, targets).wrong


@pytest.mark.slow
def test_a_batch_is_overfitted_and_contradicting_labels_are_not(make):
    subject = make(replace(PLAIN, trim_db=0.0))
    finding, speed = check_overfitting(subject, (-40.0, 20.0), QUICK, 30)
    assert finding.verdict == "fine" and "their lwlrap is 1.0" in finding.measured
    assert len(speed.measured) == 2
    same = with_samples(subject, lambda samples: samples.fill(1000))      # all clips sound the same
    finding, _ = check_overfitting(same, (-40.0, 20.0), QUICK, 30)
    assert "cannot overfit one batch" in finding.wrong and ".wav" in finding.wrong
    finding, _ = check_overfitting(same, (-40.0, 20.0), QUICK, 0.001)
    assert finding.verdict.startswith("not checked: 1 steps in")


@pytest.mark.slow
def test_learning_rates_outside_the_range_of_the_finder_are_wrong(make):
    fine = check_learning_rate(make(), (-40.0, 20.0), QUICK, 20)
    assert fine.verdict == "fine" and len(fine.blocks) == 1
    tiny = replace(PLAIN, curated=replace(PLAIN.curated, lrs=(1e-6,)))
    low = check_learning_rate(make(tiny), (-40.0, 20.0), QUICK, 20)
    assert "The recipe has 1e-06. Try --curated.lrs" in low.wrong
    slow = check_learning_rate(make(), (-40.0, 20.0), Speed((Steps(16, 32, 100.0),)), 20)
    assert slow.verdict.startswith("not checked: 24 steps need about")


def test_slow_networks_get_fewer_clips_and_smaller_images(make):
    subject = make(replace(PLAIN, curated=replace(PLAIN.curated, sizes=(256,))))
    clips = subject.batch_size
    assert Speed((Steps(clips, 256, 0.1),)).affordable(subject, 100, 20) == (clips, 256)
    assert Speed((Steps(clips, 256, 0.4),)).affordable(subject, 100, 20) == (clips, 128)
    assert Speed((Steps(clips, 256, 99.0),)).affordable(subject, 100, 20) == (8, 32)


def test_the_time_of_the_recipe_is_compared_with_the_limit():
    times = {"curated": StageTime({128: 90.0}, 4000.0, 7)}
    finding = check_time(times, 5, Speed((Steps(8, 128, 1.0),)), 64, 24)
    assert finding.verdict == "fine" and "takes 1.5 min. All 5 folds of the recipe take 5.6 h" in finding.measured
    assert "estimated from steps of 8 clips instead of 64" in finding.measured
    assert "more than --max-hours 5" in check_time(times, 5, Speed((Steps(64, 128, 1.0),)), 64, 5).wrong
    assert [duration(seconds) for seconds in (0.5, 59, 600, 7200, 400_000)] == [
        "0.5 s", "59 s", "10 min", "2.0 h", "4.6 days"]


def test_memory_and_disk_are_compared_with_what_is_free(make, tmp_path, monkeypatch):
    subject = make()
    small, large = Speed((Steps(4, 32, 1.0, 500, 600),)), Speed((Steps(4, 32, 1.0, 500, 1e9),))
    assert check_memory(subject, small).verdict == "fine"
    assert "Add --micro-batches" in check_memory(subject, large).wrong
    model = subject.model((0.0, 1.0))
    disk = check_disk([subject], model, subject.competition, tmp_path / "cache", tmp_path / "new" / "models")
    assert disk.verdict == "fine" and "2 files of weights" in disk.measured and "decoded test clips" in disk.measured
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert "Free some space" in check_disk([subject], model, subject.competition, tmp_path, tmp_path).wrong
    assert compare("disk", "", 95.5, 100, "Stop.").wrong == (
        "105 MB are needed, with a tenth to spare, and 100 MB are there. Stop.")
    assert not compare("disk", "", 90, 100, "").wrong


@pytest.mark.parametrize("words, message", [
    (("--seconds", "1"), "--seconds must be 10 or more"),
    (("--recipe", "smok"), "Did you mean 'smoke'?"),
    (("--curated.lrs", "99"), "--curated.lrs must be above 0"),
    (("--micro-batches", "900"), "batch norm needs two"),
    (("--out", "FILE"), "--out"),
])
def test_wrong_options_are_refused_as_in_a_training(workshop, expect_error, words, message):
    (workshop.folder / "file").touch()
    words = [workshop.folder / "file" if word == "FILE" else word for word in words]
    expect_error(check(workshop, *words), message)


def test_a_set_that_is_missing_is_named(workshop, expect_error, tmp_path, sample, monkeypatch):
    data = tmp_path / "own"
    data.mkdir()
    for name in ("train_curated", "test", "train_curated.csv", "sample_submission.csv"):
        (data / name).symlink_to(sample / name)
    expect_error(check(Workshop(tmp_path, data), "--recipe", "podium"), "train_noisy is missing")
    monkeypatch.setattr("sys.argv", ["check", "--data", str(data), "--recipe", "smoke", "--cache", str(tmp_path / "c")])
    args = parse_training(main.Check, "")
    assert [subject.stage for subject in main.open_subjects(args, open_competition(data), CPU)] == ["curated"]


def test_an_infinite_loss_is_a_finding(make):
    finding, _ = check_overfitting(make(), (math.inf, 1.0), QUICK, 10)
    assert "The training diverges. Choose lower --curated.lrs." in finding.wrong
