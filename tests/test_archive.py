"""Tagging many files: decoding ahead, shared batches, order, memory, and decoders that crash."""
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from itertools import count

import archive_case
import numpy as np
import pytest
import soundfile
from archive_case import INFO, RATE, call, load, write_sounds

from tagging_lite import audio
from tagging_lite.archive import decoders, pipeline
from tagging_lite.archive.decoders import Decoders
from tagging_lite.archive.pipeline import tag_sources
from tagging_lite.archive.process import ROOT, DecoderProcess, Decoding, End, Source
from tagging_lite.tagger import Tagger

HOW = Decoding(RATE, 60.0)


def sources_of(names):
    return [Source(place, str(name)) for place, name in enumerate(names)]


def tag(names, **options):
    return list(tag_sources(options.pop("tagger", load()), sources_of(names), **options))


@pytest.mark.parametrize("processes", [0, 1, 3])
@pytest.mark.parametrize("timeline", [False, True])
def test_many_files_have_the_tags_of_each_file_alone_in_the_order_of_the_input(tmp_path, monkeypatch, processes,
                                                                               timeline):
    monkeypatch.setattr(audio, "LONGEST", 3 * RATE)         # pieces, in the threads of this process
    names = write_sounds(tmp_path, 12, seconds=4)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    names = [names[3], str(tmp_path / "bad.wav"), *names, str(tmp_path / "silent.wav"), "nowhere.wav", names[3]]
    found = tag(names, timeline=timeline, embeddings=True, processes=processes)
    assert [outcome.source.name for outcome in found] == names
    assert {outcome.source.name: outcome.fault for outcome in found if outcome.result is None} == {
        str(tmp_path / "bad.wav"): "cut short: it has no data chunk", str(tmp_path / "silent.wav"): "all silence",
        "nowhere.wav": "not found"}
    if processes:
        monkeypatch.undo()      # the processes do not have the patch
    for outcome in found:
        if outcome.result:
            alone = load().tag_file(outcome.source.name, timeline, embeddings=True)
            assert outcome.result.seconds == alone.seconds
            for name in ("probabilities", "embedding", *(["timeline", "timeline_embeddings"] if timeline else [])):
                np.testing.assert_allclose(getattr(outcome.result, name), getattr(alone, name), atol=1e-6)


def test_the_batches_are_full_although_the_files_are_short(tmp_path):
    sizes = []

    def logits(windows):
        sizes.append(len(windows))
        return archive_case.logits(windows)

    tag(write_sounds(tmp_path, 40, seconds=0.4), tagger=Tagger(INFO, logits, batch=16))
    assert sizes[:-1] == [16] * (len(sizes) - 1) and sum(sizes) == 40


def test_a_long_first_file_passes_piece_by_piece_and_little_waits_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", RATE)
    monkeypatch.setattr(decoders, "LOOKAHEAD_SAMPLES", 4 * RATE)
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 100 * RATE), RATE)
    names = [tmp_path / "long.wav", *write_sounds(tmp_path / "short", 30)]
    made, largest = Decoders(sources_of(names), HOW, 0), 0
    monkeypatch.setattr(pipeline, "Decoders", lambda *words: made)
    for outcome in tag_sources(load(), []):
        assert outcome.result
        largest = max(largest, made.samples)
    assert largest <= 6 * RATE


def test_a_slow_list_is_tagged_as_it_comes(tmp_path):
    """Such as that of a program that waits for new recordings."""
    name, = write_sounds(tmp_path, 1)
    release = threading.Event()

    def names():
        yield Source(0, name)
        release.wait(20)
        yield Source(1, name)

    found = tag_sources(load(), names(), processes=1)
    assert next(found).source.place == 0 and not release.is_set()
    release.set()
    assert [outcome.source.place for outcome in found] == [1]


def test_an_error_of_the_list_comes_after_what_was_found_before(tmp_path):
    name, = write_sounds(tmp_path, 1)

    def names():
        yield Source(0, name)
        raise ValueError("the list breaks off")

    found = tag_sources(load(), names(), processes=2)
    assert next(found).result
    with pytest.raises(ValueError, match="breaks off"):
        next(found)


