"""Pictures of a sound and of its tags, for the page, the report and the service. matplotlib without its global state:
they are made in the threads of servers."""
import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.lib.stride_tricks import sliding_window_view

MELS = 128
COLUMNS = 1000          # of a picture, at most
LONGEST_NAME = 44       # characters of a name in a picture
TICKS = 200, 500, 1000, 2000, 5000, 10_000, 20_000     # Hz


def short(name: str, limit: int = LONGEST_NAME) -> str:
    return name if len(name) <= limit else name[:limit - 1] + "…"


def hertz_to_mel(hertz: np.ndarray) -> np.ndarray:
    """The HTK scale."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_bank(frequencies: np.ndarray, mels: int, f_min: float, f_max: float) -> np.ndarray:
    """Triangular filters on the HTK scale, not normalised, as the models hear: (mels, frequencies)."""
    edges = 700 * (10 ** (np.linspace(hertz_to_mel(f_min), hertz_to_mel(f_max), mels + 2) / 2595) - 1)
    rise = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]                     # (mels, frequencies)
    fall = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rise, fall))


def log_mel(wave: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Log-mel spectrogram of a whole clip for the eye, with windows of 46 ms.

    Args:
        wave: (samples,) int16.
    Returns:
        (MELS, columns) decibels, from -80 to 0, the loudest cell; and the seconds from column to column.
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
    """The log-mel spectrogram of a clip: seconds, hertz, decibels.

    Args:
        wave: (samples,) int16, not empty.
    """
    decibels, step = log_mel(wave, sample_rate)
    figure = Figure((8, 3), layout="constrained")
    axes = figure.add_subplot()
    low, high = hertz_to_mel([20, min(20_000, sample_rate / 2)])
    image = axes.imshow(decibels, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=0,
                        interpolation="nearest", extent=(0, decibels.shape[1] * step, low, high))
    axes.set_xlim(0, len(wave) / sample_rate)
    ticks = [hertz for hertz in TICKS if low <= hertz_to_mel(hertz) <= high]
    axes.set_yticks(hertz_to_mel(ticks), [f"{hertz:,}" for hertz in ticks])
    axes.set(xlabel="time, seconds", ylabel="frequency, Hz")
    axes.set_title(short(title, 70), parse_math=False)      # a file may be called $1.wav
    figure.colorbar(image, label="dB below the loudest", pad=0.01)
    return figure


def bars_figure(tags: list[tuple[str, float]], title: str = "") -> Figure:
    """Probabilities as bars, in the order given, the first on top."""
    figure = Figure((8, 1 + 0.3 * len(tags)), layout="constrained")
    axes = figure.add_subplot()
    names, values = [short(name) for name, _ in tags], [value for _, value in tags]
    bars = axes.barh(range(len(tags)), values, color="#2f6f9f")
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4)
    axes.set_yticks(range(len(tags)), names, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.08), xlabel="probability")
    axes.set_title(title, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def timeline_figure(timeline: np.ndarray, classes: tuple[str, ...], top: int = 8) -> Figure:
    """The probabilities of the strongest tags, second by second.

    Args:
        timeline: (seconds, classes).
        top: tags shown: those with the highest peaks.
    """
    shown = np.argsort(-timeline.max(0), kind="stable")[:top]
    figure = Figure((8, 1 + 0.3 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(timeline[:, shown].T, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest",
                        extent=(0, len(timeline), len(shown) - 0.5, -0.5))
    axes.set_yticks(range(len(shown)), [short(classes[place]) for place in shown], parse_math=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda second, _: f"{int(second) // 60}:{int(second) % 60:02}"))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="time, minutes:seconds", title=f"the {len(shown)} strongest tags, second by second")
    figure.colorbar(image, label="probability", pad=0.01)
    return figure


def png(figure: Figure, dpi: int = 100) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()
