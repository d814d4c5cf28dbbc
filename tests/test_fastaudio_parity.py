"""tools.fastaudio_parity, with an imitation of fastaudio in numpy, librosa and scipy in place of fastaudio itself."""
import hashlib
import sys
from math import gcd

import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from clips import PARITY, STORED
from scipy.signal import resample_poly

from tagging.data import waveforms
from tagging.errors import TaggingError
from tools.fastaudio_parity import __main__ as parity
from tools.fastaudio_parity.arrays import read_arrays, write_arrays
from tools.fastaudio_parity.compare import MASK_WIDTHS, Row, compare
from tools.fastaudio_parity.resampling import compare_resampling
from tools.fastaudio_parity.sounds import Sound, band_noise, made_sounds, noise_sounds, read_sounds, recording

RATE = 16_000
SIZE = 2 * RATE


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def log_mel(crop, top_db):
    power = librosa.feature.melspectrogram(y=crop.astype(float), sr=RATE, n_fft=928, win_length=372, hop_length=251,
                                           n_mels=128, fmin=20, fmax=8000, htk=True, norm=None, pad_mode="reflect")
    return librosa.power_to_db(power, amin=1e-10, top_db=top_db).astype(np.float32)


def masked(image, axis, start, width):
    result = np.moveaxis(image.copy(), axis, 0)
    result[start:start + width] = image.mean()
    return np.moveaxis(result, 0, axis)


