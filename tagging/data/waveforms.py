"""The wave store: every clip decoded and trimmed once, kept as int16 in one memory-mapped file."""
import logging
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from tagging.data.competition import Clips
from tagging.errors import TaggingError, list_notes
from tagging.utils.files import fingerprint, read_json, write_json
from tagging.utils.locks import file_lock
from tagging.utils.progress import map_files
from tagging_lite.audio import RemoveSilence, load_clip
from tagging_lite.cores import available_cores

log = logging.getLogger(__name__)

FORMAT = 4              # increase it when the layout or the content of the store changes
LISTED = 200            # faulty clips listed in a message
MARGIN = 4_000_000      # zero samples before the first and after the last clip: no crop reads outside the file


@dataclass(frozen=True)
class WaveStore:
    """One flat int16 file of clips, read as batches of crops."""
    samples: np.ndarray         # (samples,) int16, memory-mapped, all clips one after the other
    sample_rate: int            # Hz
    lengths: np.ndarray         # (clips,) samples of each clip after trimming
    offsets: np.ndarray         # (clips,) the first sample of each clip
    checksums: np.ndarray       # (clips,) CRC-32 of each clip's samples
    faults: dict[str, str]      # the name of each clip that cannot be used, and the reason
    notes: dict[str, list[str]]     # the names of some clips, and remarks, such as that samples were scaled

    @classmethod
    def open(cls, folder: Path) -> "WaveStore":
        """Open a store and check it.

        Raises:
            TaggingError: the store is damaged.
        """
        index = read_json(folder / "index.json", "")
        if index.pop("fingerprint", None) != fingerprint(index):
            raise TaggingError(f"{folder / 'index.json'} is damaged: its checksum is wrong.")
        lengths = np.array(index["lengths"], np.int64)
        checksums = np.array(index["checksums"], np.int64)
        offsets = MARGIN + np.cumsum(lengths) - lengths
        expected = int(lengths.sum()) + 2 * MARGIN
        path = folder / "samples.i16"
        if not path.is_file() or path.stat().st_size != 2 * expected:
            raise TaggingError(f"{path} is damaged: its size should be {2 * expected} bytes.")
        samples = np.memmap(path, np.int16, mode="r")
        # All cores read the whole file. Training needs it in the page cache in any case.
        with ThreadPoolExecutor(available_cores()) as pool:
            found = pool.map(lambda clip: zlib.crc32(samples[clip[0]:clip[0] + clip[1]]), zip(offsets, lengths))
            wrong = sum(one != other for one, other in zip(found, checksums, strict=True))
        if wrong:
            raise TaggingError(f"{path} is damaged: the checksums of {wrong} clips are wrong.")
        return cls(samples, index["sample_rate"], lengths, offsets, checksums, index["faults"], index["notes"])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def hours(self) -> float:
        return self.lengths.sum() / self.sample_rate / 3600

    def subset(self, keep: np.ndarray) -> "WaveStore":
        """Return the clips at the positions, or of the mask, `keep`. The samples are shared."""
        return replace(self, lengths=self.lengths[keep], offsets=self.offsets[keep], checksums=self.checksums[keep])

    def crops(self, clips: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
        """Cut one crop from each of a batch of clips. Samples outside a clip are zero.

        Args:
            clips: (batch,) positions in the store.
            starts: (batch,) first sample, counted from the start of the clip. It may be negative.
            size: samples of a crop.
        Returns:
            (batch, size) int16.
        Raises:
            TaggingError: the crop is longer than the margin of the file.
        """
        if size > MARGIN:
            raise TaggingError(f"A crop of {size} samples is longer than {MARGIN}. Choose a smaller --crop-seconds.")
        crops = sliding_window_view(self.samples, size)[self.offsets[clips] + starts]        # (batch, size)
        lengths = self.lengths[clips]
        for row in np.flatnonzero((starts < 0) | (starts + size > lengths)):   # short clips only
            crops[row, :max(0, -starts[row])] = 0
            crops[row, max(0, lengths[row] - starts[row]):] = 0
        return crops

    def batches(self, clips: np.ndarray, starts: np.ndarray, size: int, batch_size: int,
                device: torch.device, first: int = 0) -> Iterator[tuple[slice, torch.Tensor]]:
        """Cut crops in batches and move them to the device. A thread prepares the next batch.

        Args:
            clips, starts: (crops,), as for `crops`.
            first: the crop to begin with.
        Yields:
            the slice of the crops that are in the batch, and its waves (batch, size) int16.
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


def random_starts(lengths: np.ndarray, size: int | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the start of a random crop of each clip. A short clip gets a random share of its zeros in front, as in
    fastaudio's ResizeSignal.

    Args:
        lengths: (clips,) samples.
        size: samples of every crop, or (clips,) of each.
    Returns:
        (clips,) first sample, negative where zeros come first.
    """
    room = lengths - size
    return rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1)


