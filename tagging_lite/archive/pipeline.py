"""Sources -> tags: files are decoded ahead, and the windows of many files share the batches of the device."""
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from tagging_lite.archive.decoders import Decoders
from tagging_lite.archive.process import Decoding, End, Source
from tagging_lite.audio import Piece
from tagging_lite.batching import SharedBatches
from tagging_lite.errors import SoundError
from tagging_lite.tagger import Pooling, Tagger, TagResult, cut_batches

AHEAD = 4       # batches whose windows are in memory
WAIT = 0.5      # seconds that a batch waits for the windows of further files


@dataclass(frozen=True)
class Outcome:
    """A file, with its tags or the reason why it has none."""
    source: Source
    result: TagResult | None
    fault: str = ""


@dataclass
class Progressing:
    """A file whose windows are being computed."""
    source: Source
    pooling: Pooling
    pending: deque[tuple[bool, "Future[np.ndarray]"]] = field(default_factory=deque)    # Span.seconds, and the values
    end: End | None = None

    def cut(self, piece: Piece, size: int) -> Iterator[tuple[bool, np.ndarray]]:
        """Yield `Span.seconds` and the windows of a piece, at most `size` at a time: (windows, samples) int16."""
        for span in self.pooling.spans(piece):
            for windows in cut_batches(span, self.pooling.info.window, size):
                yield span.seconds, windows

    def computed(self) -> bool:
        """Whether the file is at its end and all its windows are computed."""
        return self.end is not None and all(future.done() for _, future in self.pending)

    def settle(self) -> int:
        """Pool the oldest values, and return the number of windows."""
        seconds, future = self.pending.popleft()
        values = future.result()
        self.pooling.add(values, seconds)
        return len(values)

    def outcome(self) -> Outcome:
        """Wait for the windows, and return what became of the file, whose end is known."""
        assert self.end is not None
        while self.pending:
            self.settle()
        if self.end.fault:
            return Outcome(self.source, None, self.end.fault)
        try:
            return Outcome(self.source, self.pooling.result(self.end.notes))
        except SoundError as error:
            return Outcome(self.source, None, str(error))


def tag_sources(tagger: Tagger, sources: Iterable[Source], timeline: bool = False, embeddings: bool = False,
                processes: int = 0) -> Iterator[Outcome]:
    """Tag any number of files in constant memory. The results are those of `Tagger.tag_file`.

    Args:
        timeline: also tag each second.
        embeddings: also return embeddings.
        processes: as for `Decoders`.
    Yields:
        an outcome for each source, in the order of the sources.
    Raises:
        TaggingError: the model does not give embeddings.
        Exception: any error of the sources, after the outcomes of those before.
    """
    info, size = tagger.info, tagger.batch
    batches = SharedBatches(tagger.values(embeddings), size, WAIT, threads=1 if tagger.device == "cpu" else 2)
    files: deque[Progressing] = deque()
    windows = 0         # requested and not yet pooled
    decoders = Decoders(sources, Decoding(info.sample_rate, info.trim_db), processes)
    try:
        with closing(decoders.events()) as events:
            for taken in events:
                if taken:
                    source, event = taken
                    if not files or files[-1].end:
                        files.append(Progressing(source, Pooling(info, timeline)))
                    if isinstance(event, End):
                        files[-1].end = event
                    else:
                        for seconds, cut in files[-1].cut(event, size):
                            files[-1].pending.append((seconds, batches.submit(cut)))
                            windows += len(cut)
                            while windows > AHEAD * size:
                                windows -= next(file for file in files if file.pending).settle()
                while files and files[0].computed():
                    windows -= sum(len(future.result()) for _, future in files[0].pending)
                    yield files.popleft().outcome()
        batches.close()         # nothing more will come, so the last batch need not wait
        while files and files[0].end:
            yield files.popleft().outcome()
        if decoders.error:
            raise decoders.error
    finally:
        batches.close()
