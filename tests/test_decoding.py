"""Every format that people have is read to its last sample, and a file that is cut short is found."""
import io
import os
import struct
import sys

import av
import numpy as np
import pytest
import soundfile
from clips import noise

from tagging_lite.audio import load_clip, read_mono
from tagging_lite.decoding import ffmpeg
from tagging_lite.decoding.chunks import UNSURE
from tagging_lite.decoding.mpeg import parse_frame
from tagging_lite.decoding.ogg_flac import NO_END
from tagging_lite.errors import SoundError

RATE = 44_100
CHIRP = np.round(12_000 * np.sin(np.cumsum(np.linspace(0.02, 0.6, 2 * RATE)))).astype(np.int16)      # 2 s


def encode(samples=CHIRP, kind="WAV", subtype="PCM_16", rate=RATE, **options):
    with soundfile.SoundFile(content := io.BytesIO(), "w", rate, 1, subtype, format=kind, **options) as file:
        for piece in np.array_split(samples, 20):       # libsndfile's Vorbis encoder copies a block to the stack
            file.write(piece)
    return content.getvalue()


def encode_with_av(path, kind, codec, rate=RATE, tracks=1, **options):
    """Encode the chirp with FFmpeg, and return the content of the file."""
    with av.open(str(path / "encoded"), "w", format=kind, options=options) as container:
        streams = [container.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        for stream in streams:
            if codec in ("wavpack", "tta", "wmav2"):
                stream.codec_context.format = {"wavpack": "s16p", "tta": "s16", "wmav2": "fltp"}[codec]
                stream.bit_rate = 96_000
            frame = av.AudioFrame.from_ndarray(CHIRP[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    return (path / "encoded").read_bytes()


def count_with_av(content):
    """The number of samples that FFmpeg decodes."""
    with av.open(io.BytesIO(content)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


def read(tmp_path, content, name="a.wav"):
    """Return (samples,) int16, Hz and remarks of a file. A fault is raised."""
    (tmp_path / name).write_bytes(content)
    wave, rate, fault, notes = load_clip(tmp_path / name, None)
    if fault:
        raise SoundError(fault)
    return wave, rate, notes


def assert_whole(found, original=CHIRP, padding=2500, rate_ratio=1.0):
    """`found` must contain all of `original`, but for up to `padding` samples that a codec adds."""
    assert 0 <= len(found) - len(original) * rate_ratio <= padding, f"{len(found)} samples for {len(original)}"
    size = 2 ** (len(found) - 1).bit_length() * 2
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(original, size)))
    shift = int(product.argmax())
    assert shift <= padding
    part = found[shift:shift + len(original)].astype(float)
    original = original[:len(part)]
    assert np.corrcoef(part, original)[0, 1] > 0.99 and len(part) > 0.95 * len(original)


# ---------------------------------------------------------------------------------------------- mp3

def without_header(content):
    """Remove the frame with the Xing header."""
    start = content.index(b"\xff")
    assert b"Xing" in content[start:start + 200] or b"Info" in content[start:start + 200]
    return content[start + parse_frame(content, start).length:]


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


# ---------------------------------------------------------------------------------------------- WAV and its relatives

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


# ---------------------------------------------------------------------------------------------- floating-point samples

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


# ---------------------------------------------------------------------------------------------- FLAC and Ogg

def flac_from_pipe(content):
    """Remove the length from the header of a FLAC file."""
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


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


# ---------------------------------------------------------------------------------------------- PyAV

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


# ---------------------------------------------------------------------------------------------- names, rates, silence

def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    with open(path, "wb") as file:
        file.write(encode())
    assert np.array_equal(np.concatenate(list(read_mono(path, RATE))), CHIRP)


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