def open_store(clips: Clips, trim: RemoveSilence | None, cache: Path, *, skip_bad: bool = False,
               sample_rate: int | None = None) -> tuple[Clips, WaveStore]:
    """Open the wave store of a set of clips. Build it first if it does not exist.

    Args:
        trim: None keeps the silence.
        cache: folder of the stores. The name of a store is a hash of everything it depends on.
        skip_bad: drop the clips that cannot be used, and log their names, instead of raising.
        sample_rate: Hz that the clips must have. None takes the rate of most clips.
    Returns:
        The remaining clips, and their waves in the same order.
    Raises:
        TaggingError: a clip is unreadable, empty, truncated, not mono, silent, or has another sample rate.
    """
    files = [(fname, (stat := path.stat()).st_size, stat.st_mtime_ns)
             for fname, path in zip(clips.fnames, clips.paths)]
    key = fingerprint(FORMAT, asdict(trim) if trim else None, files)
    folder = Path(cache) / f"{clips.split}-{key}"
    store = find_store(folder)
    if store is None:
        with file_lock(folder.with_name(f".{folder.name}.lock")):      # a second process waits and finds the store
            store = find_store(folder)
            if store is None:
                build_store(clips, trim, folder)
                store = WaveStore.open(folder)

    if sample_rate is not None and store.sample_rate not in (sample_rate, 0):        # 0: no clip can be used
        raise TaggingError(f"The clips of {clips.csv} have {store.sample_rate} Hz, and the training clips "
                           f"{sample_rate} Hz. Resample the clips, or train on clips of this rate.")
    if store.faults:
        listed = "\n".join([f"  {fname}: {fault}" for fname, fault in store.faults.items()][:LISTED])
        if len(store.faults) > LISTED:
            listed += f"\n  and {len(store.faults) - LISTED} more: see {folder / 'index.json'}"
        if not skip_bad:
            raise TaggingError(f"{len(store.faults)} of {len(clips)} clips named in {clips.csv} cannot be used:\n"
                               f"{listed}\nFix the files, or drop these clips with --skip-bad-clips.")
        log.info("left out %d %s clips:\n%s", len(store.faults), clips.split, listed)
    for line in list_notes(store.notes.items()):
        log.info("%s", line)
    good = ~clips.fnames.isin(list(store.faults))
    if not good.any():
        raise TaggingError(f"No clip of {clips.csv} can be used.")
    return clips.subset(good), store.subset(good)


def find_store(folder: Path) -> WaveStore | None:
    """Open a store. Return None if it does not exist, or is damaged, which is logged."""
    try:
        return WaveStore.open(folder) if folder.is_dir() else None
    except TaggingError as error:
        log.info("%s The store is built again.", error)
        return None


def build_store(clips: Clips, trim: RemoveSilence | None, folder: Path) -> None:
    """Decode and trim all clips on all cores into `folder`, which appears when it is complete.

    Clips that cannot be used are listed with the reason and have no samples.

    Raises:
        TaggingError: the store cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    lengths, rates, checksums = [], [], []
    faults: dict[str, str] = {}
    notes: dict[str, list[str]] = {}
    try:
        shutil.rmtree(partial, ignore_errors=True)          # left by a process that was killed
        partial.mkdir(parents=True)
        with open(partial / "samples.i16", "wb") as file:
            file.write(bytes(2 * MARGIN))
            loaded = map_files(lambda path: load_clip(path, trim), clips.paths, f"decoding {clips.split} clips")
            for fname, (wave, rate, fault, remarks) in zip(clips.fnames, loaded):
                if fault:
                    faults[fname] = fault
                if remarks:
                    notes[fname] = list(remarks)
                rates.append(rate)
                lengths.append(len(wave))
                checksums.append(zlib.crc32(wave))
                file.write(wave)
            file.write(bytes(2 * MARGIN))
            file.flush()
            os.fsync(file.fileno())
        common = Counter(rate for rate in rates if rate).most_common(1)
        sample_rate = common[0][0] if common else 0
        for fname, rate in zip(clips.fnames, rates):
            if rate and rate != sample_rate:
                faults.setdefault(fname, f"{rate} Hz where most clips have {sample_rate} Hz")
        index = {"sample_rate": sample_rate, "lengths": lengths, "checksums": checksums, "faults": faults,
                 "notes": notes}
        write_json(partial / "index.json", index | {"fingerprint": fingerprint(index)})
        shutil.rmtree(folder, ignore_errors=True)           # a damaged one
        partial.rename(folder)
    except OSError as error:
        raise TaggingError(f"{folder} could not be written: {error.strerror}. Free some space (a store is about as "
                           "large as its clips), or choose another folder with --cache.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
