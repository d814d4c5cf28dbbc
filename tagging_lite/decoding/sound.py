"""Open a sound file of any format, and decode it to 16-bit samples.

libsndfile decodes. Where it would take a wrong header for the truth, it gets the file with a corrected one: see
`chunks` (WAV and its relatives), `mpeg`, `ogg` and `flac`. PyAV, if it is installed, reads the formats that libsndfile
does not know: see `ffmpeg`.
"""
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile

from tagging_lite.decoding.chunks import find_samples
from tagging_lite.decoding.containers import is_container
from tagging_lite.decoding.ffmpeg import open_with_ffmpeg
from tagging_lite.decoding.flac import flac_streams, is_flac
from tagging_lite.decoding.mpeg import MpegStream, check_stream, correct_length, read_stream, starts_as_mpeg
from tagging_lite.decoding.ogg import ogg_streams
from tagging_lite.decoding.sndfile import SndfileSound
from tagging_lite.decoding.views import Data, View, map_file, skip_id3
from tagging_lite.errors import SoundError

RATES = 1_000, 400_000  # lowest and highest sample rate, Hz
LOUDEST = 16            # a mix of floating-point samples can get beyond full scale, but not beyond this
WHOLE = {2.0**15: 16, 2.0**23: 24, 2.0**31: 32}     # full scale of integers, and their bits
DELAY = 529             # samples
RESERVOIR = 12          # MPEG frames at the start of a cut stream that can need earlier ones, which are missing
# libsndfile's formats whose length is checked.
CHECKED = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"}
UNCHECKED = "its format is rare, and whether it is complete was not checked"
CLIPPED = "some samples were above full scale and were clipped"


