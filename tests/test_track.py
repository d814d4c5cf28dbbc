"""tools.track: what the trackers' own readers find in the files, and what happens when it is sent again."""
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, digests
from matplotlib.figure import Figure

from tagging.errors import TaggingError
from tagging.run import StageFolder, stage_folder
from tagging_lite.pictures import png
from tools.track import __main__ as track
from tools.track import snapshot as snapshot_module
from tools.track import tracker as tracker_module
from tools.track.snapshot import FoldCurves, read_snapshot
from tools.track.tracker import Sent, generation

SECRET = "/home/somebody/private"
EPOCHS = ([0.7, 0.4], [0.6, 0.5], [0.5, 0.9])       # train_loss and lwlrap of three epochs


def write_log(folder: StageFolder, fold: int, epochs=EPOCHS) -> None:
    rows = [{"epoch": number, "train_loss": loss, "valid_loss": loss + 0.1, "lwlrap": score, "lr": 0.003,
             "seconds": 2.0} for number, (loss, score) in enumerate(epochs, 1)]
    pd.DataFrame(rows).to_csv(folder.log(fold), index=False)


def finish(folder: StageFolder, fold: int, score: float = 0.8) -> None:
    """Write the files of a finished fold with invented predictions."""
    write_log(folder, fold)
    truth = folder.truth()
    truth = truth[folder.clips().fold.astype(int).eq(fold).reindex(truth.index)]
    (truth * 0.5 + 0.25).to_csv(folder.predictions(fold))
    record = json.loads((ROOT / "tests/data/runs/84c8f51/models/tiny/curated/fold1.json").read_text())
    folder.record(fold).write_text(json.dumps(record | {"lwlrap": score, "clips": len(truth)}))
    folder.update_scores()


@pytest.fixture(autouse=True)
def quick_pictures(request, monkeypatch):
    """Replace the pictures, which take most of the time, in all tests that do not look at them."""
    if "real_pictures" not in request.fixturenames:
        picture = png(Figure((1, 1)), 20)
        monkeypatch.setattr(snapshot_module, "draw", lambda _folder, folds, _mark: {
            "confusions": picture, f"after_{len(folds)}_folds": picture})


@pytest.fixture
def real_pictures():
    """Draw the real pictures."""


@pytest.fixture
def models(tmp_path) -> Path:
    """A run `tiny` of two folds, fold 1 finished and fold 2 after two of its three epochs."""
    models = tmp_path / "models"
    shutil.copytree(ROOT / "tests/data/runs/84c8f51/models", models)
    folder = stage_folder(models, "tiny", "curated")
    settings = json.loads(folder.settings_path.read_text())
    settings["made_by"]["command"] += f" --cache {SECRET}/cache"
    folder.settings_path.write_text(json.dumps(settings))
    finish(folder, 1)
    write_log(folder, 2, EPOCHS[:2])
    return models


@pytest.fixture
def folder(models) -> StageFolder:
    return stage_folder(models, "tiny", "curated")


@pytest.fixture
def send(models, monkeypatch, capsys):
    def send(to: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["track", "--models", str(models), "--run", "tiny", "--to", to, *words])
        track.main()
        return capsys.readouterr().out
    return send


def events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
    return reader.Reload()


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 4)) for event in events(folder).Scalars(name)]


def test_tensorboard_reads_settings_curves_scores_pictures_and_card(real_pictures, models, send):
    assert "is not finished" in send("tensorboard")
    home = models / "tiny/tensorboard/curated"
    assert curve(home / "fold1", "lwlrap") == [(1, 0.4), (2, 0.5), (3, 0.9)]
    assert curve(home / "fold1", "fold_lwlrap") == [(3, 0.8)]
    assert curve(home / "fold2", "train_loss") == [(1, 0.7), (2, 0.6)]
    stage = events(home)
    assert curve(home, "lwlrap_by_fold") == [(1, 0.8)] and curve(home, "lwlrap/mean") == [(0, 0.8)]
    assert {"learning_curves_1", "fold_scores", "score_by_class", "confusions", "calibration"} <= {
        *stage.Tags()["images"]}
    assert stage.Images("confusions")[0].encoded_image_string.startswith(b"\x89PNG")
    texts = {name: stage.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in ("settings", "model_card")}
    assert "| recipe.batch_size | 8 |" in texts["settings"] and texts["model_card"].startswith("# tiny\n")
    assert stage.summary_metadata["settings"].plugin_data.plugin_name == "text"
    assert "_hparams_/session_start_info" in stage.summary_metadata


