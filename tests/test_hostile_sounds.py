"""Hostile sounds give the right samples, or an error message. Training does not use the network."""
import io
import socket
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import TINY
from hostile import CASES, EDITS, damage, outcome, put, run_cases
from hostile import watchdog as watchdog  # pytest runs it around every test of this file
from hypothesis import strategies as st

from tagging.data import waveforms
from tagging.data.competition import Clips
from tagging.data.waveforms import open_store
from tagging.errors import TaggingError
from tagging_lite.audio import RemoveSilence, load_clip
from tagging_lite.decoding.mpeg import parse_frame

pytestmark = pytest.mark.slow       # thousands of generated cases

RATE = 16_000
SUBTYPES = ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW")
FLOATS = {"FLOAT": "<f4", "DOUBLE": "<f8"}
MAGIC = (b"RIFF\0\1\0\0WAVE", b"RIFF\0\1\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\x20\0\0\0",
         b"RIFX\0\0\1\0WAVE", b"RF64\xff\xff\xff\xffWAVEds64", b"fLaC\0\0\0\x22", b"OggS\0\2", b"FORM\0\0\1\0AIFF",
         b"FORM\0\0\1\0AIFC", b".snd\0\0\0\x18", b"caff\0\1\0\0desc", b"ID3\3\0", b"\xff\xfb\x90\x00",
         b"MATLAB 5.0 MAT", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", b"Creative Voice File\x1a",
         b"NIST_1A\n   1024\n", b"")
SIZES = st.integers(0, 2**32 - 1) | st.sampled_from(
    [0, 1, 2, 3, 4, 6, 8, 12, 16, 17, 18, 24, 32, 33, 40, 64, 255, 999, 1000, 8000, 44_100, 400_001, 0xFFFE, 0xFFFF,
     2**20, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])


def encode(samples, subtype="PCM_16", kind="WAV", channels=1):
    values = np.sin(np.arange(samples) / 5) * np.random.default_rng(0).uniform(0.3, 0.9, samples)
    soundfile.write(file := io.BytesIO(), np.stack([values] * channels, 1), RATE, subtype=subtype, format=kind)
    return file.getvalue()


