"""The wave store: every clip decoded and trimmed once, kept as int16 in one memory-mapped file."""
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from tqdm import tqdm

from tagging.competition import Clips
from tagging.errors import TaggingError
from tagging.files import fingerprint, locked, read_json, write_json
from tagging_lite.audio import RemoveSilence, load_clip

FORMAT = 3              # raise it when the layout of the store, or what stands in it, changes
LISTED = 200            # faulty clips named on the screen
MARGIN = 4_000_000      # zero samples before the first and after the last clip: a crop never leaves the file


class WaveStore:
    """One flat int16 file of clips, read as batches of crops.

    Attributes:
        sample_rate: Hz.
        lengths: (clips,) samples of each clip after trimming.
        checksums: (clips,) CRC-32 of each clip's samples.
        faults: name and reason of each clip that cannot be used.

    Raises:
        TaggingError: the store is damaged.
    """

    def __init__(self, folder: Path):
        index = read_json(folder / "index.json", "")
        if index.pop("fingerprint", None) != fingerprint(index):
            raise TaggingError(f"{folder / 'index.json'} is damaged: its checksum is wrong.")
        self.sample_rate: int = index["sample_rate"]
        self.lengths = np.array(index["lengths"], np.int64)
        self.checksums = np.array(index["checksums"], np.int64)
        self.faults: dict[str, str] = index["faults"]
        self.offsets = MARGIN + np.cumsum(self.lengths) - self.lengths           # (clips,)
        expected = int(self.lengths.sum()) + 2 * MARGIN
        path = folder / "samples.i16"
        if not path.is_file() or path.stat().st_size != 2 * expected:
            raise TaggingError(f"{path} is damaged: it should have {2 * expected} bytes.")
        self.samples = np.memmap(path, np.int16, mode="r")
        # All cores read the whole file: it has to come into the page cache before the training in any case.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(lambda place: zlib.crc32(self.samples[place[0]:place[0] + place[1]]),
                             zip(self.offsets, self.lengths))
            wrong = sum(one != other for one, other in zip(found, self.checksums, strict=True))
        if wrong:
            raise TaggingError(f"{path} is damaged: the checksums of {wrong} clips are wrong.")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def hours(self) -> float:
        return self.lengths.sum() / self.sample_rate / 3600

    def subset(self, keep: np.ndarray) -> "WaveStore":
        """A view of the clips of the mask or at the positions `keep`."""
        view = object.__new__(WaveStore)
        view.__dict__ = self.__dict__ | {
            name: getattr(self, name)[keep] for name in ("lengths", "offsets", "checksums")}
        return view

    def crops(self, clips: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
        """Cut one crop from each of a batch of clips; what lies outside a clip is zero.

        Args:
            clips: (batch,) positions in the store.
            starts: (batch,) first sample, counted from the start of the clip; may be negative.
            size: samples of a crop.
        Returns:
            (batch, size) int16.
        """
        if size > MARGIN:
            raise TaggingError(f"A crop of {size} samples is longer than {MARGIN}. Choose a smaller --crop-seconds.")
        crops = sliding_window_view(self.samples, size)[self.offsets[clips] + starts]        # (batch, size)
        lengths = self.lengths[clips]
        for row in np.flatnonzero((starts < 0) | (starts + size > lengths)):   # short clips only, zeroed in place
            crops[row, :max(0, -starts[row])] = 0
            crops[row, max(0, lengths[row] - starts[row]):] = 0
        return crops

    def batches(self, clips: np.ndarray, starts: np.ndarray, size: int, batch_size: int,
                device: torch.device, first: int = 0) -> Iterator[tuple[slice, torch.Tensor]]:
        """Cut crops in batches, one batch ahead in a thread of its own, and hand them over on the device.

        Args:
            clips, starts: (crops,), as for `crops`.
            first: the crop to begin with.
        Yields:
            the batch's place among the crops, and its waves (batch, size) int16.
        """
        def cut(place: slice) -> torch.Tensor:
            waves = torch.from_numpy(self.crops(clips[place], starts[place], size))
            return waves.pin_memory() if device.type == "cuda" else waves

        places = [slice(begin, begin + batch_size) for begin in range(first, len(clips), batch_size)]
        if not places:
            return
        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(cut, places[0])
            for place, following in zip(places, [*places[1:], None]):
                waves = ahead.result()
                if following:
                    ahead = thread.submit(cut, following)
                yield place, waves.to(device, non_blocking=True)


def open_store(clips: Clips, trim: RemoveSilence | None, cache: Path, *, skip_bad: bool = False,
               sample_rate: int | None = None) -> tuple[Clips, WaveStore]:
    """Open the wave store of a set of clips; make it first if it is not there.

    Args:
        trim: None keeps the silence.
        cache: folder of the stores. A store's name is a hash of what it depends on.
        skip_bad: leave out the clips that cannot be used, by name, instead of raising.
        sample_rate: Hz that the clips must have; None takes the rate that most of them have.
    Returns:
        The clips that are left, and their waves in the same order.
    Raises:
        TaggingError: clips that are unreadable, empty, cut short, not mono, silent or of another rate.
    """
    files = [(fname, (stat := path.stat()).st_size, stat.st_mtime_ns)
             for fname, path in zip(clips.fnames, clips.paths)]
    key = fingerprint(FORMAT, asdict(trim) if trim else None, files)
    folder = Path(cache) / f"{clips.part}-{key}"
    store = find_store(folder)
    if store is None:
        with locked(folder.with_name(f".{folder.name}.lock")):      # a second process waits, and finds the store made
            store = find_store(folder)
            if store is None:
                build_store(clips, trim, folder)
                store = WaveStore(folder)

    if sample_rate is not None and store.sample_rate not in (sample_rate, 0):        # 0: no clip can be used
        raise TaggingError(f"The clips of {clips.csv} have {store.sample_rate} Hz, and those of the training "
                           f"{sample_rate} Hz. Resample the clips, or train on clips of this rate.")
    if store.faults:
        listed = "\n".join([f"  {fname}: {fault}" for fname, fault in store.faults.items()][:LISTED])
        if len(store.faults) > LISTED:
            listed += f"\n  and {len(store.faults) - LISTED} more: see {folder / 'index.json'}"
        if not skip_bad:
            raise TaggingError(f"{len(store.faults)} of {len(clips)} clips named in {clips.csv} cannot be used:\n"
                               f"{listed}\nMend the files, or leave these clips out with --skip-bad-clips.")
        print(f"left out {len(store.faults)} {clips.part} clips:\n{listed}", flush=True)
    good = ~clips.fnames.isin(list(store.faults))
    if not good.any():
        raise TaggingError(f"No clip of {clips.csv} can be used.")
    return clips.subset(good), store.subset(good)


def find_store(folder: Path) -> WaveStore | None:
    """Open a store; None if it is not there, or is damaged, which is printed."""
    try:
        return WaveStore(folder) if folder.is_dir() else None
    except TaggingError as error:
        print(f"{error} The store is made again.", flush=True)
        return None


def build_store(clips: Clips, trim: RemoveSilence | None, folder: Path) -> None:
    """Decode and trim all clips on all cores into `folder`, which appears when it is complete.

    Clips that cannot be used are listed with the reason; they hold no place in the training.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    threads = os.cpu_count() or 1
    lengths, rates, checksums, faults = [], [], [], {}
    try:
        shutil.rmtree(partial, ignore_errors=True)          # of a process that was killed
        partial.mkdir(parents=True)
        # Threads, not processes: libsndfile and numpy let go of the interpreter, and no sample is copied across.
        with (ThreadPoolExecutor(threads) as pool, open(partial / "samples.i16", "wb") as file,
              tqdm(total=len(clips), desc=f"decoding {clips.part} clips", unit="clip", disable=None) as progress):
            file.write(bytes(2 * MARGIN))
            for first in range(0, len(clips), 16 * threads):       # few clips in memory at a time
                chunk = slice(first, first + 16 * threads)
                loaded = pool.map(lambda path: load_clip(path, trim), clips.paths[chunk])
                for fname, (wave, rate, fault) in zip(clips.fnames[chunk], loaded):
                    if fault:
                        faults[fname] = fault
                    rates.append(rate)
                    lengths.append(len(wave))
                    checksums.append(zlib.crc32(wave))
                    file.write(wave)
                    progress.update()
            file.write(bytes(2 * MARGIN))
            file.flush()
            os.fsync(file.fileno())
        usual = Counter(rate for rate in rates if rate).most_common(1)
        usual = usual[0][0] if usual else 0
        for fname, rate in zip(clips.fnames, rates):
            if rate and rate != usual:
                faults.setdefault(fname, f"{rate} Hz where most clips have {usual} Hz")
        index = {"sample_rate": usual, "lengths": lengths, "checksums": checksums, "faults": faults}
        write_json(partial / "index.json", index | {"fingerprint": fingerprint(index)})
        shutil.rmtree(folder, ignore_errors=True)           # a damaged one
        partial.rename(folder)
    except OSError as error:
        raise TaggingError(f"{folder} could not be written: {error.strerror}. Free some space (a store needs about as "
                           "much as its clips), or choose another folder with --cache.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