def test_points_have_the_clock_times_of_the_training(models, folder, send):
    send("tensorboard")
    times = [event.wall_time for event in events(models / "tiny/tensorboard/curated/fold1").Scalars("lwlrap")]
    started = read_snapshot(folder).started
    assert [time - started for time in times] == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("to", ["tensorboard", "wandb"])
def test_sending_twice_changes_nothing(models, send, to):
    words = () if to == "tensorboard" else ("--offline",)
    send(to, *words)
    before = digests(models)
    send(to, *words)
    assert digests(models) == before


def test_paths_of_the_machine_are_not_sent(models, send):
    send("tensorboard")
    for path in (models / "tiny/tensorboard").rglob("*tfevents*"):
        assert SECRET.encode() not in path.read_bytes()
    assert b"--cache PATH" in (models / "tiny/tensorboard/curated/events.out.tfevents.tagging").read_bytes()


def test_new_epochs_are_appended_so_that_an_open_tensorboard_sees_them(models, folder, send):
    send("tensorboard")
    path = models / "tiny/tensorboard/curated/fold2/events.out.tfevents.tagging"
    before, inode = path.read_bytes(), path.stat().st_ino
    finish(folder, 2)
    send("tensorboard")
    assert path.read_bytes().startswith(before) and path.stat().st_ino == inode
    assert curve(path.parent, "train_loss") == [(1, 0.7), (2, 0.6), (3, 0.5)]
    assert curve(path.parent.parent, "lwlrap_by_fold") == [(1, 0.8), (2, 0.8)]


def test_a_file_cut_by_a_kill_becomes_whole(models, send):
    send("tensorboard")
    before = digests(models)
    for path in (models / "tiny/tensorboard").rglob("*tfevents*"):
        path.write_bytes(path.read_bytes()[:-7])
    (models / "tiny/tensorboard/sent.json").unlink()
    send("tensorboard")
    assert digests(models) == before


def test_a_fold_that_restarts_replaces_its_curve(models, folder, send):
    send("tensorboard")
    home = models / "tiny/tensorboard/curated"
    write_log(folder, 2, [[0.69, 0.1]])
    send("tensorboard")
    assert curve(home / "fold2", "train_loss") == [(1, 0.69)]
    folder.log(2).unlink()
    send("tensorboard")
    assert not list((home / "fold2").glob("*tfevents*")) and (home / "fold1").exists()


def test_follow_waits_for_the_run_and_ends_with_it(models, folder, send, monkeypatch):
    """The folder appears, a fold restarts, a file is damaged for a moment, and the last fold is finished."""
    away = models.parent / "away"
    (models / "tiny").rename(away)
    damaged = away / "curated/fold2.log.csv"

    def restart():
        write_log(folder, 2, EPOCHS[:1])

    def damage():
        folder.log(2).write_text("epoch,lwlrap\n1,often\n")

    steps = iter([lambda: away.rename(models / "tiny"), restart, damage, lambda: finish(folder, 2), None])
    monkeypatch.setattr(track.time, "sleep", lambda _: next(steps)())
    out = send("tensorboard", "--follow", "--interval", "1", "--out", str(models.parent / "out"))
    assert damaged.name and "does not exist yet" in out and "note: tiny: " in out and "'often'" in out
    assert next(steps) is None          # it ended right after the last fold
    home = models.parent / "out/tiny/tensorboard/curated"
    assert curve(home / "fold2", "lwlrap") == [(1, 0.4), (2, 0.5), (3, 0.9)]
    assert curve(home, "lwlrap_by_fold") == [(1, 0.8), (2, 0.8)]


