"""MPEG audio (mp3 and mp2) is read to its last sample, and a file that is cut short is found."""
import io
import struct

import av
import numpy as np
import pytest
import soundfile
from sounds_of_formats import CHIRP, RATE, assert_whole, encode, encode_with_av, read, without_header

from tagging_lite.decoding.mpeg import parse_frame
from tagging_lite.errors import SoundError


def count_with_av(content):
    """The number of samples that FFmpeg decodes."""
    with av.open(io.BytesIO(content)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000, 8000])
def test_an_mp3_without_a_header_is_read_to_its_end(tmp_path, mode, rate):
    quiet = np.concatenate([CHIRP // 2000, CHIRP])      # the bit rate of the first frames misleads
    content = encode(quiet, "MP3", "MPEG_LAYER_III", rate, bitrate_mode=mode)
    bare = without_header(content)
    wave, found_rate, _ = read(tmp_path, bare, "a.mp3")
    assert found_rate == rate and len(wave) == count_with_av(bare)
    assert_whole(wave, quiet, 5000)


def test_a_header_with_the_right_length_gives_the_samples_of_libsndfile(tmp_path):
    content = encode(kind="MP3", subtype="MPEG_LAYER_III")
    (tmp_path / "b.mp3").write_bytes(content)
    expected = np.round(np.clip(soundfile.read(tmp_path / "b.mp3", dtype="float32")[0], -1, 32767 / 32768) * 32768)
    assert np.array_equal(read(tmp_path, content, "a.mp3")[0], expected) and len(expected) == len(CHIRP)


def id3(size):
    body = b"APIC" + struct.pack(">I", size) + b"\0\0" + bytes(range(256)) * (size // 256)
    return b"ID3\3\0\0" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


@pytest.mark.parametrize("change", [
    lambda bare: id3(51_200) + bare,                            # cover art
    lambda bare: bare + b"TAG" + bytes(125),                    # ID3v1
    lambda bare: bare[:40_000 // 417 * 417],
    lambda bare: bare[700:-300],                                # a part of a stream
    lambda bare: b"garbage" * 50 + bare,
    lambda bare: b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 0x55, 1, RATE, 8000, 1, 0) + b"data"
    + struct.pack("<I", len(bare)) + bare])                     # mp3 inside wav
def test_mp3_in_any_wrapping_is_read(tmp_path, change):
    bare = without_header(encode(kind="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=0.9))
    whole = len(read(tmp_path, bare, "a.mp3")[0])
    content = change(bare)
    wave, _, _ = read(tmp_path, content, "b.mp3")
    lost = max(0, len(bare) - len(content)) / parse_frame(bare, 0).length
    assert whole - (lost + 2) * 1152 <= len(wave) <= whole


def test_mp3_files_that_are_joined_are_read_to_the_end_of_the_last(tmp_path):
    content = encode(kind="MP3", subtype="MPEG_LAYER_III")
    wave, _, _ = read(tmp_path, content + content, "a.mp3")
    assert 2 * len(CHIRP) <= len(wave) <= 2 * len(CHIRP) + 2 * 2304
    with pytest.raises(SoundError, match="its sample rate or format changes after"):
        read(tmp_path, content + encode(kind="MP3", subtype="MPEG_LAYER_III", rate=22_050), "a.mp3")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.99])
def test_an_mp3_that_is_cut_short_is_found_by_its_header(tmp_path, keep):
    content = encode(kind="MP3", subtype="MPEG_LAYER_III")
    with pytest.raises(SoundError, match=r"cut short: \d+ of \d+ MPEG frames are missing"):
        read(tmp_path, content[:int(keep * len(content))], "a.mp3")


@pytest.mark.parametrize("start", [0, 97, 400])
def test_mp2_is_read_to_its_end(tmp_path, start):
    content = encode_with_av(tmp_path, "mp2", "mp2")[start:]
    wave, _, _ = read(tmp_path, content, "a.mp2")
    assert_whole(wave, CHIRP[1152:] if start else CHIRP)
    assert len(wave) == (1152 * 77 if start == 0 else 1152 * 76)


def test_a_file_of_macos_beside_an_mp3_is_not_taken_for_a_part_of_it(tmp_path):
    bare = without_header(encode(kind="MP3", subtype="MPEG_LAYER_III"))
    (tmp_path / "._a.mp3").write_bytes(bytes(4096))
    assert len(read(tmp_path, bare, "a.mp3")[0]) >= len(CHIRP)
