"""Where the windows of a clip lie, the same in prediction and in all that is exported."""
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def place_windows(lengths: np.ndarray, size: int, overlap: float, limit: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Windows that cover each clip evenly, the first at its start and the last at its end.

    A clip shorter than a window gets one, with the clip in its middle.

    Args:
        lengths: (clips,) samples.
        size: samples of a window.
        overlap: share that neighbours have in common, at least.
        limit: the greatest number of windows of a clip, one being its middle; 0 for as many as it takes.
    Returns:
        clip and start of each window, (windows,) each.
    """
    room = lengths - size                                                           # (clips,), negative if short
    counts = 1 + -(-np.maximum(room, 0) // max(1, int(size * (1 - overlap))))       # (clips,)
    if limit:
        counts = np.minimum(counts, limit)
    clips = np.repeat(np.arange(len(lengths)), counts)                              # (windows,)
    place = np.arange(len(clips)) - np.repeat(np.cumsum(counts) - counts, counts)   # of each window in its clip
    last = counts[clips] - 1
    share = np.where(last > 0, place / np.maximum(last, 1), 0.5)
    return clips, np.rint(share * room[clips]).astype(np.int64)


def cut(wave: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Windows of one clip; what lies outside it is zero.

    Args:
        wave: (samples,).
        starts: (windows,) first sample, from -size on.
    Returns:
        (windows, size).
    """
    return sliding_window_view(np.pad(wave, size), size)[starts + size]


def each_second(samples: int, size: int, sample_rate: int) -> np.ndarray:
    """Starts of windows around the middle of each second of a clip, moved so that they lie within it if they fit.

    Returns:
        (seconds,) first sample; a clip shorter than a window has it in its middle.
    """
    middles = (np.arange(-(-samples // sample_rate)) + 0.5) * sample_rate                   # (seconds,)
    room = samples - size
    return np.rint(np.clip(middles - size / 2, 0, room) if room > 0 else np.full(len(middles), room / 2)).astype(int)