def test_scores_are_sent_when_they_have_all_finished_folds(folder):
    finish(folder, 2)
    assert read_snapshot(folder).complete
    scores = json.loads((folder.path / "scores.json").read_text())
    del scores["folds"]["2"]            # the moment between the files of a fold and scores.json
    (folder.path / "scores.json").write_text(json.dumps(scores))
    snapshot = read_snapshot(folder)
    assert not snapshot.complete and not snapshot.scores and not snapshot.card() and not snapshot.pictures()
    assert snapshot.curves[2].score == 0.8


def test_a_restart_is_told_from_new_epochs():
    curves = FoldCurves([{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.4}], None)
    entry = {"identity": "a", "generation": 3, "epochs": 1, "begin": curves.begins(1)}
    assert generation(entry, "a", curves) == 3
    assert generation(entry | {"begin": "other"}, "a", curves) == 4
    assert generation(entry | {"epochs": 5}, "a", curves) == 4
    assert generation(entry, "another training", curves) == 0 and generation({}, "a", curves) == 0


def test_several_runs_go_to_folders_of_their_own(models, monkeypatch, capsys):
    shutil.copytree(models / "tiny", models / "other")
    monkeypatch.setattr(sys, "argv", ["track", "--models", str(models), "--run", "tiny", "other", "tiny", "--to",
                                      "tensorboard"])
    track.main()
    assert capsys.readouterr().out.count("fold 2, 2 epochs; settings and scores") == 2
    assert all((models / name / "tensorboard/curated/fold1").is_dir() for name in ("tiny", "other"))


@pytest.mark.parametrize("words, message", [
    (("--run", "tony", "--to", "tensorboard"), r"tony is no run. Check the name"),
    (("--run", "tiny", "--to", "tensorboard", "--offline"), r"--offline is for wandb and clearml"),
    (("--run", "tiny", "--to", "tensorboard", "--interval", "0"), r"--interval must be above 0"),
    (("--run", "..", "--to", "tensorboard"), r"must consist of letters"),
    (("--run", "tiny", "--to", "tensorboard", "--out", "FILE"), r"is not a folder|is a file"),
])
def test_wrong_options_are_refused(models, tmp_path, monkeypatch, words, message):
    (tmp_path / "file").touch()
    words = [str(tmp_path / "file") if word == "FILE" else word for word in words]
    monkeypatch.setattr(sys, "argv", ["track", "--models", str(models), *words])
    with pytest.raises(TaggingError, match=message):
        track.main()


def test_the_run_of_a_baseline_is_refused(folder, send):
    settings = json.loads(folder.settings_path.read_text())
    settings["baseline"] = {"model": "tree", "settings": {}, "features": 1}
    folder.settings_path.write_text(json.dumps(settings))
    with pytest.raises(TaggingError, match="is a baseline, tree, and a network is needed"):
        send("tensorboard")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "clearml"])
def test_a_missing_package_is_named_with_its_command(models, monkeypatch, name):
    monkeypatch.setattr(tracker_module, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["track", "--models", str(models), "--run", "tiny", "--to", name])
    with pytest.raises(TaggingError, match=rf"needs the package {name}.*`pip install {name}`"):
        track.main()


def test_a_second_process_for_the_same_run_is_refused(models, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["track", "--models", str(models), "--run", "tiny", "--to", "tensorboard"])
    with Sent(models / "tiny/tensorboard/sent.json").lock(), pytest.raises(TaggingError, match="another process"):
        track.main()


def test_a_damaged_record_of_what_was_sent_is_an_error_with_a_remedy(models, send):
    send("tensorboard")
    (models / "tiny/tensorboard/sent.json").write_text("{")
    with pytest.raises(TaggingError, match=r"sent.json is damaged.*Delete it"):
        send("tensorboard")
