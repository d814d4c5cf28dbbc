"""Damage within a file is found or mentioned: lost pages, holes, joined files, and headers that count too little."""
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from clips import noise
from sounds_of_formats import CHIRP, RATE, encode, encode_with_av, flac_from_pipe, read, without_header

from tagging_lite.audio import load_clip, read_mono, resample
from tagging_lite.decoding.chunks import LEFT
from tagging_lite.decoding.ffmpeg import GAP
from tagging_lite.decoding.mpeg import CUT, DAMAGED, parse_frame
from tagging_lite.decoding.ogg import NO_END
from tagging_lite.decoding.sound import UNCHECKED
from tagging_lite.errors import SoundError

OGG = encode(noise(5 * RATE) // 4, "OGG", "VORBIS")
MP3 = encode(kind="MP3", subtype="MPEG_LAYER_III")


def pages(content):
    starts = [place for place in range(len(content)) if content[place:place + 4] == b"OggS"]
    return [content[start:stop] for start, stop in zip(starts, [*starts[1:], len(content)])]


@pytest.mark.parametrize("change, message", [
    (lambda parts: [*parts[:4], parts[4][:-9] + bytes(9), *parts[5:]], "the checksum of the page at byte"),
    (lambda parts: [*parts[:-1], parts[-1][:-3] + b"abc"], "the checksum of the page at byte"),
    (lambda parts: [*parts[:4], *parts[5:]], "a page is missing before byte"),
    (lambda parts: [*parts[:4], parts[4][:-30], *parts[5:]], "the checksum of the page at byte"),
    (lambda parts: [*parts, *parts[4:]], "a page is missing before byte"),         # a second stream without its start
    (lambda parts: [*parts[:4], parts[4][:-30], *parts], "the checksum of the page at byte")])
def test_damaged_and_missing_pages_are_found(tmp_path, change, message):
    assert read(tmp_path, b"".join(pages(OGG)))[0].size == 5 * RATE
    with pytest.raises(SoundError, match=message):
        read(tmp_path, b"".join(change(pages(OGG))))


def test_each_stream_without_an_end_is_mentioned(tmp_path):
    assert read(tmp_path, b"".join(pages(OGG)[:-1]) + OGG)[2] == (NO_END,)
    flac = pages(encode_with_av(tmp_path, "ogg", "flac"))
    assert read(tmp_path, b"".join(flac[:-1]))[2] == (NO_END,)     # also where PyAV decodes


def test_a_flac_header_that_counts_too_few_samples_is_found(tmp_path):
    content = encode(kind="FLAC")
    total = int.from_bytes(content[18:26], "big")
    with pytest.raises(SoundError, match=r"its header counts 87200 samples, and its frames have 88200"):
        read(tmp_path, content[:18] + (total - 1000).to_bytes(8, "big") + content[26:])


def test_many_streams_are_refused_in_little_time(tmp_path):
    begin = time.process_time()
    with pytest.raises(SoundError, match="it has 1000000 FLAC streams"):
        read(tmp_path, b"fLaC\0\0\0\x22" * 1_000_000)
    assert time.process_time() - begin < 5
    assert len(read(tmp_path, flac_from_pipe(encode(CHIRP, "FLAC")) * 3)[0]) == 3 * len(CHIRP)


def frames_of(content, start=0):
    place, found = start, []
    while place < len(content):
        length = parse_frame(content, place).length
        found.append(content[place:place + length])
        place += length
    return found


def test_damaged_bytes_and_a_cut_frame_of_mp3_are_mentioned(tmp_path):
    bare = without_header(encode(kind="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=0.9))
    whole, frames = read(tmp_path, bare, "a.mp3")[0], frames_of(bare)
    wave, _, notes = read(tmp_path, bare[:-50], "a.mp3")
    assert notes == (CUT,) and len(wave) == len(whole) - 1152
    wave, _, notes = read(tmp_path, b"".join([*frames[:20], bytes(5000), *frames[20:]]), "a.mp3")
    assert notes == (DAMAGED,) and len(wave) == len(whole)
    wave, _, notes = read(tmp_path, b"".join([*frames[:20], frames[20][:-30], *frames]), "a.mp3")
    assert notes == (DAMAGED,) and len(wave) >= len(whole) + 20 * 1152
    with pytest.raises(SoundError, match="cut short: 1 of"):       # the header counts the frame that is damaged
        damaged = frames_of(MP3)
        read(tmp_path, b"".join([*damaged[:9], bytes(len(damaged[9])), *damaged[10:]]), "a.mp3")


@pytest.mark.parametrize("tag, name", [
    (b"ID3\4\0\x10\0\0\3\x74" + bytes(500) + b"3DI\4\0\x10\0\0\3\x74", "a footer"),
    (b"APETAGEX\xd0\7\0\0" + struct.pack("<III", 100_032, 1, 0xA0000000) + bytes(8) + bytes(100_032), "APE in front")])
def test_unusual_tags_are_skipped(tmp_path, tag, name):
    bare = without_header(MP3)
    assert np.array_equal(read(tmp_path, tag + bare, "a.mp3")[0], read(tmp_path, bare, "b.mp3")[0]), name
    if tag[:3] == b"ID3":
        assert np.array_equal(read(tmp_path, tag + encode(kind="FLAC"))[0], CHIRP)


def test_a_vbri_header_counts_the_frames(tmp_path):
    frames = frames_of(without_header(MP3))
    for more, fault in ((0, ""), (500, "cut short")):
        head = bytearray(frames[0])
        head[4:] = bytes(len(head) - 4)
        head[36:54] = b"VBRI" + bytes(10) + struct.pack(">I", len(frames) + more)
        try:
            assert len(read(tmp_path, bytes(head) + b"".join(frames), "a.mp3")[0]) == 1152 * len(frames) and not fault
        except SoundError as error:
            assert fault and fault in str(error)


def test_chunks_after_samples_of_unknown_size_are_no_sound(tmp_path):
    chunk = b"iXML" + struct.pack("<I", 6000) + b"words " * 1000
    for size in (0, 0xFFFFFFFF):
        content = encode()
        content = content[:40] + struct.pack("<I", size) + content[44:] + chunk
        assert np.array_equal(read(tmp_path, content)[0], CHIRP)


@pytest.mark.parametrize("less", [2, 4, 6])
def test_a_few_bytes_after_the_samples_are_mentioned(tmp_path, less):
    content = encode()
    wave, _, notes = read(tmp_path, content[:40] + struct.pack("<I", 2 * len(CHIRP) - less) + content[44:])
    assert len(wave) == len(CHIRP) - less // 2 and notes == (LEFT,)


def test_w64_of_floats_is_no_noise(tmp_path):
    wave, _, _ = read(tmp_path, encode_with_av(tmp_path, "w64", "pcm_f32le"))
    assert np.abs(wave.astype(int) - CHIRP).max() <= 1


def test_a_little_endian_au_file_is_checked_too(tmp_path):
    content = b"dns." + struct.pack("<5I", 24, 2 * len(CHIRP), 3, RATE, 1) + CHIRP.tobytes()
    assert np.array_equal(read(tmp_path, content)[0], CHIRP)
    with pytest.raises(SoundError, match="cut short: 5001 of 176400 bytes"):
        read(tmp_path, content[:-5001])


def test_mp3_of_free_format_without_a_header_is_refused(tmp_path):
    """Its frames give no bit rate and cannot be counted. libsndfile would stop after a seventh of this sound."""
    bare = without_header(encode(kind="MP3", subtype="MPEG_LAYER_III", rate=48_000, bitrate_mode="CONSTANT"))
    frames = frames_of(bare)        # of equal length, because the rate needs no padding
    free = b"".join(frame[:2] + bytes([frame[2] & 0x0D]) + frame[3:] for frame in frames)
    with pytest.raises(SoundError, match="of free format without a header"):
        read(tmp_path, free, "a.mp3")


def test_a_rare_format_is_read_with_a_remark(tmp_path):
    wave, _, notes = read(tmp_path, encode(kind="NIST"))
    assert np.array_equal(wave, CHIRP) and notes == (UNCHECKED,)


@pytest.mark.parametrize("kind, codec, options", [
    ("ipod", "aac", {}), ("ipod", "aac", {"movflags": "faststart"}), ("mov", "pcm_s16le", {}), ("matroska", "flac", {}),
    ("webm", "libopus", {}), ("asf", "wmav2", {}), ("mp4", "libmp3lame", {}), ("avi", "libmp3lame", {})])
@pytest.mark.parametrize("missing", [37, 0.3, 0.7])
def test_a_container_that_is_cut_anywhere_is_found(tmp_path, kind, codec, options, missing):
    content = encode_with_av(tmp_path, kind, codec, 48_000 if codec == "libopus" else RATE, **options)
    read(tmp_path, content)
    with pytest.raises(SoundError, match=r"cut short: \d+ of \d+ bytes are missing"):
        read(tmp_path, content[:-missing if missing > 1 else int(missing * len(content))])


def test_joined_mp4_files_are_refused(tmp_path):
    content = encode_with_av(tmp_path, "ipod", "aac")
    with pytest.raises(SoundError, match=f"a second file follows after {len(content)} bytes; split it there"):
        read(tmp_path, content + content)


def test_a_hole_in_a_recording_of_unknown_size_is_mentioned(tmp_path):
    content = encode_with_av(tmp_path, "matroska", "flac", live="1", cluster_time_limit="200")
    assert read(tmp_path, content)[2] == ()
    clusters = [place for place in range(len(content)) if content[place:place + 4] == b"\x1f\x43\xb6\x75"]
    wave, _, notes = read(tmp_path, content[:clusters[3]] + content[clusters[6]:])
    assert notes == (GAP,) and 0 < len(wave) < len(CHIRP)


def test_an_id3_tag_behind_another_format_is_no_damage(tmp_path):
    assert np.array_equal(read(tmp_path, encode_with_av(tmp_path, "wv", "wavpack") + b"TAG" + bytes(125))[0], CHIRP)


def test_noise_that_looks_like_mpeg_is_left_to_the_decoder_of_its_format(tmp_path):
    content = encode_with_av(tmp_path, "amr", "libopencore_amrnb", 8000)
    header = b"\xff\xfb\x90\xc4"
    place = 6 + 32 * 20
    assert len(read(tmp_path, content[:place + 4] + header + content[place + 8:])[0]) >= len(CHIRP)


def test_gsm_in_wav_is_read_although_it_cannot_be_sought(tmp_path):
    assert len(read(tmp_path, encode(CHIRP[:8000], subtype="GSM610", rate=8000))[0]) >= 8000


def test_a_link_to_nothing_says_so(tmp_path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    assert load_clip(tmp_path / "a.wav", None).fault == "a link to a file that does not exist"


def test_faults_name_no_objects_and_descriptors(tmp_path):
    for content in (b"ID3" + bytes(99), b"\xff\xfb\x90\xc4" * 9, MP3[:30], OGG[:60], os.urandom(3000)):
        with pytest.raises(SoundError) as caught:
            read(tmp_path, content)
        assert "object at 0x" not in str(caught.value) and "opening" not in str(caught.value)


def test_pyav_prints_nothing_about_a_damaged_file(tmp_path):
    (tmp_path / "a.caf").write_bytes(encode_with_av(tmp_path, "caf", "alac")[:-100] + b"TAG" + bytes(125))
    program = f"from tagging_lite.audio import load_clip; load_clip({str(tmp_path / 'a.caf')!r}, None)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""


@pytest.mark.parametrize("rate", [32_000, 48_000])
def test_a_long_file_is_resampled_without_joints(tmp_path, monkeypatch, rate):
    monkeypatch.setattr("tagging_lite.audio.LONGEST", 40_000)
    monkeypatch.setattr("tagging_lite.decoding.sndfile.BLOCK", 7000)
    (tmp_path / "a.wav").write_bytes(encode(np.tile(CHIRP, 2)))
    pieces = list(read_mono(tmp_path / "a.wav", rate))
    expected = resample(np.tile(CHIRP, 2), RATE, rate)
    assert len(pieces) > 2 and len(pieces[0]) % rate == 0
    difference = np.abs(np.concatenate(pieces).astype(int) - expected)
    assert difference[1000:-1000].max() <= 1 and difference.max() < 20     # at the ends the constant shows