def test_an_error_of_the_network_ends_the_work(tmp_path):
    def logits(windows):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        tag(write_sounds(tmp_path, 3), tagger=Tagger(INFO, logits), processes=1)


def test_a_crashed_decoder_costs_its_file_only(tmp_path, monkeypatch):
    """The process kills itself on one file, in both attempts, and once on another."""
    code = (f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from tagging_lite.archive import process\n"
            "original = process.read_pieces\n"
            "def read_pieces(path, *words, **options):\n"
            "    mark = path.with_suffix('.seen')\n"
            "    if path.name == '0001.wav' or (path.name == '0003.wav' and not mark.exists()):\n"
            "        yield next(original(path, *words, **options))\n"
            "        mark.touch(); os.kill(os.getpid(), signal.SIGSEGV)\n"
            "    yield from original(path, *words, **options)\n"
            "process.read_pieces = read_pieces; process.serve_decoder()")
    original = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: original([*words[:2], code, *words[3:]],
                                                                              **options))
    names = write_sounds(tmp_path, 6)
    found = tag(names, processes=2)
    assert [outcome.source.name for outcome in found] == names
    assert [outcome.fault for outcome in found] == ["", "the decoder crashed on it (SIGSEGV)", "", "", "", ""]
    np.testing.assert_allclose(found[3].result.probabilities, load().tag_file(names[3]).probabilities, atol=1e-6)


def test_no_process_is_left_when_the_work_is_given_up(tmp_path, monkeypatch):
    started = []
    original = DecoderProcess.start

    def start(self):
        started.append(self)
        return original(self)

    monkeypatch.setattr(DecoderProcess, "start", start)
    name, = write_sounds(tmp_path, 1)
    found = tag_sources(load(), (Source(place, name) for place in count()), processes=2)
    for _ in range(10):
        next(found)
    found.close()
    deadline = time.monotonic() + 20
    while any(each.process for each in started) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert started and not any(each.process for each in started)


def test_a_decoder_ends_with_the_process_that_started_it(tmp_path):
    process = DecoderProcess(HOW)
    write_sounds(tmp_path, 1)
    events = list(process.decode(str(tmp_path / "0000.wav")))
    assert isinstance(events[-1], End) and len(events) == 2
    process.pipe.close()            # as the system does when a process is killed
    assert process.process.wait(20) == 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """6,000 files take no more than 1,500 did, but for 8 MB."""
    names = write_sounds(tmp_path, 1, seconds=0.2)

    def peaks():
        for outcome in tag_sources(load(64), sources_of(names * 6000), processes=0):
            if outcome.source.place in (1500, 5999):
                yield resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    half, whole = peaks()
    assert whole - half < 8000 * (1 if sys.platform == "linux" else 1024)      # kilobytes; bytes on a Mac


def test_faults_beyond_a_thousand_are_printed_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tagging_lite.command.KEPT", 3)
    good, = write_sounds(tmp_path, 1)
    (tmp_path / "list").write_text("".join(f"missing-{number}.wav\n" for number in range(5)) + good + "\n")
    assert call("--list", tmp_path / "list", "--top", "1") == 1
    out, err = capsys.readouterr()
    assert out.startswith(good) and len(out.splitlines()) == 1
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines[:2]] == ["missing-3.wav", "missing-4.wav"]
    assert lines[2] == "5 files could not be tagged: The first 3; the others are printed above:" and len(lines) == 7


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_its_decoders(tmp_path):
    names = write_sounds(tmp_path, 1)
    (tmp_path / "list").write_text(f"{names[0]}\n" * 5000)
    process = subprocess.Popen([sys.executable, archive_case.__file__, "--list", tmp_path / "list", "--format", "jsonl",
                                "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "SLOW": "0.01"}, start_new_session=True,
                               # A test that runs in the background of a shell ignores Ctrl-C, and so would this.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert json.loads(process.stdout.readline())["path"] == names[0]
    os.killpg(process.pid, signal.SIGINT)       # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode != 0
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a decoder is left")
