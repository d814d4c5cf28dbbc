"""Measure how fast sound files become a store, compared with decoding alone."""
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from tagging.data.competition import Clips
from tagging.data.waveforms import build_store
from tagging_lite.audio import load_clip, make_trim
from tagging_lite.cores import available_cores
from tools.benchmark.measure import Row, Setting, a_second, seconds_of
from tools.benchmark.sounds import FILES


def measure_store(setting: Setting) -> Iterator[Row]:
    """Measure decoding, trimming and writing of the noisy clips."""
    clips = setting.competition.clips("noisy")
    clips = clips.subset(np.arange(len(clips))[:FILES])             # the other clips are links to these
    trim, threads, folder = make_trim(setting.recipe.trim_db), available_cores(), setting.scratch / "store"
    alone, trimmed, made = seconds_of(
        setting, lambda: on_all_cores(clips, lambda path: soundfile.read(path, dtype="int16")[0]),
        lambda: on_all_cores(clips, lambda path: load_clip(path, trim)[0]), lambda: build_store(clips, trim, folder))
    shutil.rmtree(folder)
    yield Row(f"{len(clips)} files decoded by soundfile, {threads} threads", "clips/s", a_second(len(clips), alone))
    for what, seconds in (("checked, decoded and trimmed", trimmed), ("made a store, which is written", made)):
        yield Row(f"{len(clips)} files {what}", "clips/s", a_second(len(clips), seconds),
                  median(seconds) / median(alone), "of decoding's time; target: at most 2")
    yield Row("the same for each core", "clips/s", a_second(len(clips) / threads, made))


def on_all_cores(clips: Clips, read: Callable[[Path], np.ndarray]) -> None:
    """Read all clips with as many threads as `build_store`, without keeping them."""
    with ThreadPoolExecutor(available_cores()) as pool:
        sum(pool.map(lambda path: len(read(path)), clips.paths))
