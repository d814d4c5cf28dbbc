"""Read the formats that libsndfile does not know, such as m4a, webm and wma, with PyAV, an optional dependency."""
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import BinaryIO

import numpy as np

from tagging_lite.errors import SoundError

# Containers that may be opened. Others fetch further files by name, or take any bytes for sound.
CONTAINERS = ("aac,ac3,aiff,amr,ape,asf,avi,caf,dsf,dts,eac3,flv,matroska,mov,mpc,mpc8,mpeg,mpegts,ogg,tak,tta,w64,wav,"
              "wv")
TRACK_TIMED = "mov,mp4,m4a,3gp,3g2,mj2", "wv", "tta", "caf", "ape"      # containers that give the length of a track
FILE_TIMED = "matroska,webm", "asf", "avi"                              # and of the file
LAG = 0.1       # seconds that the sound may end before its container


class FFmpegSound:
    """The first sound track of a file. It is a `tagging_lite.decoding.sound.Sound`."""
    frames: int | None = None

    def __init__(self, container, error: type[Exception]):      # of PyAV, which is optional
        self.error = error
        tracks = [track for track in container.streams.audio if track.codec_context]      # of a known codec
        if not tracks:
            raise SoundError("it has no sound track")
        self.container, self.track = container, tracks[0]
        self.rest = container.decode(self.track)
        self.first = next(self.rest, None)      # the header of a container can give another rate
        if self.first is None:
            raise SoundError("no samples")
        self.samplerate, self.channels = self.first.sample_rate, len(self.first.layout.channels)
        self.subtype = self.track.codec_context.name.upper()
        self.floats = self.subtype.startswith("PCM_F")
        self.notes = [f"it has {len(tracks)} sound tracks, and the first was read"] if len(tracks) > 1 else []

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the track from its start: (samples, channels) float32.

        Raises:
            SoundError: the file is cut short or damaged.
        """
        count, end = 0, 0.0         # samples, and seconds on the clock of the container, which can have gaps
        try:
            if self.first is None:      # not the first time; seeking loses the first samples of some codecs
                self.container.seek(0)
                self.rest = self.container.decode(self.track)
            frames = self.rest if self.first is None else chain([self.first], self.rest)
            self.first = None
            for frame in frames:
                if (frame.sample_rate, len(frame.layout.channels)) != (self.samplerate, self.channels):
                    raise SoundError("its sample rate or number of channels changes on the way; split it")
                count += frame.samples
                start = end if frame.pts is None else float(frame.pts * frame.time_base)
                end = max(end, start + frame.samples / self.samplerate)
                yield full_scale_at_1(frame)
        except self.error as error:
            raise SoundError(f"damaged or cut short after {count / self.samplerate:.2f} seconds "
                             f"({explain(error)})") from error
        missing = self.end() - end
        if missing > LAG:
            raise SoundError(f"cut short: the last {missing:.2f} of {self.end():.2f} seconds are missing")

    def end(self) -> float:
        """Return the end of the track in seconds according to the container, 0 if it does not give it."""
        name, track = self.container.format.name, self.track
        if name in TRACK_TIMED and track.duration is not None:
            return float(((track.start_time or 0) + track.duration) * track.time_base)
        if name in FILE_TIMED and len(self.container.streams) == 1:     # a picture can be longer than the sound
            return ((self.container.start_time or 0) + (self.container.duration or 0)) / 1e6
        return 0


@contextmanager
def open_with_ffmpeg(file: BinaryIO, reason: str) -> Iterator[FFmpegSound]:
    """Open a file that libsndfile does not read.

    Args:
        reason: libsndfile's.
    Raises:
        SoundError: FFmpeg does not read it either, or PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise SoundError(f"unreadable ({reason}). If it is a sound of another format, such as m4a, webm or wma: "
                         "`pip install av` reads these too") from None
    file.seek(0)
    try:        # without a name, which could be a URL
        container = av.open(file, metadata_errors="ignore",
                            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "none"})
    except (av.FFmpegError, ValueError) as error:
        raise SoundError(f"unreadable (libsndfile: {reason} FFmpeg: {explain(error)})") from error
    with container:
        try:
            sound = FFmpegSound(container, av.FFmpegError)
        except (av.FFmpegError, ValueError) as error:
            raise SoundError(f"unreadable ({explain(error)})") from error
        yield sound


def explain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def full_scale_at_1(frame) -> np.ndarray:
    """Return a frame of PyAV as (samples, channels) float32 with full scale at 1."""
    samples = frame.to_ndarray()        # planar (channels, samples), packed (1, samples * channels)
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    scaled = samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (scaled - 128) / 128
    return scaled if samples.dtype.kind == "f" else scaled / -float(np.iinfo(samples.dtype).min)
