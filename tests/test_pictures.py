import numpy as np

from tagging_lite.pictures import bars_figure, log_mel_figure, timeline_figure


def tick_names(axes): return [t.get_text() for t in axes.get_yticklabels()]

def test_the_timeline_shows_the_strongest_tags_in_the_order_of_time():
    timeline = np.array([[0.1, 0.9, 0.2], [0.8, 0.3, 0.2]])
    axes = timeline_figure(timeline, ("a", "b", "c"), top=2).axes[0]
    assert tick_names(axes) == ["b", "a"] and axes.images[0].get_array().tolist() == [[0.9, 0.3], [0.1, 0.8]]

def test_a_tone_stands_where_it_sounds_in_time_and_frequency():
    rate, wave = 16_000, np.zeros(32_000, np.int16)
    wave[16_000:] = 9000 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / rate)
    axes = log_mel_figure(wave, rate).axes[0]
    decibels = axes.images[0].get_array()                                   # (mels, columns)
    left, right, low, high = axes.images[0].get_extent()
    row, column = np.unravel_index(decibels[:, :int(decibels.shape[1] * 0.99)].argmax(), decibels.shape)
    assert decibels.max() == 0 and decibels[:, :decibels.shape[1] // 2 - 5].max() == -80
    mel = low + (row + 0.5) / len(decibels) * (high - low)
    assert abs(700 * (10 ** (mel / 2595) - 1) - 1000) < 40

def test_bars_are_in_the_order_given():
    axes = bars_figure([("low", 0.2), ("high", 0.9)]).axes[0]
    assert tick_names(axes) == ["low", "high"] and [bar.get_width() for bar in axes.patches] == [0.2, 0.9]
    assert axes.yaxis_inverted()