def encode_with_av(kind, codec):
    rate = {"amr": 8000, "webm": 16_000}.get(kind, RATE)
    with tempfile.TemporaryDirectory() as folder:
        with av.open(path := f"{folder}/sound", "w", format=kind) as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            stream.bit_rate = 12_200 if kind == "amr" else 48_000
            wave = (np.sin(np.arange(3000) / 5) * 9000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        return Path(path).read_bytes()


WAVS = {subtype: encode(300, subtype) for subtype in SUBTYPES} | {"extensible": encode(300, "PCM_24", "WAVEX")}
# A chunk of odd length before the data, and another chunk after it.
WAVS["chunks"] = WAVS["PCM_16"].replace(b"data", b"LIST\x05\0\0\0INFOx\0data", 1) + b"note\x04\0\0\0last"
SOUNDS = [*WAVS.values(), encode(1500, kind="FLAC"), encode(2000, "VORBIS", "OGG"), encode(600, "IMA_ADPCM"),
          encode(640, "GSM610"), encode(300, kind="AIFF"), encode(300, kind="RF64"), encode(200, channels=2)]
MP3, OGG = encode(3000, "MPEG_LAYER_III", "MP3"), encode(2000, "OPUS", "OGG")
FLAC = encode(1500, kind="FLAC")
# Read with a corrected header, in parts, or by PyAV.
ODD = [MP3, MP3[parse_frame(MP3, 0).length:], MP3 + MP3, OGG + OGG, FLAC + FLAC,
       FLAC[:21] + b"\xf0\0\0\0\0" + FLAC[26:],
       *(encode_with_av(kind, codec) for kind, codec in (
           ("ipod", "aac"), ("adts", "aac"), ("webm", "libopus"), ("ogg", "flac"), ("asf", "wmav2"), ("wv", "wavpack"),
           ("mp2", "mp2"), ("wav", "libmp3lame"), ("amr", "libopencore_amrnb"), ("caf", "alac"), ("avi", "pcm_s16le")))]
FIELDS = {"riff": (4, 4), "fmt": (16, 4), "tag": (20, 2), "channels": (22, 2), "rate": (24, 4), "bytes": (28, 4),
          "align": (32, 2), "bits": (34, 2)}
FIELD_VALUES = st.lists(st.tuples(st.sampled_from([*FIELDS, "data"]), SIZES), min_size=1, max_size=3)


def start_of_data(content):
    return content.index(b"data") + 8


def place_of(content, field):
    return FIELDS.get(field) or (start_of_data(content) - 4, 4)


def set_fields(content, values):
    """Overwrite fields of the header: (field, value) pairs."""
    for field, value in values:
        place, size = place_of(content, field)
        content = content[:place] + value.to_bytes(4, "little")[:size] + content[place + size:]
    return content


def decode(subtype, data):
    """Decode the bytes of a data chunk to int16, independently of libsndfile. None: they are not finite."""
    if subtype in FLOATS:
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.frombuffer(data, FLOATS[subtype]).astype("f4").astype("f8")
        scale = full_scale(np.abs(values)) if np.isfinite(values).all() else None
        return scale and np.clip(np.round(values / scale * 32768), -32768, 32767).astype(np.int16)
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


def full_scale(sizes):
    """What floating-point samples of these sizes have to be divided by. None: they have to be refused."""
    peak = sizes.max()
    if peak <= 1:
        return 1
    if (sizes == np.round(sizes)).all() or (peak > 16 and (sizes > 1).sum() > ((sizes > 0) & (sizes <= 1)).sum()):
        return next((scale for scale in (2**15, 2**23, 2**31) if peak <= scale), None)
    return peak if peak <= 16 else None


def load(path, trim=None):
    """Call `load_clip` within the limits, and check its result."""
    wave, rate, fault, _ = outcome(path, load_clip, trim)
    assert wave.dtype == np.int16 and wave.ndim == 1
    assert (len(wave) == 0) == bool(fault) and isinstance(fault, str)
    assert fault or 1_000 <= rate <= 400_000
    return wave, rate, fault


def test_any_bytes_give_a_sound_or_a_fault(tmp_path):
    sounds = st.sampled_from([*SOUNDS, *ODD])
    wrong = st.tuples(st.sampled_from(list(WAVS.values())), FIELD_VALUES).map(lambda pair: set_fields(*pair))
    noise = st.tuples(st.sampled_from(MAGIC), st.binary(max_size=200)).map(b"".join)
    strategy = st.tuples(sounds | wrong | noise, EDITS, st.sampled_from([None, RemoveSilence()]))
    run_cases(lambda case: load(put(tmp_path / "a.wav", damage(*case[:2])), case[2]), strategy)


def test_a_changed_byte_of_the_data_changes_only_its_sample(tmp_path):
    def check(case):
        subtype, place, value = case
        whole, start = WAVS[subtype], start_of_data(WAVS[subtype])
        place = start + place % (len(whole) - start)
        content = whole[:place] + bytes([value]) + whole[place + 1:]
        wave, rate, fault = load(put(tmp_path / "a.wav", content))
        expected = decode(subtype, content[start:])
        if expected is None:
            assert "not finite" in fault or "full scale" in fault
        elif subtype in FLOATS and expected.min() == expected.max():
            assert "silence" in fault       # a single loud sample leaves nothing of the others
        else:
            assert np.abs(wave.astype(int) - expected).max() <= (subtype in FLOATS) and rate == RATE
            loud = subtype in FLOATS and np.abs(np.frombuffer(content[start:], FLOATS[subtype])).max() > 1
            assert loud or (decode(subtype, whole[start:]) != wave).sum() <= 1
    run_cases(check, st.tuples(st.sampled_from(SUBTYPES), st.integers(0, 9999), st.integers(0, 255)), CASES // 4)


def test_a_truncated_wav_has_a_fault_unless_its_data_is_complete(tmp_path):
    def check(case):
        content, place = WAVS[case[0]], case[1] % len(WAVS[case[0]])
        start = start_of_data(content)
        end = start + struct.unpack("<I", content[start - 4:start])[0]
        wave, _, fault = load(put(tmp_path / "a.wav", content[:place]))
        if place < end - 1:
            assert fault if place < 4 else "cut short" in fault     # fewer bytes do not show that it is a WAV
        elif place < end:
            assert "cut short" not in fault         # headers count a byte too many
        else:
            assert np.array_equal(wave, load(put(tmp_path / "b.wav", content))[0])
    run_cases(check, st.tuples(st.sampled_from(list(WAVS)), st.integers(0, 9999)), CASES // 4)


def test_a_wrong_value_of_one_field_gives_the_same_samples_or_a_fault(tmp_path):
    whole = {name: load(put(tmp_path / "a.wav", content))[0] for name, content in WAVS.items()}

    def check(case):
        name, field, value = case
        place, size = place_of(WAVS[name], field)
        truth = int.from_bytes(WAVS[name][place:place + size], "little")
        wave, rate, fault = load(put(tmp_path / "a.wav", set_fields(WAVS[name], [(field, value)])))
        if fault:
            return
        assert field != "channels" or value % 65536 == 1
        assert field != "rate" or rate == value
        if field == "data":
            # 0, a number of 2 or 4 GB, and one byte too many or too few mean the end of the file.
            assert min(abs(value - limit) for limit in (0, truth, 2_000_000_000, 2**31, 2**32)) <= 2**16
            assert abs(len(whole[name]) - len(wave)) <= 8       # the chunk after the data counts as samples too
            shared = min(len(wave), len(whole[name]))
            assert np.array_equal(wave[:shared], whole[name][:shared])
        elif field not in ("fmt", "tag", "align", "bits"):  # these define the format of the samples
            assert np.array_equal(wave, whole[name])
    run_cases(check, st.tuples(st.sampled_from(list(WAVS)), st.sampled_from(["data", *FIELDS]), SIZES), CASES // 4)


@pytest.mark.filterwarnings("error")
def test_floats_of_any_value_are_scaled_or_give_a_fault(tmp_path):
    def check(case):
        subtype, values = case
        with np.errstate(over="ignore"):
            data = np.array(values).astype(FLOATS[subtype]).tobytes()
        head = WAVS[subtype][:start_of_data(WAVS[subtype]) - 4]
        wave, _, fault = load(put(tmp_path / "a.wav", head + len(data).to_bytes(4, "little") + data))
        expected = decode(subtype, data)
        if expected is None:
            assert "not finite" in fault or "full scale" in fault
        elif expected.min() == expected.max():
            assert "silence" in fault
        else:
            assert np.abs(wave.astype(int) - expected).max() <= 1       # of different precision
    values = st.floats(-2, 2) | st.floats() | st.sampled_from([1e38, -1e38, 3.5e38, 1e300, 1e-45, -0.0])
    run_cases(check, st.tuples(st.sampled_from(list(FLOATS)), st.lists(values, min_size=1, max_size=20)), CASES // 4)


@pytest.mark.parametrize("suffix", [*(kind.lower() for kind in soundfile.available_formats()), "RAW", "wav ", "x", ""])
def test_a_sound_may_have_any_name(tmp_path, suffix):
    """soundfile reads .raw as samples without a header, and needs their rate as an argument."""
    path = put(tmp_path / f"a.{suffix}", WAVS["PCM_16"])
    wave, _, fault = load(path)
    assert fault or np.array_equal(wave, load(put(tmp_path / "b.wav", WAVS["PCM_16"]))[0])
    assert not fault or suffix.lower() == "raw"
    load(put(path, b"this is no sound"))
    load(put(path, bytes(5000)))


@pytest.mark.parametrize("kind, subtype", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("WAV", "PCM_U8"), ("WAV", "GSM610")])
def test_a_small_file_of_a_long_sound_does_not_fill_the_memory(tmp_path, kind, subtype):
    """A compressed file of some kilobytes can contain hours of near-silence."""
    path = tmp_path / "a.wav"
    quiet = np.zeros(100_000, np.int16)
    quiet[5] = 9999
    with soundfile.SoundFile(path, "w", RATE, 1, subtype, format=kind) as file:
        for _ in range(200):
            for piece in np.split(quiet, 20):       # libsndfile's Vorbis encoder copies a block to the stack
                file.write(piece)
    _, _, fault, _ = outcome(path, load_clip, RemoveSilence(), seconds=10)
    assert not fault or "long" in fault


def test_every_damaged_clip_of_a_set_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(waveforms, "MARGIN", 1000)
    bad = {f"{number}.wav": content[:len(content) // 3] for number, content in enumerate(SOUNDS[:8])}
    paths = [put(tmp_path / name, content) for name, content in [*bad.items(), ("good.wav", WAVS["PCM_16"])]]
    clips = Clips("noisy", tmp_path / "t.csv", pd.Index([path.name for path in paths]), paths, np.ones((len(paths), 1)))
    with pytest.raises(TaggingError) as caught:
        open_store(clips, None, tmp_path / "cache")
    assert all(f"  {name}: " in str(caught.value) for name in bad) and "good.wav" not in str(caught.value)
    assert list(open_store(clips, None, tmp_path / "cache", skip_bad=True)[0].fnames) == ["good.wav"]


# --- the network ---

class ReachedError(Exception):
    """The network was used."""


def test_nothing_is_fetched_from_a_network(workshop, monkeypatch):
    requests, connect = [], socket.socket.connect

    def refuse(*address):
        requests.append(address)
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
    requests.clear()
    assert workshop.train("train_noisy.py", "r", *TINY).code == 0
    assert workshop.predict("r", "--stage", "noisy", "--out", workshop.folder / "out.csv").code == 0
    assert not requests     # the error could have been caught
