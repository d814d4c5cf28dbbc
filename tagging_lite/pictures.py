"""Figures of a sound and of its tags, for the page, the report and the service.

They use matplotlib without its global state, because servers draw them in threads.
"""
import io
import re
from unicodedata import east_asian_width

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from tagging_lite.fonts import set_fonts

MELS = 128
COLUMNS = 1000          # of a spectrogram, at most
LONGEST_NAME = 44       # characters of a name in a figure; a Chinese one counts twice
TICKS = 200, 500, 1000, 2000, 5000, 10_000, 20_000     # Hz


def shorten_name(name: str, limit: int = LONGEST_NAME) -> str:
    """Cut a name to the width of `limit` Latin letters, with an ellipsis at its end. Replace bytes that are not UTF-8.
    """
    name = re.sub("[\ud800-\udfff]", "\ufffd", name)
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


def timeline_figure(timeline: np.ndarray, classes: tuple[str, ...], top: int = 8) -> Figure:
    """Draw the probabilities of the tags with the highest peaks over time.

    Args:
        timeline: (seconds, classes).
        top: number of tags, at most.
    """
    shown = np.argsort(-timeline.max(0), kind="stable")[:top]
    figure = Figure((8, 1 + 0.3 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(timeline[:, shown].T, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest",
                        extent=(0, len(timeline), len(shown) - 0.5, -0.5))
    axes.set_yticks(range(len(shown)), [shorten_name(classes[place]) for place in shown], parse_math=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda second, _: f"{int(second) // 60}:{int(second) % 60:02}"))
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))   # AutoLocator's steps
    axes.set(xlabel="Time (minutes:seconds)", title=f"Top {len(shown)} tags over time")
    figure.colorbar(image, label="Probability", pad=0.01)
    return figure


def png(figure: Figure, dpi: int = 100) -> bytes:
    """Return a figure as the content of a PNG file."""
    set_fonts(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()
