"""Read the formats that libsndfile does not know, such as m4a, webm and wma, with PyAV, an optional dependency."""
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np

from tagging_lite.decoding.containers import check_container
from tagging_lite.decoding.views import Data, View
from tagging_lite.errors import SoundError

# Containers that may be opened. Others fetch further files by name, or take any bytes for sound.
CONTAINERS = ("aac,ac3,aiff,amr,ape,asf,avi,caf,dsf,dts,eac3,flv,matroska,mov,mpc,mpc8,mpeg,mpegts,ogg,tak,tta,w64,wav,"
              "wv")
TIMED = "mov,mp4,m4a,3gp,3g2,mj2", "wv", "tta", "caf", "ape"    # containers that give the length of a track
LAG = 0.05      # seconds that a track may be shorter than its length, and that the clock of a container may jump
GAP = "the clock of its container jumps, so a part may be missing"


class FFmpegSound:
    """The first sound track of a file. It is a `tagging_lite.decoding.sound.Sound`."""
    frames: int | None = None

    def __init__(self, container, error: type[Exception], notes: list[str]):        # of PyAV, which is optional
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
        self.notes = [*notes, *([f"it has {len(tracks)} sound tracks, and the first was read"] if tracks[1:] else [])]

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the track from its start: (samples, channels) float32.

        Raises:
            SoundError: the file is cut short or damaged.
        """
        count, end, gaps = 0, None, False       # samples, and seconds on the clock of the container
        try:
            if self.first is None:      # not the first time; seeking loses the first samples of some codecs
                self.container.seek(0)
                self.rest = self.container.decode(self.track)
            frames = self.rest if self.first is None else chain([self.first], self.rest)
            self.first = None
            for frame in frames:
                if (frame.sample_rate, len(frame.layout.channels)) != (self.samplerate, self.channels):
                    raise SoundError("its sample rate or number of channels changes on the way; split it")
                start = end or 0.0 if frame.pts is None else float(frame.pts * frame.time_base)
                gaps |= end is not None and start > end + LAG
                end = start + frame.samples / self.samplerate
                count += frame.samples
                yield full_scale_at_1(frame)
        except self.error as error:
            raise SoundError(f"damaged or cut short after {count / self.samplerate:.2f} seconds "
                             f"({explain(error)})") from error
        missing = self.end() - (end or 0.0)
        if missing > LAG:
            raise SoundError(f"cut short: the last {missing:.2f} of {self.end():.2f} seconds are missing")
        if gaps:
            self.notes.append(GAP)

    def end(self) -> float:
        """Return the end of the track in seconds according to the container, 0 if it does not give it."""
        track = self.track
        if self.container.format.name in TIMED and track.duration is not None:
            return float(((track.start_time or 0) + track.duration) * track.time_base)
        return 0


@contextmanager
def open_with_ffmpeg(data: Data, reason: str, notes: list[str]) -> Iterator[FFmpegSound]:
    """Open a file that libsndfile does not read.

    Args:
        reason: libsndfile's.
        notes: remarks on the file.
    Raises:
        SoundError: FFmpeg does not read it either, it is cut short, or PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise SoundError(f"unreadable ({reason}) If it is a sound of another format, such as m4a, webm or wma: "
                         "`pip install av` reads these too") from None
    check_container(data)
    stop = len(data) - 128 if data[-128:-125] == b"TAG" else len(data)      # an ID3v1 tag, at which FFmpeg stumbles
    # The file has no name, because FFmpeg could take that for an address.
    with View(memoryview(data)[:stop]) as view:
        try:
            container = av.open(view, metadata_errors="ignore",
                                options={"format_whitelist": CONTAINERS, "protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError) as error:
            raise SoundError(f"unreadable (libsndfile: {reason} FFmpeg: {explain(error)})") from error
        with container:
            try:
                sound = FFmpegSound(container, av.FFmpegError, notes)
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
