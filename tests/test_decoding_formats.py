"""FLAC, Ogg and the formats of phones and browsers are read to their last sample, and what is no sound is refused."""
import io
import os
import sys

import av
import numpy as np
import pytest
from clips import noise
from sounds_of_formats import CHIRP, RATE, assert_whole, encode, encode_with_av, flac_from_pipe, read

from tagging_lite.audio import read_mono
from tagging_lite.decoding import ffmpeg
from tagging_lite.decoding.ogg import NO_END
from tagging_lite.errors import SoundError

# --- FLAC and Ogg ---

@pytest.mark.parametrize("samples", [len(CHIRP), 4096, 4097, 1000, 300, 10])
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125)])
def test_flac_of_unknown_length_is_read_to_its_end(tmp_path, samples, tail):
    content = flac_from_pipe(encode(CHIRP[:samples], "FLAC")) + tail
    assert np.array_equal(read(tmp_path, content)[0], CHIRP[:samples])


def test_flac_of_unknown_length_that_is_cut_short_is_found(tmp_path):
    content = flac_from_pipe(encode(kind="FLAC"))
    for missing in (1, 100, len(content) // 2):
        with pytest.raises(SoundError, match="cut short: its last FLAC frame is incomplete"):
            read(tmp_path, content[:-missing])


@pytest.mark.parametrize("kind, subtype", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")])
def test_streams_that_follow_each_other_are_all_read(tmp_path, kind, subtype):
    rate = 48_000 if subtype == "OPUS" else RATE
    first, second = encode(CHIRP, kind, subtype, rate), encode(CHIRP[:30_000], kind, subtype, rate)
    parts = [read(tmp_path, content)[0] for content in (first, second, first)]
    wave, _, notes = read(tmp_path, first + second + first)
    assert np.array_equal(wave, np.concatenate(parts)) and not notes
    with pytest.raises(SoundError, match="its 2 streams differ in sample rate or channels; split it"):
        read(tmp_path, first + encode(CHIRP, kind, subtype, 24_000))


def test_an_ogg_file_that_is_cut_short_is_found(tmp_path):
    content = encode(noise(10 * RATE) // 4, "OGG", "VORBIS")
    with pytest.raises(SoundError, match="cut short: 77 bytes of its last page are missing"):
        read(tmp_path, content[:-77])
    pages = [place for place in range(len(content)) if content[place:place + 4] == b"OggS"]
    assert read(tmp_path, content[:pages[-1]])[2] == (NO_END,)


# --- what FFmpeg reads ---

@pytest.mark.parametrize("kind, codec, rate", [
    ("ipod", "aac", 44_100), ("mp4", "aac", 44_100), ("adts", "aac", 44_100), ("3gp", "aac", 44_100),
    ("webm", "libopus", 48_000), ("matroska", "flac", 44_100), ("asf", "wmav2", 44_100), ("ipod", "alac", 44_100),
    ("ogg", "flac", 44_100), ("mov", "pcm_s24le", 44_100), ("amr", "libopencore_amrnb", 8000),
    ("wv", "wavpack", 44_100), ("avi", "libmp3lame", 44_100), ("tta", "tta", 44_100)])
def test_formats_that_libsndfile_does_not_know_are_read_with_pyav(tmp_path, kind, codec, rate):
    wave, found, notes = read(tmp_path, encode_with_av(tmp_path, kind, codec, rate), "a.m4a")
    assert found == rate and not notes
    if kind == "amr":       # telephone quality
        assert 0 <= len(wave) - len(CHIRP) <= 400
    elif codec in ("flac", "alac", "wavpack", "tta", "pcm_s24le"):
        assert np.array_equal(wave, CHIRP)
    elif kind == "asf":     # FFmpeg's encoder of WMA drops the start
        assert abs(len(wave) - len(CHIRP)) < 2048
    else:
        assert_whole(wave, padding=4000)


def test_without_pyav_the_error_gives_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SoundError, match=r"unreadable \(Format not recognised.\).*`pip install av` reads"):
        read(tmp_path, encode_with_av(tmp_path, "ipod", "aac"), "a.m4a")
    assert len(read(tmp_path, encode())[0]) == len(CHIRP)


@pytest.mark.parametrize("kind, codec", [("ipod", "aac"), ("mov", "pcm_s16le"), ("wv", "wavpack"), ("asf", "wmav2")])
def test_a_container_that_is_cut_short_is_found(tmp_path, kind, codec):
    content = encode_with_av(tmp_path, kind, codec, movflags="faststart")
    with pytest.raises(SoundError, match=r"cut short|unreadable"):
        read(tmp_path, content[:len(content) // 2], "a.m4a")


def test_a_second_track_is_mentioned_and_a_file_without_sound_is_refused(tmp_path):
    wave, _, notes = read(tmp_path, encode_with_av(tmp_path, "matroska", "flac", tracks=2))
    assert len(wave) == len(CHIRP) and notes == ("it has 2 sound tracks, and the first was read",)
    content = io.BytesIO()
    with av.open(content, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(32, 32, "yuv420p")), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(SoundError, match="it has no sound track"):
        read(tmp_path, content.getvalue(), "a.mp4")


@pytest.mark.parametrize("text", [
    "#EXTM3U\n#EXTINF:2,\nother.wav\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile other.wav\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n", "other.wav\n", "no sound\n" * 99])
def test_a_text_is_no_sound_and_opens_no_other_file(tmp_path, monkeypatch, text):
    (tmp_path / "other.wav").write_bytes(encode())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SoundError, match="unreadable"):
        read(tmp_path, text.encode(), "a.wav")


def test_the_reader_of_other_formats_is_not_asked_about_damaged_known_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "open_with_ffmpeg", None)
    content = encode(kind="FLAC")
    with pytest.raises(SoundError):
        read(tmp_path, content[:len(content) // 2])


def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    with open(path, "wb") as file:
        file.write(encode())
    assert np.array_equal(np.concatenate(list(read_mono(path, RATE))), CHIRP)
