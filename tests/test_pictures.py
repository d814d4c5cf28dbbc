"""The figures of a sound and of its tags."""
import io

import numpy as np
import pytest
from PIL import Image

from tagging_lite.pictures import bars_figure, frequency_ticks, log_mel_figure, spectrogram_png


def row_names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_a_tone_is_at_its_time_and_frequency_in_the_spectrogram():
    wave = np.zeros(32_000, np.int16)
    wave[16_000:] = 9000 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    image = log_mel_figure(wave, 16_000).axes[0].images[0]
    decibels, (_, _, low, high) = image.get_array(), image.get_extent()                     # (mels, columns)
    columns = decibels.shape[1]
    row = decibels[:, columns * 6 // 10:columns * 9 // 10].mean(1).argmax()
    mel = low + (row + 0.5) / len(decibels) * (high - low)
    assert abs(700 * (10 ** (mel / 2595) - 1) - 1000) < 40
    assert decibels.max() == 0 and decibels[:, :columns // 2 - 5].max() == -80


def test_bars_are_in_the_order_given():
    axes = bars_figure([("low", 0.2), ("high", 0.9)]).axes[0]
    assert row_names(axes) == ["low", "high"] and axes.yaxis_inverted()
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.9]


def test_a_spectrogram_without_axes_has_its_tone_at_the_tick_of_the_tone():
    wave = (9000 * np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000)).astype(np.int16)
    pixels = np.asarray(Image.open(io.BytesIO(spectrogram_png(wave, 16_000)))).sum(2)        # (mels, columns)
    brightest = pixels[:, 5:-5].mean(1).argmax()
    heights = {text: place for place, text in frequency_ticks(16_000)}
    assert list(heights) == ["200 Hz", "500 Hz", "1,000 Hz", "2,000 Hz", "5,000 Hz"]
    assert 100 * (1 - (brightest + 0.5) / len(pixels)) == pytest.approx(heights["2,000 Hz"], abs=1)


def test_the_shortest_sound_has_a_spectrogram():
    assert Image.open(io.BytesIO(spectrogram_png(np.array([1], np.int16), 8000))).height == 128
