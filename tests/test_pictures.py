"""The figures of a sound and of its tags."""
import numpy as np

from tagging_lite.pictures import bars_figure, log_mel_figure, timeline_figure


def row_names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_timeline_shows_the_top_tags_over_time():
    timeline = np.array([[0.1, 0.9, 0.2], [0.8, 0.3, 0.2]])
    axes = timeline_figure(timeline, ("a", "b", "c"), top=2).axes[0]
    assert row_names(axes) == ["b", "a"]
    assert axes.images[0].get_array().tolist() == [[0.9, 0.3], [0.1, 0.8]]


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
