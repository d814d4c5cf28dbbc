"""Similar sounds: the search is exact, and refuses what it cannot compare."""
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tagging_lite import similar
from tagging_lite.archive.writers import MODEL_KEY
from tagging_lite.errors import TaggingError
from tagging_lite.similar import find_similar
from tagging_lite.tagger import ModelInfo, Tagger

TAGGER = Tagger(ModelInfo(("a",), 8000, 8000, 0.5, 0.0), None, checksum="models")
FEATURES = 12


def write_part(folder, number, paths, seconds, vectors, checksum="models"):
    path = folder / "_embeddings" / f"part-{number:05}.parquet"
    path.parent.mkdir(exist_ok=True)
    vectors = np.asarray(vectors, np.float16)
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), max(1, vectors.shape[-1]))
    table = pyarrow.table({"path": pyarrow.array(paths, pyarrow.string()),
                           "second": pyarrow.array(seconds, pyarrow.int32()), "embedding": lists},
                          metadata={MODEL_KEY: checksum} if checksum else None)
    parquet.write_table(table, path, row_group_size=7)
    return path


@pytest.fixture
def archive(tmp_path):
    """Three parts with an embedding for each of 60 sounds and each of their two seconds: folder, names, vectors."""
    vectors = np.random.default_rng(0).normal(size=(60, 3, FEATURES)).astype(np.float16)
    names = [f"sounds/{number}.wav" for number in range(60)]
    for part in range(3):
        rows = range(20 * part, 20 * part + 20)
        write_part(tmp_path, part, [names[row] for row in rows for _ in range(3)], [None, 0, 1] * 20,
                   vectors[rows].reshape(-1, FEATURES))
    return tmp_path, names, vectors


def cosine(vectors, query):
    vectors, query = vectors.astype(float), query.astype(float)
    return vectors @ query / np.linalg.norm(vectors, axis=-1) / np.linalg.norm(query)


@pytest.mark.parametrize("numbers", [1, 100, 10**6])
@pytest.mark.parametrize("top", [1, 7, 100])
def test_the_most_similar_sounds_are_found_in_parts_of_any_size(archive, monkeypatch, numbers, top):
    monkeypatch.setattr(similar, "NUMBERS", numbers)
    folder, names, vectors = archive
    query = np.random.default_rng(1).normal(size=FEATURES)
    expected = cosine(vectors[:, 0], query)
    order = np.argsort(-expected)[:top]
    found = find_similar(TAGGER, query, folder, top)
    assert [match.path for match in found] == [names[place] for place in order]
    assert all(match.second is None for match in found)
    np.testing.assert_allclose([match.similarity for match in found], expected[order], atol=1e-5)


@pytest.mark.parametrize("numbers", [1, 10**6])
def test_each_sound_is_listed_once_with_its_most_similar_second(archive, monkeypatch, numbers):
    monkeypatch.setattr(similar, "NUMBERS", numbers)
    folder, names, vectors = archive
    query = np.random.default_rng(1).normal(size=FEATURES)
    expected = cosine(vectors[:, 1:], query)                                                # (sounds, seconds)
    order = np.argsort(-expected.max(1))[:9]
    found = find_similar(TAGGER, query, folder, 9, seconds=True)
    assert [(match.path, match.second) for match in found] == [(names[row], expected[row].argmax()) for row in order]


def test_the_sound_itself_has_similarity_1(archive):
    folder, names, vectors = archive
    match, = find_similar(TAGGER, vectors[41, 0] * 3, folder, 1)
    assert match.path == names[41] and match.similarity == pytest.approx(1, abs=1e-5)


def test_copies_are_sorted_by_name(tmp_path):
    write_part(tmp_path, 0, ["c", "a", "b"], [None] * 3, np.ones((3, FEATURES)))
    assert [match.path for match in find_similar(TAGGER, np.ones(FEATURES), tmp_path, 3)] == ["a", "b", "c"]


def test_a_part_without_sounds_and_a_vector_of_zeros(tmp_path):
    write_part(tmp_path, 0, [], [], np.zeros((0, 1)))
    write_part(tmp_path, 1, ["a"], [None], np.zeros((1, FEATURES)))
    assert find_similar(TAGGER, np.ones(FEATURES), tmp_path, 3) == [("a", None, 0.0)]


@pytest.mark.parametrize("checksum", ["others", ""])
def test_the_index_of_other_models_is_refused(tmp_path, checksum):
    write_part(tmp_path, 0, ["a"], [None], np.ones((1, FEATURES)), checksum)
    with pytest.raises(TaggingError, match=r"part-00000.parquet is not from the models of this search"):
        find_similar(TAGGER, np.ones(FEATURES), tmp_path, 3)


def test_a_folder_without_embeddings_is_refused(tmp_path):
    with pytest.raises(TaggingError, match=r"has no embeddings.*tools.tag --embeddings --out DIR"):
        find_similar(TAGGER, np.ones(FEATURES), tmp_path, 3)


def test_an_index_without_seconds_is_refused(tmp_path):
    write_part(tmp_path, 0, ["a"], [None], np.ones((1, FEATURES)))
    with pytest.raises(TaggingError, match=r"has no embeddings of seconds. Write it with --timeline"):
        find_similar(TAGGER, np.ones(FEATURES), tmp_path, 3, seconds=True)


def test_damaged_parts_are_refused(tmp_path):
    path = write_part(tmp_path, 0, ["a"], [None], np.ones((1, FEATURES)))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(TaggingError, match=r"part-00000.parquet is damaged"):
        find_similar(TAGGER, np.ones(FEATURES), tmp_path, 3)
    path.write_bytes(content)
    with pytest.raises(TaggingError, match="have not 5 numbers"):
        find_similar(TAGGER, np.ones(5), tmp_path, 3)
    write_part(tmp_path, 0, ["a"], [None], np.full((1, FEATURES), np.nan))
    with pytest.raises(TaggingError, match="embeddings that are not numbers"):
        find_similar(TAGGER, np.ones(FEATURES), tmp_path, 3)


def test_the_command_line(trained, tmp_path, expect_error):
    sounds = sorted((trained.data / "test").glob("*.wav"))[:4]
    models = "--models", trained.folder / "models", "--run", "first"
    index = tmp_path / "index"
    result = trained.call("tools/tag.py", *models, *sounds, "--embeddings", "--out", index)
    assert result.code == 0, result.err
    result = trained.call("tools/similar.py", sounds[2], *models, "--index", index, "--top", "3", "--format", "csv")
    lines = [line.split(",") for line in result.out.splitlines()]
    assert result.code == 0 and lines[0] == ["path", "second", "similarity"] and len(lines) == 4, result.err
    assert lines[1] == [str(sounds[2]), "", "1.000000"] and float(lines[2][2]) < 1
    call = lambda *words: trained.call("tools/similar.py", *words)  # noqa: E731
    expect_error(call(sounds[0], *models, "--fold", "1", "--index", index), "not from the models of this search")
    expect_error(call(sounds[0], *models, "--index", tmp_path), "has no embeddings")
    expect_error(call(tmp_path / "missing.wav", *models, "--index", index), "missing.wav")
    expect_error(call(sounds[0], *models, "--index", index, "--top", "0"), "--top 0 must be 1 or more")
