"""The features of the clips of a wave store, computed once and kept in the folder of the store."""
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from tagging.baselines.features import FEATURES, ClipFeatures
from tagging.data.folds import ClipDataset
from tagging.data.waveforms import WaveStore
from tagging.errors import TaggingError, shorten
from tagging.modeling.weights import read_weights, write_weights
from tagging.utils.locks import file_lock
from tagging.utils.progress import map_files

log = logging.getLogger(__name__)

VERSION = 1                     # of the features. Increase it when a value or the order changes.
KIND = f"audio-tagging features {VERSION}"
BATCH = 2**20                   # samples of a batch, 24 s at 44.1 kHz


def clip_features(clips: ClipDataset) -> np.ndarray:
    """Return the features of each clip. Those that are not in the folder of the store are computed, and kept there.

    Returns:
        (clips, features) float32 in the order of `FEATURES`.
    Raises:
        TaggingError: a value is not a finite number, or the file of the features cannot be written.
    """
    store = clips.store
    filename = getattr(store.samples, "filename", None)
    if filename is None:            # a store in memory
        return compute_features(clips)
    path = Path(filename).with_name("features.safetensors")
    known = read_features(path)
    missing = np.array([offset not in known for offset in store.offsets.tolist()])
    if missing.any():
        with file_lock(path.with_name(f".{path.name}.lock")):      # a second process waits and finds the features
            known = read_features(path)
            missing = np.array([offset not in known for offset in store.offsets.tolist()])
            if missing.any():
                new = ClipDataset(clips.fnames[missing], store.subset(missing), clips.targets[missing])
                known |= dict(zip(new.store.offsets.tolist(), compute_features(new)))
                write_weights(path, KIND, {"offsets": torch.tensor(list(known)),
                                           "features": torch.from_numpy(np.stack(list(known.values())))}, {})
    return np.stack([known[offset] for offset in store.offsets.tolist()])


def read_features(path: Path) -> dict[int, np.ndarray]:
    """Return the features of the clips of a store: the first sample of a clip -> (features,).

    A file of an earlier version, or a damaged one, is as good as none.
    """
    if not path.exists():
        return {}
    try:
        tensors, _, _ = read_weights(path, [KIND], "The features are computed again.")
        offsets, features = tensors["offsets"], tensors["features"].numpy()
        if features.shape == (len(offsets), len(FEATURES)) and features.dtype == np.float32:
            return dict(zip(offsets.tolist(), features))
    except (TaggingError, LookupError) as error:
        log.info("%s", error)
    return {}


def compute_features(clips: ClipDataset) -> np.ndarray:
    """Compute the features of each clip, in batches of similar length, on all cores.

    Raises:
        TaggingError: a value is not a finite number.
    """
    store, compute = clips.store, ClipFeatures(clips.store.sample_rate)
    order = np.argsort(store.lengths, kind="stable")
    features = np.empty((len(store), len(FEATURES)), np.float32)
    batches = split_batches(order, store.lengths)
    with one_thread_each():
        results = map_files(lambda batch: compute(read_waves(store, batch), store.lengths[batch]), batches,
                            "computing features", len)
        for batch, rows in zip(batches, results):
            features[batch] = rows
    wrong = clips.fnames[~np.isfinite(features).all(1)]
    if len(wrong):
        raise TaggingError(f"The features of {shorten(list(wrong), 3)} are not finite numbers. Remove these clips from "
                           "the data.")
    return features


def split_batches(order: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Split clips that are sorted by length into batches of at most `BATCH` samples, or of one clip."""
    batches: list[list[int]] = []
    for clip in order:
        if not batches or (len(batches[-1]) + 1) * lengths[clip] > BATCH:
            batches.append([])
        batches[-1].append(clip)
    return [np.array(batch) for batch in batches]


def read_waves(store: WaveStore, clips: np.ndarray) -> np.ndarray:
    """Return whole clips: (clips, samples) int16, with zeros after the end of a clip."""
    waves = np.zeros((len(clips), store.lengths[clips].max()), np.int16)
    for wave, offset, length in zip(waves, store.offsets[clips], store.lengths[clips]):
        wave[:length] = store.samples[offset:offset + length]
    return waves


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let torch use one thread for each batch: the batches share the cores, and the last bits depend on no number of
    cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