def imitate(sound):
    """What reference.py computes of a sound of RATE with silent ends."""
    wave = (sound.wave / 32768).astype(np.float32)
    hop = RATE // 50
    loud = librosa.effects.split(wave, top_db=20, hop_length=hop)
    bounds = np.array([max(0, loud[0, 0] - hop), min(len(wave), loud[-1, 1] + hop)])
    kept = wave[slice(*bounds)]
    room = abs(len(kept) - SIZE)

    def crop(drawn):
        if len(kept) < SIZE:
            return np.pad(kept, (drawn, room - drawn))
        return kept[drawn:drawn + SIZE]
    found = {"decoded": wave, "trim": bounds, "trim_const": bounds + 5}
    for place, drawn in (("first", 0), ("middle", room // 2), ("last", room)):
        found |= {f"crop_{place}": crop(drawn), f"crop_{place}_draw": np.array([0, room, drawn])}
    found |= {f"logmel_{top_db}": log_mel(crop(0), top_db) for top_db in (60, 30)}
    image = found["logmel_60"]
    for width in MASK_WIDTHS:
        for place, start in (("first", 0), ("middle", (128 - width) // 2), ("last", 128 - width)):
            for key, axis in (("time", 1), ("freq", 0)):
                found[f"{key}_{width}_{place}"] = masked(image, axis, start, width)
                found[f"{key}_{width}_{place}_draw"] = np.array([0, 128 - width, start])
    found["masks"] = np.array([[50, image.mean()], [7, masked(image, 1, 50, 8).mean()]])
    found["chain"] = masked(masked(log_mel(crop(room // 3), 60), 1, 100, 8), 0, 0, 8)
    found["chain_draws"] = np.array([room // 3, 100, 0])
    return found | imitate_resampling(sound)


def imitate_resampling(sound):
    wave, found = (sound.wave / 32768).astype(np.float32), {}
    for new in sound.new_rates:
        common = gcd(sound.rate, new)
        found[f"fastaudio_{new}"] = resample_poly(wave, new // common, sound.rate // common)
        found[f"torchaudio_{new}"] = torchaudio.functional.resample(torch.from_numpy(wave), sound.rate, new).numpy()
    return found


@pytest.fixture
def sounds():
    """A sound that is longer than a crop, and a shorter one, with silent ends."""
    silence = np.zeros(5000, np.int16)
    return [Sound(f"{samples}", np.concatenate([silence, noise(samples), silence]), RATE, ())
            for samples in (20_000, 40_000)]


@pytest.fixture
def written(sounds, tmp_path, monkeypatch):
    """The sounds as files."""
    monkeypatch.setattr(waveforms, "MARGIN", 50_000)        # the real one would write 16 MB
    parity.write_sounds(sounds, tmp_path)
    return sounds, [imitate(sound) for sound in sounds], tmp_path


def test_what_is_equal_is_within_all_tolerances(written):
    rows = compare(*written)
    assert len(rows) == 10 and all(row.differences.keys() == {"40000", "20000"} for row in rows)
    assert [row.transform for row in rows if row.exceeded] == []
    assert next(row for row in rows if row.tolerance is None).differences == {"40000": 5, "20000": 5}


@pytest.mark.parametrize("key, wrong, transform", [
    ("decoded", lambda array: array + 2**-15, "AudioTensor"),
    ("trim", lambda array: array + np.array([0, 1]), "RemoveSilence, ends padded by reflection"),
    ("crop_last", lambda array: np.roll(array, 1), "crops"),
    ("crop_last_draw", lambda array: array - 1, "first and last start"),
    ("logmel_60", lambda array: array + 0.006, "top_db 60"),
    ("logmel_30", lambda array: array[:, :-1], "top_db 30"),
    ("time_8_last", lambda array: np.roll(array, 1, 1), "MaskTime"),
    ("freq_64_middle", lambda array: array + 2e-4, "MaskFreq"),
    ("freq_1_first", lambda array: array * np.nan, "MaskFreq"),
    ("chain", lambda array: array[::-1], "batch"),
    ("chain_draws", lambda array: array + np.array([0, 1, 0]), "batch"),
])
@pytest.mark.parametrize("number", [0, 1])
def test_what_differs_exceeds_its_tolerance(written, key, wrong, transform, number):
    sounds, references, folder = written
    references[number][key] = wrong(references[number][key])
    exceeded = [row for row in compare(sounds, references, folder) if row.exceeded]
    assert any(transform in row.transform for row in exceeded)
    assert all(max(row.differences, key=row.differences.get) == sounds[number].name for row in exceeded)


def test_noise_is_resampled_as_fastaudio_does_and_better():
    chosen = noise_sounds()[:2]
    rows = {row.transform: row for row in compare_resampling(chosen, list(map(imitate_resampling, chosen)))}
    assert len(rows) == 6 and not any(row.exceeded for row in rows.values())
    worst = {name.split(", ")[-1]: max(row.differences.values()) for name, row in rows.items()}
    assert worst["ours - exact"] < -70 < worst["fastaudio's - exact"] < -30 < worst["torchaudio's - exact"]


@pytest.mark.parametrize("wrong", [lambda wave: np.roll(wave, 1), lambda wave: wave * 1.13, lambda wave: wave[:-2]])
def test_other_resampling_exceeds_its_tolerance(wrong):
    sound = noise_sounds()[0]
    reference = {key: wrong(wave) for key, wave in imitate_resampling(sound).items()}
    row = compare_resampling([sound], [reference])[0]
    assert row.transform == "Resample, noise, ours - fastaudio's" and row.exceeded


@pytest.mark.parametrize("old, new", [(44_100, 16_000), (22_050, 44_100)])
def test_noise_fills_its_band_and_is_the_same_at_both_rates(old, new):
    before, after = band_noise(old, new)
    limit = round(0.45 * min(old, new))
    for wave, rate in ((before, old), (after, new)):
        level = np.abs(np.fft.rfft(wave))[::5] / rate                       # by Hz
        assert level[1:limit].min() >= 0 and level[1:limit].mean() > 1e-4 and level[limit + 1:].max() < 1e-12
    step = gcd(old, new)
    np.testing.assert_allclose(before[::old // step], after[::new // step], atol=1e-9)     # at the same times


def test_recordings_have_no_tolerance():
    sound = recording("a", noise(4000), 8000)
    rows = compare_resampling([sound], [imitate_resampling(sound)])
    assert sound.new_rates == (16_000, 44_100) and len(rows) == 3 and not any(row.exceeded for row in rows)


def test_nothing_measured_is_an_error():
    assert Row("a", "dB", 1.0).exceeded and Row("a", "dB", 1.0, {"x": np.nan}).exceeded
    assert not Row("a", "dB", 1.0, {"x": 1.0}).exceeded and not Row("a", "dB", None, {"x": 9.0}).exceeded


# ---------------------------------------------------------------------------------------------- the file of the tests

def test_the_file_that_is_written_is_the_one_that_is_read(tmp_path):
    some = {name: STORED[name] for name in ("00", "03")}
    for name in ("a.npz", "b.npz"):
        write_arrays(tmp_path / name, some, {"torch": "2.6.0"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_arrays(tmp_path / "a.npz")
    assert list(again) == list(some)
    for name, clip in some.items():
        assert np.array_equal(again[name].wave, clip.wave) and again[name].trim == clip.trim
        assert np.array_equal(again[name].logmel, clip.logmel) and np.array_equal(again[name].masks, clip.masks)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(PARITY.read_bytes()[:-100]),
                                    lambda path: path.write_text("no arrays"),
                                    lambda path: np.savez(path, b_wave=np.zeros((2, 5), np.uint8)),
                                    lambda path: np.savez(path, other=1), lambda path: path.mkdir()])
def test_a_damaged_file_of_arrays_is_an_error(tmp_path, damage):
    damage(tmp_path / "a.npz")
    with pytest.raises(TaggingError, match=r"a\.npz.*from the repository again"):
        read_arrays(tmp_path / "a.npz")


# ---------------------------------------------------------------------------------------------- the command line

@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the tool with the given words. Its environment is an interpreter that only prints an error."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho 'ImportError: no fastaudio here' >&2\nexit 1\n")
    python.chmod(0o755)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["parity", "--python", str(python), *map(str, words)])
        code = 0
        try:
            parity.main()
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().out
    return run


@pytest.fixture
def imitated(sounds, call, tmp_path, monkeypatch):
    """The tool on its own copy of a file with the two sounds, with the imitation in place of fastaudio."""
    monkeypatch.setattr(waveforms, "MARGIN", 50_000)
    monkeypatch.setattr(parity, "RATE", RATE)
    monkeypatch.setattr(parity, "made_sounds", list)
    monkeypatch.setattr(parity, "noise_sounds", list)
    references = [imitate(recording(sound.name, sound.wave, RATE)) for sound in sounds]
    monkeypatch.setattr(parity, "run_reference", lambda python, count, scratch: (references[:count], {"torch": "2.6"}))
    path = tmp_path / "arrays.npz"
    write_arrays(path, {sound.name: parity.stored_clip(sound, theirs) for sound, theirs in zip(sounds, references)}, {})
    return lambda *words: call("--arrays", path, *words), path, references


def test_the_arrays_are_written_if_all_is_well(imitated):
    run, path, _ = imitated
    code, out = run()
    before = path.read_bytes()
    assert code == 0 and "| stored log-mel" in out and "2 sounds; torch 2.6" in out and "written" not in out
    code, out = run("--write")
    assert code == 0 and out.endswith("arrays.npz is written.\n") and path.read_bytes() != before      # the versions
    assert run("--write")[1].endswith("arrays.npz is written, with the same bytes.\n")


def test_a_difference_is_named_and_nothing_is_written(imitated):
    run, path, references = imitated
    references[0]["trim"] = references[0]["trim"] + 1
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    code, out = run("--write")
    assert code == 1 and (
        "Above the tolerance (2 of 16 rows): RemoveSilence, ends padded by reflection; stored bounds" in out)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_the_error_of_the_other_environment_is_shown(call):
    with pytest.raises(TaggingError, match=r"(?s)python: ImportError: no fastaudio here.*make fastaudio-parity"):
        call("--arrays", PARITY)


@pytest.mark.parametrize("words, message", [
    (["--python", "nowhere/python"], r"nowhere/python does not exist.*make fastaudio-parity"),
    (["--arrays", "nowhere.npz"], r"nowhere\.npz does not exist.*--clips"),
    (["--clips", "nowhere"], "nowhere does not exist"),
    (["--clips", "a.wav", "--write"], "--write .*--clips"),
])
def test_options_that_cannot_be_used(call, words, message):
    with pytest.raises(TaggingError, match=message):
        call(*words)


def test_own_clips_are_mixed_to_one_channel_at_their_own_rate(tmp_path):
    stereo = np.stack([noise(900), noise(900, 1)], 1)
    soundfile.write(tmp_path / "a.flac", stereo, 8000)
    soundfile.write(tmp_path / "b.wav", noise(800), 48_000)
    one, other = read_sounds((tmp_path,))
    assert np.abs(one.wave - stereo.mean(1)).max() <= 0.5 and one.rate == 8000
    assert np.array_equal(other.wave, noise(800)) and other.new_rates == (16_000, 44_100)


def test_all_own_clips_that_cannot_be_used_are_listed(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(900), 8000)
    (tmp_path / "b.wav").write_text("no sound")
    soundfile.write(tmp_path / "c.wav", noise(900), 8000)
    with pytest.raises(TaggingError, match=r"(?s)2 of 3 clips.*a\.wav: all silence.*b\.wav: .*--clips"):
        read_sounds((tmp_path,))


def test_the_made_sounds_have_different_names_and_can_be_used():
    sounds = [*made_sounds(), *noise_sounds()]
    assert len({sound.name for sound in sounds}) == len(sounds) == 16
    assert all(sound.wave.dtype == np.int16 and sound.wave.min() < sound.wave.max() for sound in sounds)
