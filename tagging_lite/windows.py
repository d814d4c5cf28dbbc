"""Positions of the windows of a clip, for prediction and for exported models."""
import numpy as np


def place_windows(lengths: np.ndarray, size: int, overlap: float, limit: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Place windows that cover each clip evenly. The first starts with the clip, and the last ends with it.

    A clip that is shorter than a window gets one window, with the clip in its middle.

    Args:
        lengths: (clips,) samples.
        size: samples of a window.
        overlap: smallest overlap of neighbouring windows, as a share of a window.
        limit: greatest number of windows of a clip. A single window is in the middle of the clip. 0 sets no limit.
    Returns:
        clip of each window: (windows,) int64.
        first sample of each window: (windows,) int64, negative if the clip is shorter.
    """
    room = lengths - size                                                           # (clips,), negative if short
    counts = 1 + -(-np.maximum(room, 0) // max(1, int(size * (1 - overlap))))       # (clips,)
    if limit:
        counts = np.minimum(counts, limit)
    clips = np.repeat(np.arange(len(lengths)), counts)                              # (windows,)
    place = np.arange(len(clips)) - np.repeat(np.cumsum(counts) - counts, counts)   # number of the window in its clip
    last = counts[clips] - 1
    share = np.where(last > 0, place / np.maximum(last, 1), 0.5)
    return clips, np.rint(share * room[clips]).astype(np.int64)


def cut_windows(wave: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Cut windows from one clip. Samples outside the clip are zero.

    Args:
        wave: (samples,).
        starts: (windows,) first sample of each window, from -size to samples.
        size: samples of a window.
    Returns:
        (windows, size), of the dtype of `wave`.
    """
    windows = np.zeros((len(starts), size), wave.dtype)
    for window, start in zip(windows, starts):      # copies only these samples, and `wave` can be much longer
        inside = wave[max(start, 0):max(start + size, 0)]
        window[max(-start, 0):][:len(inside)] = inside
    return windows


def second_windows(samples: int, size: int, sample_rate: int) -> np.ndarray:
    """Place a window around the middle of each second of a clip, and move it into the clip if it fits.

    Args:
        samples: length of the clip.
        size: samples of a window.
        sample_rate: Hz.
    Returns:
        (seconds,) first sample of each window. A clip that is shorter than a window is in the middle of each.
    """
    middles = (np.arange(-(-samples // sample_rate)) + 0.5) * sample_rate                   # (seconds,)
    room = samples - size
    return np.rint(np.clip(middles - size / 2, 0, room) if room > 0 else np.full(len(middles), room / 2)).astype(int)
