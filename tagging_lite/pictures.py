"""Figures of a sound and of its tags, for the page, the report and the service.

They use matplotlib without its global state, because servers draw them in threads.
"""
import io
import re
from unicodedata import east_asian_width

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike
from PIL import Image

from tagging_lite.fonts import set_fonts

MELS = 128
COLUMNS = 1000          # of a spectrogram, at most
LONGEST_NAME = 44       # characters of a name in a figure; a Chinese one counts twice
TICKS = 200, 500, 1000, 2000, 5000, 10_000, 20_000     # Hz


def printable(name: str) -> str:
    """Replace the bytes of a name that are not UTF-8, which no page and no font can show."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)


def shorten_name(name: str, limit: int = LONGEST_NAME) -> str:
    """Cut a name to the width of `limit` Latin letters, with an ellipsis at its end. Replace bytes that are not UTF-8.
    """
    name = printable(name)
    ends = np.cumsum([1 + (east_asian_width(character) in "FW") for character in name])
    return name if not name or ends[-1] <= limit else name[:np.searchsorted(ends, limit - 1, "right")] + "…"


def hertz_to_mel(hertz: ArrayLike) -> np.ndarray:
    """Convert frequencies of any shape to the mel scale of HTK."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_bank(frequencies: np.ndarray, mels: int, f_min: float, f_max: float) -> np.ndarray:
    """Build triangular filters on the mel scale of HTK, not normalised, like those of the models.

    Args:
        frequencies: (frequencies,) Hz, of the bins of the Fourier transform.
        mels: number of filters.
        f_min, f_max: Hz, the range of the filters.
    Returns:
        (mels, frequencies).
    """
    edges = 700 * (10 ** (np.linspace(hertz_to_mel(f_min), hertz_to_mel(f_max), mels + 2) / 2595) - 1)
    rise = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]                     # (mels, frequencies)
    fall = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rise, fall))


def log_mel(wave: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Compute a log-mel spectrogram of a whole clip for display, with windows of 46 ms.

    Args:
        wave: (samples,) int16.
        sample_rate: Hz.
    Returns:
        levels: (MELS, columns) dB relative to the loudest cell, from -80 to 0.
        hop: seconds from one column to the next.
    """
    size = max(16, 2 * round(0.023 * sample_rate))
    hop = max(1, size // 4, -(-len(wave) // COLUMNS))
    padded = np.pad(wave.astype(np.float32) / 32768, size // 2)
    frames = sliding_window_view(padded, size)[::hop]                                       # (columns, size)
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32))) ** 2          # (columns, frequencies)
    bank = mel_bank(np.fft.rfftfreq(size, 1 / sample_rate), MELS, 20, min(20_000, sample_rate / 2))
    decibels = 10 * np.log10(np.maximum(bank @ power.T, 1e-10))                             # (MELS, columns)
    return np.maximum(decibels - decibels.max(), -80), hop / sample_rate


def log_mel_figure(wave: np.ndarray, sample_rate: int, title: str = "") -> Figure:
    """Draw the log-mel spectrogram of a clip.

    Args:
        wave: (samples,) int16, not empty.
        sample_rate: Hz.
    """
    decibels, hop = log_mel(wave, sample_rate)
    figure = Figure((8, 3), layout="constrained")
    axes = figure.add_subplot()
    low, high = hertz_to_mel([20, min(20_000, sample_rate / 2)])
    image = axes.imshow(decibels, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=0,
                        interpolation="nearest", extent=(0, decibels.shape[1] * hop, low, high))
    axes.set_xlim(0, len(wave) / sample_rate)
    ticks = [hertz for hertz in TICKS if low <= hertz_to_mel(hertz) <= high]
    axes.set_yticks(hertz_to_mel(ticks), [f"{hertz:,}" for hertz in ticks])
    axes.set(xlabel="Time (seconds)", ylabel="Frequency (Hz)")
    axes.set_title(shorten_name(title, 70), parse_math=False)      # the name of a file can contain dollar signs
    figure.colorbar(image, label="dB below the maximum", pad=0.01)
    return figure


def frequency_ticks(sample_rate: int) -> list[tuple[float, str]]:
    """Return the ticks of the frequency axis of a spectrogram: its height in percent, and Hz as text."""
    low, high = hertz_to_mel([20, min(20_000, sample_rate / 2)])
    return [(round(100 * float((hertz_to_mel(hertz) - low) / (high - low)), 2), f"{hertz:,} Hz") for hertz in TICKS
            if low <= hertz_to_mel(hertz) <= high]


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most `count` round numbers from `low` to `high`, at equal distances."""
    if not high > low:
        return [low]
    power = 10.0 ** np.floor(np.log10((high - low) / count))
    steps = [power * factor for factor in (1, 2, 2.5, 5, 10, 20)]
    step = next(step for step in steps if np.floor(high / step + 1e-9) - np.ceil(low / step - 1e-9) + 1 <= count)
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(number * step, 10) for number in range(first, last + 1)]


def spectrogram_png(wave: np.ndarray, sample_rate: int) -> bytes:
    """Draw a log-mel spectrogram without axes as the content of a PNG file: a pixel for each window and each filter.

    Args:
        wave: (samples,) int16, not empty.
        sample_rate: Hz.
    """
    decibels, _ = log_mel(wave, sample_rate)
    colours = colormaps["magma"]((decibels[::-1] + 80) / 80, bytes=True)[..., :3]          # (MELS, columns, 3)
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(content, "png", compress_level=1)
    return content.getvalue()


def bars_figure(tags: list[tuple[str, float]], title: str = "") -> Figure:
    """Draw probabilities as bars in the given order, the first at the top.

    Args:
        tags: names and probabilities.
    """
    figure = Figure((8, 1 + 0.3 * len(tags)), layout="constrained")
    axes = figure.add_subplot()
    names, values = [shorten_name(name) for name, _ in tags], [value for _, value in tags]
    bars = axes.barh(range(len(tags)), values, color="#2f6f9f")
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4)
    axes.set_yticks(range(len(tags)), names, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.08), xlabel="Probability")
    axes.set_title(shorten_name(title, 70), parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def png(figure: Figure, dpi: int = 100) -> bytes:
    """Return a figure as the content of a PNG file."""
    set_fonts(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()
