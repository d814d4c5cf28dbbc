"""WAV and its relatives are read to their last sample whatever size the header gives, and samples keep their level."""
import struct

import numpy as np
import pytest
import soundfile
from sounds_of_formats import CHIRP, RATE, encode, read

from tagging_lite.audio import read_mono
from tagging_lite.decoding.chunks import UNSURE
from tagging_lite.errors import SoundError

# --- sizes in headers ---

def with_size(content, kind, size):
    """Replace the size of the samples in the header, and what depends on it."""
    if kind in ("WAV", "WAVEX"):
        place = content.index(b"data") + 4
        return content[:4] + struct.pack("<I", (size + place - 4) % 2**32) + content[8:place] + struct.pack(
            "<I", size) + content[place + 4:]
    if kind == "RF64":
        place = content.index(b"ds64") + 8
        return content[:place] + struct.pack("<QQ", (size + 72) % 2**64, size) + content[place + 16:]
    if kind == "W64":
        place = content.index(b"data") + 16
        return content[:place] + struct.pack("<Q", size) + content[place + 8:]
    if kind == "AIFF":
        frames, place = content.index(b"COMM") + 10, content.index(b"SSND") + 4
        return (content[:frames] + struct.pack(">I", size // 2) + content[frames + 4:place] + struct.pack(">I", size)
                + content[place + 4:])
    if kind == "AU":
        return content[:8] + struct.pack(">I", size) + content[12:]
    place = content.index(b"data") + 4      # CAF
    return content[:place] + struct.pack(">Q", size) + content[place + 8:]


PLACEHOLDERS = [(kind, size) for kind in ("WAV", "WAVEX", "AIFF", "AU")
                for size in (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 2_000_000_000, 0xFFFFFFFF, 0xFFFFFFFF - 36)]
PLACEHOLDERS += [(kind, size) for kind in ("RF64", "W64", "CAF") for size in (0, 2**63 - 1, 2**64 - 1)]


@pytest.mark.parametrize("kind, size", PLACEHOLDERS)
def test_a_file_from_a_pipe_is_read_to_its_end(tmp_path, kind, size):
    content = with_size(encode(kind=kind), kind, size)
    wave, _, notes = read(tmp_path, content)
    assert np.array_equal(wave, CHIRP)
    assert notes == ((UNSURE,) if 2**30 < size <= 2**31 else ())        # a real file of 2 GB could be cut short


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_file_that_is_cut_short_is_found(tmp_path, kind, subtype):
    content = encode(CHIRP / 32768, kind, subtype)
    assert np.abs(read(tmp_path, content)[0].astype(int) - CHIRP).max() <= 1
    for missing in (4, 1001, len(content) // 2):
        with pytest.raises(SoundError, match=f"cut short: {missing} of {len(CHIRP)}|cut short: {missing} of "):
            read(tmp_path, content[:-missing])


def test_one_byte_too_many_in_the_header_loses_no_sample(tmp_path):
    for size in (2 * len(CHIRP) + 1, 2 * len(CHIRP) - 1):
        wave, _, _ = read(tmp_path, with_size(encode(), "WAV", size))
        assert len(CHIRP) - 1 <= len(wave) <= len(CHIRP) and np.array_equal(wave, CHIRP[:len(wave)])


@pytest.mark.parametrize("tail", [b"", b"LIST\4\0\0\0INFO", b"LIST\3\0\0\0INF\0", bytes(512), b"TAG" + bytes(125),
                                  b"id3 \4\0\0\0ID3\3", b"\n"])
def test_what_follows_the_samples_is_no_sound(tmp_path, tail):
    assert np.array_equal(read(tmp_path, encode() + tail)[0], CHIRP)


@pytest.mark.parametrize("content", [
    with_size(encode(), "WAV", 1000),               # a recorder that stopped, or more than 4 GB
    encode() + encode(),
    with_size(encode(kind="AU"), "AU", 1000)])
def test_samples_after_the_size_in_the_header_are_not_dropped(tmp_path, content):
    with pytest.raises(SoundError, match=r"damaged: its header counts \d+ bytes of samples, and \d+ bytes that are no"):
        read(tmp_path, content)


# --- levels of samples ---

@pytest.mark.parametrize("values, scale, remark", [
    ([0.0, 0.5, -1.0, 1.0], 1, None),
    ([0.0, 1.5, -1.2, 0.3], 1.5, "divided by the greatest"),
    ([0.0, 20_000.0, -3.0, 7.0], 2**15, "16-bit integers, so all were divided by 32768"),
    ([0.2, 20_000.5, -3.1, 7.5], 2**15, "16-bit integers, so all were divided by 32768"),
    ([0.0, 2.0, -3.0, 1.0], 2**15, "16-bit integers"),
    ([0.0, 40_000.0, -3.0, 7.0], 2**23, "24-bit integers, so all were divided by 8388608"),
    ([0.0, 2e9, -3.0, 7.0], 2**31, "32-bit integers")])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_beyond_full_scale_are_scaled_with_a_remark(tmp_path, values, scale, remark, subtype):
    values = np.tile(np.array(values), 300_000)       # more than a block
    wave, _, notes = read(tmp_path, encode(values, subtype=subtype))
    expected = np.clip(np.round(values / scale * 32768), -32768, 32767)
    assert np.abs(wave - expected).max() <= 1
    assert (not notes) if remark is None else (len(notes) == 1 and remark in notes[0])


@pytest.mark.parametrize("peak, message", [(25.0, "some floating-point samples reach 25"), (1e10, "reach 1e+10"),
                                           (np.inf, "not finite"), (np.nan, "not finite")])
def test_floats_without_a_clear_meaning_are_refused(tmp_path, peak, message):
    values = CHIRP / 32768
    values[1000] = peak
    with pytest.raises(SoundError) as caught:
        read(tmp_path, encode(values, subtype="FLOAT"))
    assert message in str(caught.value)


def test_a_decoder_that_gets_beyond_full_scale_is_clipped_with_a_remark(tmp_path):
    loud = np.where(np.sin(np.arange(RATE) / 30) > 0, 32_767, -32_768).astype(np.int16)
    wave, _, notes = read(tmp_path, encode(loud, "OGG", "VORBIS"))
    assert wave.max() == 32_767 and notes == ("some samples were above full scale and were clipped",)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_a_constant_signal_is_silent_at_any_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.full(20_000, 3000, np.int16), RATE)
    assert all(piece.min() == piece.max() == 3000 for piece in read_mono(tmp_path / "a.wav", rate))


def test_remarks_of_a_long_file_are_given_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tagging_lite.audio.LONGEST", 20_000)
    soundfile.write(tmp_path / "a.wav", np.tile([3.0, -2.5], 40_000), 8000, subtype="FLOAT")
    notes = []
    assert sum(map(len, read_mono(tmp_path / "a.wav", 8000, notes=notes))) == 80_000
    assert len(notes) == 1
