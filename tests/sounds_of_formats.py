"""The same two seconds of sound in many formats, for the tests of what decodes them."""
import io

import av
import numpy as np
import soundfile

from tagging_lite.audio import load_clip
from tagging_lite.decoding.mpeg import parse_frame
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


def flac_from_pipe(content):
    """Remove the length from the header of a FLAC file."""
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


def without_header(content):
    """Remove the frame with the Xing header."""
    start = content.index(b"\xff")
    assert b"Xing" in content[start:start + 200] or b"Info" in content[start:start + 200]
    return content[start + parse_frame(content, start).length:]