class Sound(Protocol):
    """An open sound file."""
    samplerate: int         # Hz
    channels: int
    frames: int | None      # samples of each channel, None if the length is not known before the end
    floats: bool            # whether the file contains floating-point samples, which can be beyond full scale
    subtype: str            # how the samples are coded
    notes: list[str]        # remarks for the user, complete when the sound is decoded

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the file from its start: (samples, channels) int16 or float32."""


@contextmanager
def open_sound(path: Path) -> Iterator[Sound]:
    """Open a sound file and check its header.

    Raises:
        SoundError: the file cannot be used. Errors within the `with` block are included.
    """
    path = Path(path)
    with ExitStack() as stack:
        try:
            if path.is_symlink() and not path.exists():
                raise SoundError("a link to a file that does not exist")
            if not stat.S_ISREG(path.stat().st_mode):       # reading from a pipe could wait forever
                raise SoundError("not a regular file")
            file = stack.enter_context(open(path, "rb"))
            data = stack.enter_context(map_file(file))
            if not len(data):
                raise SoundError("0 bytes")
            sound = find_decoder(file, data, stack)
            if not RATES[0] <= sound.samplerate <= RATES[1]:
                raise SoundError(f"a sample rate of {sound.samplerate} Hz, but it must be from {RATES[0]} to "
                                 f"{RATES[1]} Hz")
            yield sound
        except soundfile.LibsndfileError as error:
            raise SoundError(f"unreadable ({error.error_string})") from error
        except (soundfile.SoundFileError, OSError, ValueError) as error:
            raise SoundError(f"unreadable ({error})") from error


def find_decoder(file: BinaryIO, data: Data, stack: ExitStack) -> Sound:
    """Choose what decodes a file.

    Args:
        data: the content of the file.
        stack: closes what is opened.
    Raises:
        SoundError: the file is cut short or damaged, or has a format that nothing decodes.
        soundfile.LibsndfileError: as `SoundError`.
    """
    # Not the name: libsndfile would take its suffix for the format, and try a file ._name beside it.
    whole = file.name if os.name == "nt" else file.fileno()
    if starts_as_mpeg(data):
        return open_mpeg(data, read_stream(data), stack, whole)
    views: list[View] = []
    notes: list[str] = []
    limit: int | None = None
    samples = find_samples(data)
    if samples and samples.mpeg:
        content = data[samples.start:samples.start + samples.size]
        return open_mpeg(content, read_stream(content), stack)
    if samples:
        views, notes, limit = [samples.view] if samples.view else [], samples.notes, samples.limit
    elif is_flac(data):
        views = flac_streams(data)
    elif data[:4] == b"OggS":
        views, notes = ogg_streams(data)
    parts: list[tuple[str | int | View, int | None]] = [(stack.enter_context(view), limit) for view in views]
    try:
        sound = SndfileSound(stack, parts or [(whole, limit)], notes)
    except soundfile.LibsndfileError as error:
        # MPEG audio can follow something else, but it can also be a part of a container.
        if not (samples or is_container(data)) and (stream := read_stream(data)):
            return open_mpeg(data, stream, stack)
        return stack.enter_context(open_with_ffmpeg(data, error.error_string, notes))
    start = skip_id3(data)
    if sound.format == "MP3" and not any(name in data[start:start + 200] for name in (b"Xing", b"Info")):
        # libsndfile estimates the length, and stops there.
        raise SoundError("MPEG audio of free format without a header, whose length cannot be told. Convert it, for "
                         "example with `lame --decode`")
    if sound.format not in CHECKED:
        sound.notes.append(UNCHECKED)
    return sound


def open_mpeg(data: Data, stream: MpegStream | None, stack: ExitStack, whole: str | int | None = None) -> Sound:
    """Open MPEG audio with its true length, which libsndfile takes from a header or estimates.

    Args:
        stream: of `data`.
        whole: name or descriptor of the file if it is nothing but MPEG audio.
    Raises:
        SoundError: it is cut short, or its sample rate changes.
        soundfile.LibsndfileError: libsndfile does not read it.
    """
    if stream is None or not stream.runs:
        raise SoundError("unreadable (no MPEG frames)")
    notes, view = check_stream(data, stream), correct_length(data, stream)
    if view is None and whole is not None:
        with suppress(soundfile.LibsndfileError):       # it does not know all kinds of tags
            return SndfileSound(stack, [(whole, None)], notes, RESERVOIR * stream.samples)
    content = stack.enter_context(View(*(memoryview(data)[start:stop] for start, stop in stream.runs)))
    if view is None:
        return SndfileSound(stack, [(content, None)], notes, RESERVOIR * stream.samples)
    stack.enter_context(view)
    parts: list[tuple[str | int | View, int | None]] = [(view, None)]
    if stream.layer != 3:
        parts = [(view, stream.frames * stream.samples)]
    elif stream.xing_at is None:
        # After a header without the delay of the encoder, libmpg123 drops the first samples, its own delay.
        parts.insert(0, (content, DELAY))
    return SndfileSound(stack, parts, notes, RESERVOIR * stream.samples)


def decode(sound: Sound) -> Iterator[np.ndarray]:
    """Decode a sound in blocks, because a file can contain more samples than fit into the memory.

    Floating-point samples beyond full scale are scaled, see `find_scale`. Samples that only the decoder of a compressed
    format brings beyond full scale are clipped. `sound.notes` tells both.

    Yields:
        (samples, channels) int16.
    Raises:
        SoundError: the file is cut short, or its samples have no clear meaning.
    """
    scale, clipped = find_scale(sound) if sound.floats else 1.0, False
    for block in sound.blocks():
        if block.dtype != np.int16:
            check_finite(block)
            block = block / np.float32(scale)
            clipped |= bool(np.abs(block).max(initial=0) > 1)
            block = np.round(np.clip(block, -1, 32767 / 32768) * 32768).astype(np.int16)
        yield block
    if clipped:
        sound.notes.append(CLIPPED)


def check_finite(block: np.ndarray) -> None:
    """
    Raises:
        SoundError: some samples are infinite or not a number.
    """
    if not np.isfinite(block).all():
        raise SoundError("some samples are not finite numbers")


def find_scale(sound: Sound) -> float:
    """Return what the floating-point samples of a sound must be divided by, and add a note if it is not 1.

    1 if no sample is beyond full scale. The full scale of 16, 24 or 32 bits if all samples are whole numbers, or most
    are beyond 1 and some beyond 16, which is louder than a mix gets. The peak if it is at most 16.

    Raises:
        SoundError: a few samples are far beyond the others, or some are not finite or beyond 32 bits.
    """
    peak, whole, beyond, inside = 0.0, True, 0, 0
    for block in sound.blocks():
        check_finite(block)
        size = np.abs(block)
        peak = max(peak, float(size.max(initial=0)))
        whole = whole and bool((size == np.round(size)).all())
        beyond += int(np.count_nonzero(size > 1))
        inside += int(np.count_nonzero((size > 0) & (size <= 1)))
    if peak <= 1:
        return 1.0
    scale = next((each for each in WHOLE if peak <= each), None)
    if scale and (whole or (peak > LOUDEST and beyond > inside)):
        sound.notes.append(f"its floating-point samples are in the range of {WHOLE[scale]}-bit integers, so all were "
                           f"divided by {scale:.0f}")
        return scale
    if peak > LOUDEST:
        raise SoundError(f"some floating-point samples reach {peak:.3g}, where full scale is 1; correct or scale them")
    sound.notes.append("its floating-point samples exceed full scale, so all were divided by the greatest")
    return peak
