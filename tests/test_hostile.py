"""Generated hostile files: each ends in a right result or one error that names the file, in bounded time and memory.

HOSTILE_CASES raises the number of cases a reader gets.
"""
import copy
import csv
import ctypes
import faulthandler
import gc
import io
import json
import os
import pickle
import re
import resource
import socket
import struct
import time
import tracemalloc
from collections import OrderedDict
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import TINY
from fastai.optimizer import ranger
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from tagging import checkpoint as checkpoints
from tagging import waves
from tagging.checkpoint import Progress, load_checkpoint, save_checkpoint
from tagging.competition import Clips, open_competition, read_header, read_vocabulary
from tagging.ensemble import check_submission
from tagging.errors import TaggingError
from tagging.model import KIND, About, Model, load_model
from tagging.recipe import SMOKE
from tagging.tables import join_labels, read_labels, read_scores, read_table, read_truth
from tagging.waves import RemoveSilence, load_clip, open_store
from tagging.weights import checksum, read_weights, write_weights

CASES = int(os.environ.get("HOSTILE_CASES", "2000"))
SECONDS = 2.0                       # a case
TIMES, ALLOWANCE = 20, 16 << 20     # bytes a case may take: so often the file's size, and a fixed allowance
RATE = 16_000


@pytest.fixture(autouse=True)
def watchdog():
    """A loop inside a C library never comes back to be measured."""
    faulthandler.dump_traceback_later(max(600, CASES), exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def run_cases(check, strategy, count=CASES):
    """Call `check` with `count` generated cases, the same in every run; fewer are a failure too."""
    ran = 0

    @settings(max_examples=count, derandomize=True, deadline=None, database=None,
              phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(case):
        nonlocal ran
        ran += 1
        check(case)

    one()
    assert ran >= count, f"{ran} cases of {count}"


def outcome(path, read, *arguments, seconds=SECONDS):
    """What `read(path, ...)` returns, or the TaggingError that it raises; any other error passes through."""
    for _ in range(2):      # another process may have held the core; what hangs is slow twice
        tracemalloc.start()
        begin = time.monotonic()
        try:
            result = read(path, *arguments)
        except TaggingError as error:
            assert str(path) in str(error)
            result = error
        finally:
            took = time.monotonic() - begin
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if took < seconds:
            break
    size = path.stat().st_size
    assert took < seconds, f"{took:.1f} s for {size} bytes"
    assert peak <= TIMES * size + ALLOWANCE, f"{peak} bytes for a file of {size}"
    return result


def refused(result):
    return isinstance(result, TaggingError)


def put(path, content):
    """A new file, not the old one overwritten: a tensor of the case before may still be mapped to that."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


EDITS = st.lists(st.tuples(st.sampled_from(["set", "flip", "cut", "insert", "delete", "repeat"]),
                           st.integers(0, 2**24), st.integers(0, 255)), max_size=4)


def damage(content, edits):
    for kind, place, value in edits:
        place %= len(content) + 1
        head, tail = content[:place], content[place:]
        if kind == "set":
            content = head + bytes([value]) + tail[1:]
        elif kind == "flip":
            content = head + bytes(byte ^ (1 << value % 8) for byte in tail[:1]) + tail[1:]
        elif kind == "cut":
            content = head
        elif kind == "insert":
            content = head + bytes([value]) * (1 + value % 5) + tail
        elif kind == "delete":
            content = head + tail[1 + value % 9:]
        else:
            content = head + tail[:value] + tail
    return content


# --- csv files ---

CLASSES = ("Bark", "Chink, clink", "Möwe", "犬")
TOKENS = ["fname", "labels", "usage", "index", "label", "mid", "a.wav", "b.wav", "../c.wav", "Bark", "Möwe", "犬",
          '"""Chink, clink"""', '"Chink, clink"', "Private", "Public", "0", "1", "2", "nan", "1e999", ",", ",", ",",
          ",", "\n", "\n", "\n", "\r\n", "\r", '"', '""', " ", "\t", ";", "\0", "\ufeff", "\u2028", "\x1c", "=1+1",
          "é", "\U0001f415", "x" * 300, "," * 40, "\n" * 30]
TABLES = ['fname,labels\na.wav,Bark\nb.wav,"Möwe,Bark"\n', "\ufefffname,labels,usage\r\na.wav,犬,Private\r\n",
          'usage,fname,labels\nPublic,a.wav,"""Chink, clink"""\n\n\nPrivate,b.wav,\n',
          'fname,Bark,"Chink, clink",Möwe,犬,usage\na.wav,0,1,0,1.0,Private\nb.wav,1,0,0,0,Public\n',
          '0,Bark,/m/1\n1,"Chink, clink",/m/2\n2,Möwe,/m/3\n', "index,label,mid\n0,Bark,/m/1\n1,犬,/m/2\n"]
SOUP = st.tuples(st.lists(st.sampled_from(TOKENS), max_size=30).map("".join),
                 st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])).map(
    lambda pair: pair[0].encode(pair[1], "replace"))
HEADED = st.lists(st.sampled_from(TOKENS), max_size=20).map(lambda words: ("fname,labels\n" + "".join(words)).encode())
CSV = st.tuples(SOUP | HEADED | st.sampled_from(TABLES).map(str.encode) | st.binary(max_size=80), EDITS)


def parse(text):
    """An independent reading of a csv: rows of fields, blank lines left out."""
    rows, row, field, quoted, place = [], [], "", False, 0
    while place < len(text):
        char = text[place]
        place += 1
        if quoted:
            if char != '"':
                field += char
            elif text[place:place + 1] == '"':
                field, place = field + '"', place + 1
            else:
                quoted = False
        elif char == '"' and not field:
            quoted = True
        elif char == ",":
            row, field = [*row, field], ""
        elif char in "\r\n":
            rows, row, field = [*rows, [*row, field]], [], ""
        else:
            field += char
    return [row for row in [*rows, [*row, field]] if row != [""]]


def parsed(content):
    """Header, stripped, and the rows that hold anything."""
    header, *rows = parse(content.decode("utf-8-sig"))
    return [name.strip() for name in header], [row for row in rows if "".join(row).strip()]


def check_table(table, content):
    header, rows = parsed(content)
    assert list(table.columns) == header and len(set(header)) == len(header)
    assert table.to_numpy().tolist() == rows
    assert (np.diff(table.index) > 0).all() and table.index[-1] <= len(content)


def check_labels(targets, table):
    assert targets.columns.tolist() == list(CLASSES) and targets.index.is_unique
    for row, text in zip(targets.to_numpy(), table.labels):
        if '"' not in text:
            said = [label.strip() for label in re.split(r"[,\r\n]", text) if label.strip()]
            assert [CLASSES[number] for number in np.flatnonzero(row)] == sorted(said, key=CLASSES.index)


def check_vocabulary(names, content):
    assert len(set(names)) == len(names) >= 2 and all(names)
    text = content.decode("utf-8-sig")
    if '"' not in text:
        rows = [row[min(1, len(row) - 1)].strip() for row in parse(text)]
        assert list(names) in (rows, rows[1:])


def test_any_csv_is_read_right_or_refused(tmp_path):
    def check(case):
        path = put(tmp_path / "t.csv", content := damage(*case))
        if not refused(table := outcome(path, read_table)):
            check_table(table, content)
        if not refused(labels := outcome(path, read_labels, CLASSES)):
            check_labels(*labels)
        for usage in (None, "Private"):
            if not refused(truth := outcome(path, read_truth, CLASSES, usage)):
                assert list(truth.columns) == list(CLASSES) and truth.isin([0, 1]).all(axis=None)
        if not refused(names := outcome(path, read_vocabulary)):
            check_vocabulary(names, content)
        if not refused(names := outcome(path, read_header)):
            assert list(names) == [name for name in parsed(content)[0] if name != "fname"]
    run_cases(check, CSV)


LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8)
NAME = LINE.map(str.strip).filter(bool)
FIELD = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def spreadsheets(draw):
    """A right table of labels in any form that a spreadsheet may write, and what stands in it."""
    classes = draw(st.lists(NAME, min_size=2, max_size=5, unique=True))
    fnames = draw(st.lists(FIELD.filter(str.strip), min_size=1, max_size=5, unique=True))
    extra = draw(st.lists(NAME.filter(lambda name: name not in ("fname", "labels")), max_size=2, unique=True))
    labels = [draw(st.lists(st.sampled_from(classes), unique=True)) for _ in fnames]
    rows = [{"fname": fname, "labels": join_labels(said)} | {name: draw(FIELD) for name in extra}
            for fname, said in zip(fnames, labels)]
    header = draw(st.permutations(["fname", "labels", *extra]))
    end, always = draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.booleans())
    lines = [",".join(quote(row[name], always) for name in header) for row in [dict(zip(header, header)), *rows]]
    text = "".join(end * draw(st.integers(0, 2)) + line + end for line in lines)
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig"]))), classes, rows, labels


def quote(field, always):
    return '"' + field.replace('"', '""') + '"' if always or set(field) & set(',"\r\n') else field


def test_a_right_table_of_any_form_is_read_exactly(tmp_path):
    def check(case):
        content, classes, rows, labels = case
        targets, table = outcome(put(tmp_path / "t.csv", content), read_labels, classes)
        assert table.reset_index()[list(rows[0])].to_dict("records") == rows
        assert targets.to_numpy().tolist() == [[int(name in said) for name in classes] for said in labels]
    run_cases(check, spreadsheets(), CASES // 4)


@pytest.mark.parametrize("read, content", [
    (read_header, "fname," + ",".join(f"c{n}" for n in range(60_000)) + "\na" + ",0" * 60_000 + "\n"),
    (read_vocabulary, "\n".join(f"c{n}" for n in range(60_000))),
    (read_table, "fname,labels\n" + "a,b\n" * 250_000),
    (read_table, "fname,labels\n" + "ab,\n" * 250_000),
    (read_table, "fname,labels\n" + "".join(f"{n}.wav,Bark\n" for n in range(80_000))),
    (read_table, "fname,labels\n" + "\n" * 1_000_000),
    (read_table, 'fname,labels\na,"' + "x" * 1_000_000),
], ids=["wide", "vocabulary", "narrow", "short", "long", "blank", "one field"])
def test_a_megabyte_of_csv_takes_neither_long_nor_much(tmp_path, read, content):
    outcome(put(tmp_path / "t.csv", content.encode()), read, seconds=5)


# --- submissions ---

FNAMES = ("a.wav", "b, c.wav", "ねこ.wav")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
ODD_NUMBERS = ["", " ", "nan", "NaN", "inf", "-Infinity", "1e999", "1_000", "\uff11\uff12", "0x10", "1,5", "1e", "--1",
               "True", "1j", "٣", "9" * 400, "1\0", "\u00a01", "1d5", "None", "=1", "1 2", "0" * 2_000 + "1", "loud",
               "'1"]
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(repr)


@st.composite
def submissions(draw):
    """A submission, with a chance of faults in its values, its rows and its columns; and whether it is right."""
    faults = draw(st.sets(st.sampled_from(["value", "rows", "columns", "order"]), max_size=2))
    fnames, classes = list(FNAMES), list(CLASSES)
    if "rows" in faults:
        fnames = draw(st.lists(st.sampled_from([*FNAMES, "new.wav", ""]), max_size=4))
    if "columns" in faults:
        classes = draw(st.lists(st.sampled_from([*CLASSES, "fname", "", "new"]), max_size=5))
    if "order" in faults:
        fnames, classes = draw(st.permutations(fnames)), draw(st.permutations(classes))
    field = FLOATS | st.sampled_from(["0", "1", " .5", "+2.", "1E-400"])
    rows = [[draw(field) for _ in classes] for _ in fnames]
    if "value" in faults and rows and classes:
        draw(st.sampled_from(rows))[draw(st.integers(0, len(classes) - 1))] = draw(st.sampled_from(ODD_NUMBERS))
    out = io.StringIO()
    csv.writer(out, lineterminator=draw(st.sampled_from(["\n", "\r\n"]))).writerows(
        [["fname", *classes], *([fname, *row] for fname, row in zip(fnames, rows))])
    edits = draw(st.just([]) | EDITS)
    # The rows of a submission may stand in any order, its columns may not.
    right = not edits and sorted(fnames) == sorted(FNAMES) and tuple(classes) == CLASSES and "value" not in faults
    return out.getvalue().encode(), edits, right


def test_any_submission_is_read_right_or_refused(tmp_path):
    def check(case):
        content = damage(*case[:2])
        path = put(tmp_path / "submission.csv", content)
        scores = outcome(path, read_scores)
        checked = outcome(path, check_submission, FNAMES, CLASSES)
        if case[2]:
            assert not refused(checked), checked
        if not refused(checked):
            assert sorted(checked.index) == sorted(FNAMES) and tuple(checked.columns) == CLASSES
        if not refused(scores):
            check_scores(scores, content)
    run_cases(check, submissions())


def check_scores(scores, content):
    header, rows = parsed(content)
    key = header.index("fname")
    assert list(scores.columns) == header[:key] + header[key + 1:]
    assert list(scores.index) == [row.pop(key) for row in rows] and scores.index.is_unique
    assert all(NUMBER.fullmatch(field.strip()) for row in rows for field in row), "text was taken for a number"
    assert scores.to_numpy().tolist() == [[float(field) for field in row] for row in rows]
    assert np.isfinite(scores.to_numpy()).all()


# --- sounds ---

SUBTYPES = ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW")
MAGIC = (b"RIFF\0\1\0\0WAVE", b"RIFF\0\1\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\x20\0\0\0",
         b"RIFX\0\0\1\0WAVE", b"RF64\xff\xff\xff\xffWAVEds64", b"fLaC\0\0\0\x22", b"OggS\0\2", b"FORM\0\0\1\0AIFF",
         b"FORM\0\0\1\0AIFC", b".snd\0\0\0\x18", b"caff\0\1\0\0desc", b"ID3\3\0", b"\xff\xfb\x90\x00",
         b"MATLAB 5.0 MAT", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", b"Creative Voice File\x1a",
         b"NIST_1A\n   1024\n", b"")
SIZES = st.integers(0, 2**32 - 1) | st.sampled_from(
    [0, 1, 2, 3, 4, 6, 8, 12, 16, 17, 18, 24, 32, 33, 40, 64, 255, 999, 1000, 8000, 44_100, 400_001, 0xFFFE, 0xFFFF,
     2**20, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])


def sound(samples, seed=0):
    rng = np.random.default_rng(seed)
    return np.sin(np.arange(samples) / 5) * rng.uniform(0.3, 0.9, samples)


def encode(values, subtype="PCM_16", kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, values, RATE, subtype=subtype, format=kind)
    return file.getvalue()


def with_chunks(content):
    """The same WAV with an odd chunk before its data and one behind."""
    place = content.index(b"data")
    return content[:place] + b"LIST\x05\0\0\0INFOx\0" + content[place:] + b"note\x04\0\0\0last"


WAVS = {subtype: encode(sound(300), subtype) for subtype in SUBTYPES}
WAVS |= {"chunks": with_chunks(WAVS["PCM_16"]), "extensible": encode(sound(300), "PCM_24", "WAVEX")}
SOUNDS = [*WAVS.values(), encode(sound(1500), kind="FLAC"), encode(sound(2000), "VORBIS", "OGG"),
          encode(sound(600), "IMA_ADPCM"), encode(sound(640), "GSM610"), encode(sound(300), kind="AIFF"),
          encode(sound(300), kind="RF64"), encode(np.stack([sound(200)] * 2, 1))]
FIELDS = {"riff": (4, 4), "fmt": (16, 4), "tag": (20, 2), "channels": (22, 2), "rate": (24, 4), "bytes": (28, 4),
          "align": (32, 2), "bits": (34, 2)}
LIES = st.lists(st.tuples(st.sampled_from([*FIELDS, "data"]), SIZES), min_size=1, max_size=3)


def place_of(content, field):
    return FIELDS.get(field) or (content.index(b"data") + 4, 4)


def lie(content, lies):
    for field, value in lies:
        place, size = place_of(content, field)
        content = content[:place] + value.to_bytes(4, "little")[:size] + content[place + size:]
    return content


def decode(subtype, data):
    """An independent reading of the bytes of a data chunk as int16, or None where they are not finite."""
    if subtype in ("FLOAT", "DOUBLE"):
        with np.errstate(over="ignore"):
            values = np.frombuffer(data, "<f4" if subtype == "FLOAT" else "<f8").astype("f4").astype("f8")
        finite = np.isfinite(values).all()
        return np.clip(np.round(values * 32768), -32768, 32767).astype(np.int16) if finite else None
    if subtype == "PCM_16":
        return np.frombuffer(data, "<i2")
    data = np.frombuffer(data, np.uint8).astype(int)
    if subtype == "PCM_U8":
        return ((data - 128) * 256).astype(np.int16)
    if subtype == "PCM_24":
        low, middle, high = data.reshape(-1, 3).T
        values = low + (middle << 8) + (high << 16)
        return np.clip(np.round((values - (high >> 7 << 24)) / 256), -32768, 32767).astype(np.int16)
    code = 255 - data       # mu-law
    values = (((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132
    return np.where(code & 128, -values, values).astype(np.int16)


def load(path, trim=None):
    """`load_clip` within the bounds; what holds for every result is checked here."""
    wave, rate, fault = outcome(path, load_clip, trim)
    assert wave.dtype == np.int16 and wave.ndim == 1
    assert (len(wave) == 0) == bool(fault) and isinstance(fault, str)
    assert fault or 1_000 <= rate <= 400_000
    return wave, rate, fault


def test_any_bytes_are_a_sound_or_have_a_fault(tmp_path):
    sounds = st.sampled_from(SOUNDS)
    lying = st.tuples(st.sampled_from(list(WAVS.values())), LIES).map(lambda pair: lie(*pair))
    noise = st.tuples(st.sampled_from(MAGIC), st.binary(max_size=200)).map(b"".join)
    strategy = st.tuples(sounds | lying | noise, EDITS, st.sampled_from([None, RemoveSilence()]))
    run_cases(lambda case: load(put(tmp_path / "a.wav", damage(*case[:2])), case[2]), strategy)


def test_a_changed_byte_of_the_data_changes_that_sample_only(tmp_path):
    def check(case):
        subtype, place, value = case
        content = WAVS[subtype]
        start = content.index(b"data") + 8
        place = start + place % (len(content) - start)
        content = content[:place] + bytes([value]) + content[place + 1:]
        wave, rate, fault = load(put(tmp_path / "a.wav", content))
        expected = decode(subtype, content[start:])
        if expected is None:
            assert "not finite" in fault
        else:
            assert np.array_equal(wave, expected) and rate == RATE and (decode(subtype, WAVS[subtype][start:])
                                                                        != wave).sum() <= 1
    run_cases(check, st.tuples(st.sampled_from(SUBTYPES), st.integers(0, 9999), st.integers(0, 255)), CASES // 4)


def test_a_cut_wav_is_told_unless_the_cut_is_behind_its_data(tmp_path):
    def check(case):
        name, place = case
        content = WAVS[name]
        start = content.index(b"data") + 8
        end = start + struct.unpack("<I", content[start - 4:start])[0]
        place %= len(content)
        wave, _, fault = load(put(tmp_path / "a.wav", content[:place]))
        if 4 <= place < end:
            assert "cut short" in fault
        elif place < 4:
            assert fault
        else:
            assert np.array_equal(wave, load(put(tmp_path / "b.wav", content))[0])
    run_cases(check, st.tuples(st.sampled_from(list(WAVS)), st.integers(0, 9999)), CASES // 4)


def test_a_lie_about_one_field_gives_the_same_samples_or_a_fault(tmp_path):
    whole = {name: load(put(tmp_path / "a.wav", content))[0] for name, content in WAVS.items()}

    def check(case):
        name, field, value = case
        content = WAVS[name]
        truth = content[slice(place := place_of(content, field)[0], place + place_of(content, field)[1])]
        wave, rate, fault = load(put(tmp_path / "a.wav", lie(content, [(field, value)])))
        if field == "channels" and value % 65536 != 1:
            assert fault
        if field == "rate":
            assert fault or rate == value
        if field == "data" and int.from_bytes(truth, "little") < value < 2**32 - 1:
            assert fault
        if field not in ("data", "fmt", "tag", "align", "bits") and not fault:
            assert np.array_equal(wave, whole[name])
        if field == "data" and not fault:       # the largest number stands for the end of the file
            shared = min(len(wave), len(whole[name]))
            assert np.array_equal(wave[:shared], whole[name][:shared])
    run_cases(check, st.tuples(st.sampled_from(list(WAVS)), st.sampled_from(["data", *FIELDS]), SIZES), CASES // 4)


@pytest.mark.filterwarnings("error")
def test_floats_of_any_value_are_limited_or_told(tmp_path):
    def check(case):
        subtype, values = case
        kind = "<f4" if subtype == "FLOAT" else "<f8"
        with np.errstate(over="ignore"):
            data = np.array(values).astype(kind).tobytes()
        content = WAVS[subtype]
        place = content.index(b"data") + 8
        content = content[:place - 4] + len(data).to_bytes(4, "little") + data
        wave, _, fault = load(put(tmp_path / "a.wav", content))
        expected = decode(subtype, data)
        if expected is None:
            assert "not finite" in fault
        elif expected.min() == expected.max():
            assert "silence" in fault
        else:
            assert np.array_equal(wave, expected)
    values = st.floats(-2, 2) | st.floats() | st.sampled_from([1e38, -1e38, 3.5e38, 1e300, 1e-45, -0.0])
    run_cases(check, st.tuples(st.sampled_from(["FLOAT", "DOUBLE"]), st.lists(values, min_size=1, max_size=20)),
              CASES // 4)


@pytest.mark.parametrize("suffix", [*(kind.lower() for kind in soundfile.available_formats()), "RAW", "wav ", "x", ""])
def test_a_sound_may_have_any_name(tmp_path, suffix):
    """soundfile takes .raw for samples without a header, and asks for their rate."""
    path = put(tmp_path / f"a.{suffix}", WAVS["PCM_16"])
    wave, _, fault = load(path)
    assert fault or np.array_equal(wave, load(put(tmp_path / "b.wav", WAVS["PCM_16"]))[0])
    assert not fault or suffix.lower() == "raw"
    load(put(path, b"this is no sound"))
    load(put(path, bytes(5000)))


@pytest.mark.parametrize("kind, subtype", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("WAV", "PCM_U8"), ("WAV", "GSM610")])
def test_a_small_file_of_a_long_sound_does_not_fill_the_memory(tmp_path, kind, subtype):
    """Hours of near-silence take kilobytes in a compressed file."""
    path = tmp_path / "a.wav"
    quiet = np.zeros(100_000, np.int16)
    quiet[5] = 9999
    with soundfile.SoundFile(path, "w", RATE, 1, subtype, format=kind) as file:
        for _ in range(200):
            for piece in np.split(quiet, 20):       # libsndfile's Vorbis puts what it is given onto the stack
                file.write(piece)
    _, _, fault = outcome(path, load_clip, RemoveSilence(), seconds=10)
    assert not fault or "long" in fault


def test_every_damaged_clip_of_a_set_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(waves, "MARGIN", 1000)
    bad = {f"{number}.wav": content[:len(content) // 3] for number, content in enumerate(SOUNDS[:8])}
    paths = [put(tmp_path / name, content) for name, content in [*bad.items(), ("good.wav", WAVS["PCM_16"])]]
    clips = Clips("noisy", tmp_path / "t.csv", pd.Index([path.name for path in paths]), paths, np.ones((len(paths), 1)))
    with pytest.raises(TaggingError) as caught:
        open_store(clips, None, tmp_path / "cache")
    assert all(f"  {name}: " in str(caught.value) for name in bad) and "good.wav" not in str(caught.value)
    assert list(open_store(clips, None, tmp_path / "cache", skip_bad=True)[0].fnames) == ["good.wav"]


# --- names of clips ---

PARTS = ["..", "..", ".", "", "a.wav", "a.wav.", "sub", "b.wav", "out", "secret.wav", "link.wav", "good.wav", "loop",
         "clips", "test", "test-other", "none", "...", "~", "a.wav\\..\\..\\secret.wav", "..\\secret.wav", "%2e%2e",
         "a.wav ", "a.wav\0", "a.wav\n", "x" * 300, "/", "ABSOLUTE"]


@pytest.fixture
def forest(tmp_path):
    """A competition whose clips hold `inside`; all other files hold `outside`, and links lead to them."""
    home = tmp_path / "root" / "test"
    for folder in (home / "sub", tmp_path / "root" / "test-other"):
        folder.mkdir(parents=True)
    for path in (home / "a.wav", home / "sub" / "b.wav"):
        path.write_bytes(b"inside")
    for folder in (tmp_path, tmp_path / "root", tmp_path / "root" / "test-other"):
        for name in ("secret.wav", "a.wav"):
            (folder / name).write_bytes(b"outside")
    (home / "out").symlink_to(tmp_path)
    (home / "link.wav").symlink_to(tmp_path / "secret.wav")
    (home / "good.wav").symlink_to("sub/../a.wav")
    (home / "loop").symlink_to("loop")
    return tmp_path / "root"


def test_a_name_in_a_csv_never_leaves_the_folder_of_clips(forest):
    def check(case):
        parts, separator = case
        name = separator.join(parts).replace("ABSOLUTE", str(forest))
        out = io.StringIO()
        csv.writer(out).writerows([["fname", "Bark", "Meow"], [name, 0, 0]])
        path = put(forest / "sample_submission.csv", out.getvalue().encode())
        clips = outcome(path, lambda _: open_competition(forest).clips("test"))
        if not refused(clips):
            assert clips.paths[0].read_bytes() == b"inside"
    run_cases(check, st.tuples(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5),
                               st.sampled_from(["/", "/", "/", "//", "\\"])), CASES // 2)


# --- weights and checkpoints ---

WEIGHTS_KIND = "hostile test 1"
TENSORS = {"a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7, "count": torch.tensor(5)}
ABOUT = {"name": "Möwe", "sizes": [1, 2.5, None], "deep": {"x": True}}
DTYPES = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "I16", "U16", "F16", "BF16", "I32",
          "U32", "F32", "F64", "I64", "U64", "C64", "Q4", "", 5, None]
LENGTHS = st.sampled_from([0, 1, 2, 8, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, 1.5, "1", None])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 2**70) | st.floats() | st.text(max_size=4),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
                    max_leaves=6)
ODD_TEXTS = ["", "{", "nonsense", "[" * 50_000, '{"a":' * 50_000, "1" * 5_000, "NaN", "\ud83d\udc15", "\0", "{}" * 2,
             '"' + "x" * 9_000, "{}{", "null", "true", '{"a": 1e999}', '{"a": ' + "9" * 5_000 + "}"]


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def container(header, data, length=None):
    """A safetensors file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def unpack(content):
    """Header and data of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def sealed(tensors, about, kind=WEIGHTS_KIND):
    """A file with a right checksum, as a stranger can make it too. None leaves the description out."""
    metadata = {"kind": kind, "checksum": checksum(tensors, about or "")}
    return save(tensors, metadata if about is None else metadata | {"about": about})


def foreign(marker):
    """Files that run code when they are unpickled, in all the wrappings that weights come in."""
    payload, files = Payload(marker), [pickle.dumps(Payload(marker), protocol) for protocol in range(6)]
    for zipped in (True, False):
        torch.save({"weights": payload}, file := io.BytesIO(), _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    np.save(file := io.BytesIO(), np.array([payload], object), allow_pickle=True)
    code = files[2]
    return [*files, file.getvalue(), container({"__metadata__": {"kind": WEIGHTS_KIND, "about": "{}"}}, code),
            sealed({"code": torch.frombuffer(bytearray(code), dtype=torch.uint8)}, "{}"), code + sealed(TENSORS, "{}"),
            sealed(TENSORS, json.dumps({"code": code.hex()})), sealed(TENSORS, "{}") + files[6]]


def headers(whole):
    """Files whose header says something else."""
    header, data = unpack(whole)

    def change(case):
        name, field, value = case
        changed = copy.deepcopy(header)
        if field == "entry":
            changed[name] = value
        elif isinstance(changed.get(name), dict):
            changed[name][field] = value
        return container(changed, data)
    values = st.sampled_from(DTYPES) | JSON | st.lists(LENGTHS, max_size=3)
    return st.tuples(st.sampled_from([*header, "new"]), st.sampled_from(
        ["entry", "dtype", "shape", "data_offsets", "kind", "about", "checksum", "more"]), values).map(change)


def empties():
    """Tensors without elements, whose other sides may be of any length."""
    return st.tuples(st.lists(LENGTHS, max_size=4), st.sampled_from(DTYPES)).map(lambda case: container(
        {"a": {"dtype": case[1], "shape": [0, *case[0]], "data_offsets": [0, 0]},
         "__metadata__": {"kind": WEIGHTS_KIND, "about": "{}", "checksum": ""}}, b""))


def lengths(whole):
    header, data = unpack(whole)
    size = st.integers(0, 2**64 - 1) | st.integers(0, 2 * len(whole)) | st.sampled_from([10**8, 10**8 + 1, 2**63])
    return size.map(lambda length: container(header, data, length))


def same(tensors, others):
    return tensors.keys() == others.keys() and all(
        tensors[name].dtype == others[name].dtype and tensors[name].shape == others[name].shape
        and tensors[name].numpy().tobytes() == others[name].numpy().tobytes() for name in tensors)


@pytest.fixture
def whole(tmp_path):
    write_weights(tmp_path / "whole.safetensors", WEIGHTS_KIND, TENSORS, ABOUT)
    return (tmp_path / "whole.safetensors").read_bytes()


def check_weights(path, about=None):
    """The tensors and the description that were written, or an error."""
    result = outcome(path, read_weights, WEIGHTS_KIND, "Remedy.")
    if refused(result):
        assert str(result).endswith("Remedy.")
    else:
        assert same(result[0], TENSORS) and result[1] == (about or ABOUT)


def test_any_file_of_weights_is_read_exactly_or_refused(tmp_path, whole):
    def check(content):
        check_weights(put(tmp_path / "w.safetensors", content))
    damaged = st.tuples(st.just(whole), EDITS).map(lambda case: damage(*case))
    run_cases(check, damaged | headers(whole) | lengths(whole) | empties() | st.binary(max_size=100))


def test_every_flipped_bit_of_a_file_of_weights_is_found_or_without_effect(tmp_path, whole):
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        check_weights(put(tmp_path / "w.safetensors", bytes(content)))


def test_a_description_that_is_none_is_refused_though_its_checksum_is_right(tmp_path):
    def check(about):
        path = put(tmp_path / "w.safetensors", sealed(TENSORS, about))
        result = outcome(path, read_weights, WEIGHTS_KIND, "Remedy.")
        if not refused(result):
            assert isinstance(result[1], dict) and repr(result[1]) == repr(json.loads(about))
    texts = st.none() | st.sampled_from([text for text in ODD_TEXTS if text.isprintable()]) | JSON.map(json.dumps)
    run_cases(check, texts, CASES // 10)


def test_weights_from_strangers_cannot_run_code(tmp_path):
    marker = tmp_path / "code was run"
    pickle.loads(pickle.dumps(Payload(marker)))
    marker.rmdir()                              # the payload is a true one
    files = foreign(marker)

    def check(case):
        path = put(tmp_path / "w.safetensors", damage(*case))
        for read in (lambda path: read_weights(path, WEIGHTS_KIND, ""), load_model):
            outcome(path, read)
        assert not marker.exists()
    run_cases(check, st.tuples(st.sampled_from(files), st.just([]) | EDITS), CASES // 2)
    for content in files:
        check((content, []))


# A small network of timm's: the files are of 1.5 MB, so the cases of whole models are fewer.
RECIPE = replace(SMOKE, network="timm:test_resnet", crop_seconds=0.25, mels=32, frames=32,
                 noisy=replace(SMOKE.noisy, sizes=(32,)), curated=replace(SMOKE.curated, sizes=(32,)))
MODEL = About("curated", 1, ("Bark", "Meow"), RATE, RECIPE, -31.25, 12.5, 0.875)
ODD_VALUES = [None, True, 0, -1, 1, 1.5, 10**6, 10**9, 10**400, float("inf"), float("nan"), 1e-300, "", "x", [], [0],
              [10**9], ["x"], [[]], {}, {"x": 1}, "timm:", "timm:hf-hub:timm/x", "timm:test_resnet.none", "../x"]


@pytest.fixture
def little_room():
    """What a description asks for must not take the machine's memory from others, if it is granted after all."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1024 * resident("VmSize") + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model(MODEL).eval()


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "fold1.safetensors"
    model.save(path)
    return path.read_bytes()


def test_a_damaged_model_is_the_same_or_refused(tmp_path, model, model_file):
    def check(edits):
        loaded = outcome(put(tmp_path / "m.safetensors", damage(model_file, edits)), load_model)
        if not refused(loaded):
            assert loaded.about == model.about and same(loaded.network.state_dict(), model.network.state_dict())
    edits = EDITS.map(lambda edits: [(kind, place % (9000 if value % 2 else 2**24), value)
                                     for kind, place, value in edits])     # the header is 9000 bytes of 1.5 million
    run_cases(check, edits, CASES // 20)


def change_about(case):
    """The description of a model with one value replaced, removed or added."""
    about, (names, value, remove) = json.loads(json.dumps(asdict(MODEL))), case
    inner = about
    for name in names[:-1]:
        inner = inner[name]
    if remove:
        inner.pop(names[-1], None)
    else:
        inner[names[-1]] = value
    return about


def places():
    about = asdict(MODEL)
    return [(name,) for name in [*about, "more"]] + [("recipe", name) for name in [*about["recipe"], "more"]] + [
        ("recipe", stage, name) for stage in ("noisy", "curated") for name in [*about["recipe"]["noisy"], "more"]]


def test_a_model_of_any_description_can_be_used_or_is_refused(tmp_path, model, little_room):
    wave = torch.randint(-9000, 9000, (1, 4000), dtype=torch.int16)

    def check(case):
        about = change_about(case)
        content = sealed(model.network.state_dict(), json.dumps(about), KIND)
        loaded = outcome(put(tmp_path / "m.safetensors", content), load_model)
        if not refused(loaded):
            with torch.inference_mode():
                assert loaded(wave).shape == (1, len(about["classes"]))
            assert all(isinstance(name, str) for name in loaded.about.classes)
            assert loaded.about.score is None or f"{loaded.about.score:.4f}"
    run_cases(check, st.tuples(st.sampled_from(places()), st.sampled_from(ODD_VALUES),
                               st.sampled_from([False] * 9 + [True])), CASES // 10)


def resident(field):
    """Kilobytes of memory that this process holds: now (VmRSS), or at most (VmHWM)."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux forgets a peak")
@pytest.mark.parametrize("change", [{"network": "timm:resnet152"}, {"network": "xresnet101"}, {"mels": 100_000}],
                         ids=["timm", "xresnet", "mels"])
def test_a_small_file_cannot_ask_for_a_large_network(tmp_path, model, little_room, change):
    about = asdict(MODEL)
    about["recipe"] |= change
    path = put(tmp_path / "m.safetensors", sealed(model.network.state_dict(), json.dumps(about), KIND))
    load_model(put(tmp_path / "good.safetensors", sealed(model.network.state_dict(), json.dumps(asdict(MODEL)), KIND)))
    gc.collect()
    with suppress(AttributeError):      # memory that was freed, and is kept by the C library, would hide the growth
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    assert refused(outcome(path, load_model, seconds=10))
    grown = 1024 * (resident("VmHWM") - before)
    assert grown <= TIMES * path.stat().st_size + ALLOWANCE, f"{grown} bytes for a file of {path.stat().st_size}"


class Small(Model):
    """What a checkpoint needs of a model, without the network."""

    def __init__(self):
        nn.Module.__init__(self)
        self.about, self.network = MODEL, nn.Sequential(OrderedDict(head=nn.Linear(3, 2)))


def trained_small(steps=7):
    torch.manual_seed(0)
    model = Small()
    optimiser = ranger(list(model.parameters()), 0.1)
    for _ in range(steps):                                      # lookahead has its slow weights after six
        model.network(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    return model, optimiser


@pytest.fixture
def progress_file(tmp_path):
    path = tmp_path / "whole.safetensors"
    progress = Progress([{"epoch": 1, "loss": 0.5}], 2, [torch.tensor(0.5), torch.tensor(0.25)])
    save_checkpoint(path, *trained_small(), progress)
    return path


def load_progress(path):
    model, optimiser = trained_small(0)
    return load_checkpoint(path, model, optimiser), model, optimiser


def test_a_damaged_checkpoint_is_the_same_or_refused(tmp_path, progress_file):
    content, (right, before, _) = progress_file.read_bytes(), load_progress(progress_file)

    def check(edits):
        result = outcome(put(tmp_path / "c.safetensors", damage(content, edits)), load_progress)
        if not refused(result):
            assert vars(result[0]) == vars(right) and same(result[1].state_dict(), before.state_dict())
    run_cases(check, EDITS, CASES // 4)


def test_a_checkpoint_of_another_version_is_refused(tmp_path, progress_file):
    tensors, about = read_weights(progress_file, checkpoints.KIND, "")
    tensors = {name: value.clone() for name, value in tensors.items()}
    odd = [torch.zeros(0), torch.zeros(5, 5), torch.tensor(1), torch.zeros(2, dtype=torch.bool), None]

    def check(case):
        name, tensor, key, value, remove = case
        changed, said = dict(tensors), dict(about)
        if name:
            changed[name] = tensor
        if key:
            said[key] = value
        if remove:
            said.pop(key, None)
        changed = {name: value for name, value in changed.items() if value is not None}
        result = outcome(put(tmp_path / "c.safetensors", sealed(changed, json.dumps(said), checkpoints.KIND)),
                         load_progress)
        if not refused(result):
            assert result[0].epoch >= 0 and result[0].step >= 0
    run_cases(check, st.tuples(st.sampled_from(["", *tensors]), st.sampled_from(odd), st.sampled_from(["", *about]),
                               st.sampled_from(ODD_VALUES), st.booleans()), CASES // 4)


# --- the network ---

class ReachedError(Exception):
    """The network was asked for something."""


def test_nothing_is_fetched_from_a_network(workshop, monkeypatch):
    asked, connect = [], socket.socket.connect

    def refuse(*address):
        asked.append(address)
        raise ReachedError(address)

    def local_only(self, address):
        return connect(self, address) if self.family == socket.AF_UNIX else refuse(address)
    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket.socket, "connect_ex", local_only)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as own, pytest.raises(ReachedError):
        own.connect(("127.0.0.1", 9))
    asked.clear()
    assert workshop.train("train_noisy.py", "r", *TINY).code == 0
    assert workshop.predict("r", "--stage", "noisy", "--out", workshop.folder / "out.csv").code == 0
    assert not asked        # an error could have been caught on its way
