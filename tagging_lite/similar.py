"""The most similar sounds of an archive, by the cosine similarity of embeddings that `tools.tag --embeddings` wrote."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tagging_lite.archive.writers import MODEL_KEY, import_pyarrow
from tagging_lite.errors import TaggingError
from tagging_lite.tagger import Tagger

NUMBERS = 2**23     # numbers of embeddings in memory at a time
REMEDY = ("Write an index with `python -m tools.tag --embeddings --out DIR`, with the same run or exported model as "
          "this search.")


class Match(NamedTuple):
    """A sound of the index."""
    path: str               # as in the index
    second: int | None      # the most similar second of it, None if whole sounds are compared
    similarity: float       # cosine, from -1 to 1. 1 is the same sound


def find_similar(tagger: Tagger, embedding: np.ndarray, index: Path, top: int, seconds: bool = False) -> list[Match]:
    """Return the sounds of an index that are most similar to an embedding, the most similar first.

    The index is read part by part, so it can be larger than the memory.

    Args:
        tagger: that computed the embedding. The index must be from the same models.
        embedding: (features,), `TagResult.embedding`.
        index: the folder of `--out`.
        top: number of sounds, at most.
        seconds: compare with each second of the sounds, and return the most similar second of each.
    Raises:
        TaggingError: the index is missing, damaged, from other models, or has no embeddings of seconds.
    """
    query = unit_rows(embedding[None])[0]                                               # (features,)
    best: dict[str, Match] = {}
    empty = True
    for path in index_parts(index):
        for names, second, vectors in read_part(path, tagger.checksum, len(query)):
            chosen = np.flatnonzero([(each is not None) == seconds for each in second])
            similarity = unit_rows(vectors[chosen]) @ query                             # (rows,)
            if np.isnan(similarity).any():
                raise TaggingError(f"{path} has embeddings that are not numbers. {REMEDY}")
            empty &= not len(chosen)
            lowest = min((match.similarity for match in best.values()), default=-2.0) if len(best) == top else -2.0
            for place in np.flatnonzero(similarity > lowest):
                match = Match(names[chosen[place]], second[chosen[place]], float(similarity[place]))
                if match.path not in best or best[match.path].similarity < match.similarity:
                    best[match.path] = match
            best = {match.path: match for match in sorted(best.values(), key=rank)[:top]}
    if empty and seconds:
        raise TaggingError(f"{index} has no embeddings of seconds. Write it with --timeline and --embeddings, or "
                           "search for whole sounds.")
    return list(best.values())


def rank(match: Match) -> tuple[float, str]:
    """Sort by falling similarity. Names decide between duplicates, whose similarities differ by rounding errors."""
    return -round(match.similarity, 6), match.path


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return (rows, features) with rows of length 1. A row of zeros stays as it is."""
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


def index_parts(index: Path) -> list[Path]:
    """Return the files with the embeddings of the folder of `--out`.

    Raises:
        TaggingError: there are none.
    """
    parts = sorted((index / "_embeddings").glob("part*.parquet"))
    if not parts:
        raise TaggingError(f"{index} has no embeddings: there is no {index / '_embeddings'} with parts. {REMEDY}")
    return parts


def read_part(path: Path, checksum: str, features: int) -> Iterator[tuple[list[str], list[int | None], np.ndarray]]:
    """Read a file of embeddings.

    Yields:
        the paths, the seconds or None, and the embeddings (rows, features) of some rows.
    Raises:
        TaggingError: the file is damaged, or from other models.
    """
    pa, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            found = (file.schema_arrow.metadata or {}).get(MODEL_KEY.encode(), b"").decode()
            if found != checksum or not found:
                raise TaggingError(f"{path} is not from the models of this search, and their embeddings cannot be "
                                   f"compared. {REMEDY}")
            for batch in file.iter_batches(max(1, NUMBERS // features), columns=["path", "second", "embedding"]):
                yield (batch["path"].to_pylist(), batch["second"].to_pylist(),
                       read_vectors(batch["embedding"], features))
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        raise TaggingError(f"{path} is damaged, or is no file of embeddings: {error}. {REMEDY}") from error


def read_vectors(column: Any, features: int) -> np.ndarray:
    """Return a column of lists as (rows, features).

    Raises:
        ValueError: a list has another length.
    """
    values = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or len(values) != len(column) * features:
        raise ValueError(f"its embeddings have not {features} numbers")
    return values.reshape(-1, features)
