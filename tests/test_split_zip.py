"""Split zips are read without joining their parts."""
import io
import random
import struct
import zlib
from zipfile import BadZipFile, ZipFile

import pytest
from fake_zenodo import split_zip, zipped

from tools.download.split_zip import JoinedFile, open_zip
from tools.download.unpack import UNPACK_ERRORS

RNG = random.Random(1)
FILES = {f"clips/{number}.wav": RNG.randbytes(2000) for number in range(8)} | {"text.csv": b"fname,labels\n" * 400}


def write(folder, parts) -> list:
    paths = [folder / f"clips.z{number:02}" for number in range(1, len(parts))] + [folder / "clips.zip"]
    for path, data in zip(paths, parts):
        path.write_bytes(data)
    return paths


def read(paths) -> dict[str, bytes]:
    with open_zip(paths) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("sizes", [[5000, 5000, 4000], [4, 1, 1, 9000], [16000], [2100] * 7])
def test_the_members_of_a_split_zip(tmp_path, sizes, zip64):
    parts = split_zip(FILES, sizes, zip64)
    assert parts[0].startswith(b"PK\x07\x08") or sizes[0] < 4
    assert read(write(tmp_path, parts)) == FILES


@pytest.mark.parametrize("zip64", [False, True])
def test_every_cut_gives_the_same_members(tmp_path, zip64):
    small = {"a": b"first", "b/c": b"second" * 9}
    body = split_zip(small, [5])[1].index(b"PK\1\2") + 5
    for size in range(1, body):
        assert read(write(tmp_path, split_zip(small, [size], zip64))) == small, size


def test_a_directory_that_is_cut_itself(tmp_path):
    parts = split_zip(FILES, [9000])
    where = parts[1].index(b"PK\1\2") + 30
    end = bytearray(parts[1][where:])
    struct.pack_into("<H", end, len(end) - 18, 2)       # the last part is 3, the directory begins in part 2
    assert read(write(tmp_path, [parts[0], parts[1][:where], bytes(end)])) == FILES


def test_a_comment_after_the_directory(tmp_path):
    assert read(write(tmp_path, split_zip(FILES, [7000, 7000], comment=b"made by hand"))) == FILES


def test_a_zip_that_is_not_split(tmp_path):
    assert read(write(tmp_path, [zipped(FILES)])) == FILES


def test_damage_within_a_member_is_found(tmp_path):
    parts = [bytearray(part) for part in split_zip(FILES, [6000, 6000])]
    parts[1][3000] ^= 1
    with open_zip(write(tmp_path, parts)) as archive:
        assert archive.testzip() is not None


@pytest.mark.parametrize("change, words", [
    (lambda parts: parts[1:], "has 4 parts, not 3"),
    (lambda parts: [*parts[:-1], parts[-1][:-30]], "end of the directory is missing"),
    (lambda parts: [*parts[:-1], b"x" * 100], "end of the directory is missing"),
    (lambda parts: [*parts[:-1], parts[-1].replace(b"PK\1\2", b"PK\1\1")], "directory is damaged")])
@pytest.mark.parametrize("zip64", [False, True])
def test_a_missing_part_or_directory(tmp_path, change, words, zip64):
    paths = write(tmp_path, change(split_zip(FILES, [5000, 5000, 5000], zip64)))
    with pytest.raises(BadZipFile, match=words), open_zip(paths):
        pass


@pytest.mark.parametrize("change", [lambda parts: [*parts[:2], parts[2][:100], parts[3]],
                                    lambda parts: [parts[1], parts[0], *parts[2:]]])
def test_a_part_that_is_cut_short_or_out_of_order(tmp_path, change):
    with pytest.raises((BadZipFile, zlib.error)), open_zip(write(
            tmp_path, change(split_zip(FILES, [5000, 5001, 5000])))) as archive:
        for info in archive.infolist():
            archive.read(info)


def test_any_damage_to_the_directory_is_one_error(tmp_path):
    rng, parts = random.Random(2), split_zip({"a": b"first", "b": b"second"}, [60], zip64=True)
    paths = write(tmp_path, parts)
    for _ in range(1000):
        last = bytearray(parts[1])
        last[rng.randrange(len(last))] = rng.randrange(256)
        paths[1].write_bytes(last)
        try:
            with open_zip(paths) as archive:
                archive.testzip()
        except UNPACK_ERRORS:
            pass        # the errors that `unpack` explains


def test_joined_files_read_as_their_bytes_do():
    data = RNG.randbytes(1000)
    joined = io.BufferedReader(JoinedFile([io.BytesIO(data[:10]), io.BytesIO(b""), io.BytesIO(data[10:700]),
                                           io.BytesIO(data[700:])]), 64)
    expected = io.BytesIO(data)
    for _ in range(300):
        position, size = RNG.randrange(1100), RNG.randrange(300)
        assert joined.seek(position) == expected.seek(position)
        assert joined.read(size) == expected.read(size) and joined.tell() == expected.tell()
    assert joined.seek(-5, io.SEEK_END) == 995 and joined.read() == data[-5:]
    with pytest.raises((OSError, ValueError)):
        joined.seek(-1)


def test_the_directory_is_that_of_the_whole_zip(tmp_path):
    with open_zip(write(tmp_path, split_zip(FILES, [5000, 5000]))) as ours, ZipFile(io.BytesIO(zipped(FILES))) as whole:
        assert [described(info, marker=4) for info in ours.infolist()] == [described(info) for info in whole.infolist()]
        assert {info.extra[:6] for info in ours.infolist()} == {b"\xfe\xca\x02\x00hi"}      # other fields are kept


def described(info, marker=0) -> tuple:
    return (info.filename, info.CRC, info.file_size, info.compress_size, info.compress_type, info.external_attr,
            info.header_offset - marker)
