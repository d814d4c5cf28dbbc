"""tools.drift: logs without drift, logs with it, and logs that cannot be compared."""
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Result, Workshop

from tagging.errors import TaggingError
from tagging.evaluation.drift import shares as drift
from tagging.evaluation.drift.logs import TaggedSound, TagReader
from tagging.evaluation.drift.shares import Drift
from tagging.evaluation.drift.tally import Tally
from tagging.evaluation.error_analysis import out_of_fold
from tagging.run import StageFolder

CLASSES = [f"class{number}" for number in range(10)]


def predictions(clips: int, shares: np.ndarray, seed: int) -> pd.DataFrame:
    """Probabilities of clips whose strongest tags have the given shares. Every third clip has a second sound."""
    rng = np.random.default_rng(seed)
    values = rng.beta(0.3, 8, (clips, len(shares)))
    for tag, rows in ((rng.choice(len(shares), clips, p=shares), clips),
                      (rng.choice(len(shares), clips, p=shares), clips // 3)):
        values[np.arange(rows), tag[:rows]] = rng.beta(6, 2, rows)
    return pd.DataFrame(values, columns=[f"class{number}" for number in range(len(shares))])


def compare(log: pd.DataFrame, reference: pd.DataFrame, **options: float) -> Drift:
    tallies = [Tally(list(reference)).add_frame(frame) for frame in (log, reference)]
    return drift.compare(*tallies, pd.Series(10, reference.columns), **options)


@pytest.mark.parametrize("sounds", [60, 500])
def test_a_log_of_the_same_predictions_seldom_has_a_false_report(sounds):
    shares = np.arange(1, 11) / 55
    reference = predictions(2000, shares, 0)
    rng = np.random.default_rng(1)
    reported = sum(bool(compare(reference.iloc[rng.integers(len(reference), size=sounds)], reference).moved)
                   for _ in range(60))
    assert reported <= 7        # at most 3 are expected; 8 or more have a chance below 2 %


def test_new_clips_of_the_same_kind_seldom_have_a_false_report():
    """As above, with predictions that are a sample too."""
    shares = np.full(40, 1 / 40)
    reported = sum(bool(compare(predictions(500, shares, 2 * seed), predictions(900, shares, 2 * seed + 1)).moved)
                   for seed in range(30))
    assert reported <= 5


def test_a_changed_mix_of_classes_is_found_with_its_size():
    shares = np.full(80, 1 / 80)
    shifted = shares.copy()
    shifted[3], shifted[7] = 4 / 80, 0
    reference = predictions(5000, shares, 0)
    found = compare(predictions(4000, shifted / shifted.sum(), 1), reference)
    assert set(found.moved) == {"class3", "class7"} and found.moved[0] == "class3"
    row = found.measures["strongest"].loc["class3"]
    assert row.verdict == drift.MORE and 3 < row.factor < 5 and 0 < row.low < row.difference < row.high
    assert found.measures["detected"].verdict["class7"] == drift.FEWER
    assert found.distance > found.by_chance + 0.02


def test_small_changes_of_a_large_log_are_not_reported():
    shares = np.array([0.5, 0.5])
    reference = predictions(200_000, shares, 0)
    log = predictions(200_000, np.array([0.52, 0.48]), 1)
    assert compare(log, reference).moved == [] and compare(log, reference, least_change=1.01).moved


def test_few_sounds_give_no_verdict():
    shares = np.full(80, 1 / 80)
    found = compare(predictions(50, shares, 1), predictions(5000, shares, 0))
    assert set(found.measures["strongest"].verdict) == {drift.UNKNOWN} and "needs about" in found.remedy()
    needed = int("".join(filter(str.isdigit, found.remedy())))
    enough = compare(predictions(needed * 3, shares, 1), predictions(5000, shares, 0))
    assert (enough.measures["strongest"].verdict == drift.SAME).mean() > 0.8
    assert "only 60 out-of-fold predictions" in compare(predictions(50, shares, 1), predictions(60, shares, 0)).remedy()


def test_a_doubled_class_is_found_as_often_as_promised():
    """With the number of sounds that the remedy names."""
    needed = float(drift.needed_sounds(0.05, 20))
    log, total = round(needed * 1.25), round(needed * 5)        # 1 / (1 / log + 1 / total) is the number
    rng = np.random.default_rng(0)
    others = np.append(0.05, np.full(19, 0.05))
    changed = np.append(0.1, np.full(19, 0.9 / 19))
    found = 0
    for _ in range(60):
        table = drift.compare_shares(rng.multinomial(log, changed), log, rng.multinomial(total, others), total,
                                     CLASSES * 2)
        found += drift.holm(table.p.to_numpy())[0] <= drift.ALPHA
    assert 0.65 < found / 60 < 0.97


def test_holm():
    assert drift.holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_tally_of_lists_and_of_frames_is_the_same():
    frame = predictions(30, np.full(10, 0.1), 0)
    tally, expected = Tally(CLASSES), Tally(CLASSES).add_frame(frame)
    for _, row in frame.iterrows():
        tally.add(TaggedSound("", dict(row.sort_values())))
    assert tally.complete and tally.all_detected and tally.sounds == 30
    assert (tally.strongest == expected.strongest).all() and (tally.detected == expected.detected).all()
    assert tally.total == pytest.approx(expected.total) and tally.highest == pytest.approx(expected.highest)


def test_detections_are_compared_only_if_the_log_lists_them_all():
    tally = Tally(CLASSES)
    tally.add(TaggedSound("", {"class1": 0.9, "class2": 0.2}))
    assert tally.all_detected and not tally.complete
    tally.add(TaggedSound("", {"class1": 0.9}))         # another class can have 0.8
    assert not tally.all_detected
    reference = predictions(50, np.full(10, 0.1), 0)
    assert list(drift.compare(tally, Tally(CLASSES).add_frame(reference), pd.Series(1, CLASSES)).measures) == [
        "strongest"]


# Logs

LINE = '{"time": "2026-11-25T20:34:19Z", "model": "ab", "tags": [["Bark", 0.5], ["Meow", 0.25]]}\n'
TAGS = {"Bark": 0.5, "Meow": 0.25}
CSV = "path,second,tag,probability\na.wav,,Bark,0.5\na.wav,,Meow,0.25\na.wav,0,Bark,0.9\nb.wav,,Bark,0.125\n"


def read(path: Path, **options: bool) -> tuple[list[TaggedSound], dict[str, int]]:
    reader = TagReader(**options)
    return list(reader.read(path)), dict(reader.skipped)


def test_the_lines_of_the_service(tmp_path):
    path = tmp_path / "access.jsonl"
    path.write_text(f'{LINE}\n{{"path": "/health", "status": 200}}\n{LINE}')
    sounds, skipped = read(path)
    assert [sound.tags for sound in sounds] == [TAGS] * 2 and [*skipped.values()] == [1]
    assert sounds[1].where == f"{path}, line 4" and sounds[0].model == "ab"
    assert sounds[0].time and sounds[0].time.isoformat() == "2026-11-25T20:34:19+00:00"
    (tmp_path / "old.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [sound.tags for sound in read(tmp_path / "old.jsonl.gz")[0]] == [TAGS] * 2


def test_csv_json_and_folders_of_parts(tmp_path):
    (tmp_path / "tags.csv").write_text(CSV)
    assert [sound.tags for sound in read(tmp_path / "tags.csv")[0]] == [TAGS, {"Bark": 0.125}]
    rows = CSV.splitlines(keepends=True)
    (tmp_path / "twice.csv").write_text("".join([*rows[:3], *rows[1:3], "b.wav,,,\n"]))       # the last has no tag
    assert [sound.tags for sound in read(tmp_path / "twice.csv")[0]] == [TAGS, TAGS, {}]
    entry = '{"path": "a.wav", "tags": [{"tag": "Bark", "probability": 0.5}, {"tag": "Meow", "probability": 0.25}]}'
    (tmp_path / "tags.json").write_text(f"[\n {entry},\n {entry}\n]\n")
    assert [sound.tags for sound in read(tmp_path / "tags.json")[0]] == [TAGS] * 2
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(2):
        pd.DataFrame({"path": ["a", "a", "a"], "second": [None, None, 0.0], "tag": ["Bark", "Meow", "Bark"],
                      "probability": [0.5, 0.25, 1]}).to_parquet(parts / f"part-{number}.parquet")
    assert [sound.tags for sound in read(parts)[0]] == [TAGS] * 2


@pytest.mark.parametrize(("text", "good"), [
    (LINE + LINE[:40], 1), (CSV[:-4], 1), (f"[\n{LINE[:-1]},\n{LINE[:30]}", 1)])
def test_an_incomplete_last_line_is_counted(tmp_path, text, good):
    (tmp_path / "log").write_text(text)
    sounds, skipped = read(tmp_path / "log")
    assert len(sounds) == good and skipped == {"incomplete last lines": 1}


@pytest.mark.parametrize(("line", "words"), [
    ("INFO: started", "no JSON object"), (LINE[:40], "no JSON object"), ("[1]", "no JSON object"),
    ("7", "no JSON object"),
    (LINE.replace("0.25", "1.25").strip(), "'Meow' has the probability 1.25"),
    (LINE.replace("0.25", "NaN").strip(), "no number from 0 to 1"), (LINE.replace("0.25", "true").strip(), "no number"),
    (LINE.replace("Meow", "Bark").strip(), "duplicate tag 'Bark'"), ('{"tags": {"Bark": 1}}', "tags must be a list"),
    ('{"tags": ["Bark"]}', "a tag must be"), (LINE.replace("2026-11", "2026-13").strip(), "no time")])
def test_a_bad_line_is_an_error_or_counted(tmp_path, line, words):
    path = tmp_path / "log"
    path.write_text(f"{LINE}{line}\n{LINE}")
    with pytest.raises(TaggingError, match="log, line 2: ") as error:
        read(path)
    assert words in str(error.value) and "--skip-bad-lines" in str(error.value)
    sounds, skipped = read(path, skip_bad_lines=True)
    assert len(sounds) == 2 and skipped == {"lines that cannot be read": 1}


def test_a_bad_row_of_a_csv_is_an_error_or_counted(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text(CSV.replace("0.25", "high"))
    with pytest.raises(TaggingError, match=r"line 3: tag 'Meow' has the probability 'high'"):
        read(path)
    assert [sound.tags for sound in read(path, skip_bad_lines=True)[0]] == [{"Bark": 0.125}]
    path.write_text("fname,labels\na.wav,Bark\n")
    with pytest.raises(TaggingError, match="line 1: the column path is missing"):
        read(path)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LINE.encode() * 99)[:-9])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    for name in ("cut.gz", "bad.parquet", "none"):
        with pytest.raises(TaggingError, match=f"{name} could not be read"):
            read(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaggingError, match="no parquet, csv or jsonl file"):
        read(tmp_path / "empty")


# The tool

def write_log(path: Path, frame: pd.DataFrame, **fields: str) -> Path:
    lines = [json.dumps({"time": f"2026-11-{1 + row % 20:02}T12:00:00+00:00", **fields,
                         "tags": [[name, round(float(value), 4)] for name, value in zip(frame, values)]})
             for row, values in enumerate(frame.to_numpy())]
    path.write_text("\n".join(lines) + "\n")
    return path


def call(shop: Workshop, *words: object) -> Result:
    return shop.call("tools/drift.py", *map(str, words), "--models", str(shop.folder / "models"), "--run", "first")


@pytest.fixture
def frame(trained) -> pd.DataFrame:
    return out_of_fold(StageFolder(trained.stage("first", "curated")))[1]


def test_the_predictions_themselves_have_not_moved(trained, frame, tmp_path):
    result = call(trained, write_log(tmp_path / "log", frame.iloc[np.tile(np.arange(len(frame)), 3)]))
    assert result.code == 0, result.err
    assert "0 of 10 classes moved" in result.out and "differs for 0.0% of the sounds" in result.out
    assert "from 1 Nov 2026, 12:00 to 20 Nov 2026, 12:00 UTC" in result.out and " 2 Nov 2026" in result.out


def test_one_class_only_has_moved(trained, frame, tmp_path):
    name = frame.columns[2]
    log = write_log(tmp_path / "log", frame.assign(**{name: 0.999}).iloc[np.zeros(100, int)])
    result = call(trained, log)
    assert result.code == 1 and f"  {name}: " in result.out and "100.0% of the sounds" in result.out
    content = json.loads(call(trained, log, "--format", "json").out)
    assert name in content["moved"] and content["sounds"] == 100 and len(content["weeks"]) == 4
    row = next(row for row in content["classes"] if row["class"] == name)
    assert row["verdict"] == "more" and row["log_strongest"] == 1 and row["log_mean"] == pytest.approx(0.999)
    (tmp_path / "table.csv").write_text(call(trained, log, "--format", "csv").out)
    table = pd.read_csv(tmp_path / "table.csv", index_col="class")
    assert table.index[0] == name and len(table) == 10 and table.verdict[name] == "more"
    some = json.loads(call(trained, log, "--format", "json", "--since", "2026-11-03", "--until", "2026-11-04").out)
    assert some["sounds"] == 10


def test_another_model_and_an_unknown_class_are_errors(trained, frame, tmp_path, expect_error):
    log = write_log(tmp_path / "log", frame, model="0" * 64)
    with open(log, "a") as file:
        file.write(json.dumps({"time": "2026-12-01T00:00:00Z", "model": "1" * 64, "tags": [["Bark", 1]]}) + "\n")
    line = f"log, line {len(frame) + 1}: "
    expect_error(call(trained, log), line, "model 1111111111", "--since")
    assert call(trained, log, "--until", "2026-11-30").code == 0
    expect_error(call(trained, log, "--since", "2026-12-01"), line, "no class 'Bark'")
    (tmp_path / "model.onnx").write_bytes(b"another")
    expect_error(call(trained, log, "--model", tmp_path / "model.onnx"), "log, line 1: ", "--model")
    shutil.copytree(trained.folder / "models", tmp_path / "models")
    (tmp_path / "models" / "first" / "curated" / "model.onnx").write_bytes(b"another")
    expect_error(call(Workshop(tmp_path, trained.data), log), "log, line 1: ")


@pytest.mark.parametrize(("text", "words", "named"), [
    ("", (), "no tags (no lines)"), ('{"status": 404}\n', (), "other requests: 1"),
    ('{"tags": [["Bell", 1]]}\n', ("--since", "2026-01-01"), "line 1: there is no time"),
    (LINE, ("--until", "2020-01-01"), "no tags of that period"), (LINE, ("--threshold", "0"), "--threshold"),
    (LINE, ("--model", "no.onnx"), "no.onnx could not be read")])
def test_logs_that_cannot_be_compared(trained, tmp_path, expect_error, text, words, named):
    (tmp_path / "log").write_text(text)
    expect_error(call(trained, tmp_path / "log", *words), named)
