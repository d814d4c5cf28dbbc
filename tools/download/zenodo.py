"""Download the competition from its Zenodo record, part by part."""
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from tagging.data.competition import LAYOUTS
from tagging.errors import TaggingError, shorten
from tools.download.files import RemoteFile, download_files
from tools.download.progress import sized
from tools.download.retries import Server, read_document
from tools.download.unpack import all_present, check_space, read_record, record_path, unpack, write_record

ARCHIVES = {       # in the order in which they are unpacked
    "meta": "FSDKaggle2019.meta", "doc": "FSDKaggle2019.doc", "curated": "FSDKaggle2019.audio_train_curated",
    "test": "FSDKaggle2019.audio_test", "noisy": "FSDKaggle2019.audio_train_noisy"}
ZENODO = next(layout for layout in LAYOUTS if layout.name == "Zenodo")
GROWTH = 1.4        # size of the unpacked files over that of their archive, estimated before the download; about 1.3


def download_zenodo(chosen: Sequence[str], server: Server, keep: bool, out: Path, work: Path) -> None:
    """Download and unpack the parts that are not in place yet.

    Args:
        chosen: the parts, keys of `ARCHIVES`.
        keep: whether the archives stay once they are unpacked.
        out: competition folder.
        work: folder for partial files and records of what is unpacked, on the same disk.
    Raises:
        TaggingError: a part cannot be downloaded or unpacked, or the disk is too small.
    """
    parts = [part for part in ARCHIVES if part in chosen]
    todo = [part for part in parts if not in_place(part, out, work)]
    if todo:
        listed = list_files(server)
        archives = {part: files_of(part, listed, server.name) for part in todo}
        check_first(archives, out, work)
        download_files([file for files in archives.values() for file in files], out, work, server)
    else:
        print(f"{', '.join(parts)}: everything is in place", flush=True)
    for part in parts:
        if part in todo:
            unpack_part(part, archives[part], keep, out, work)
        remove_archives(part, out, work)        # of an earlier call too, if it was killed before it removed them


def in_place(part: str, out: Path, work: Path) -> bool:
    """Return whether an earlier call has unpacked a part, and all of its files are still there."""
    return record_path(part, work).exists() and all_present(part, read_record(part, work)["files"], out)


def list_files(server: Server) -> dict[str, RemoteFile]:
    """Read the list of files of a Zenodo record.

    Raises:
        TaggingError: it cannot be downloaded, or is no such record.
    """
    document = read_document(server)
    try:
        files = [remote_file(entry, server.url) for entry in document["files"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TaggingError(f"{server.name} is no Zenodo record: {type(error).__name__} {error}. It must list files, "
                           "each with key, size, checksum (md5:...) and links.self. Check --record-url.") from error
    return {file.name: file for file in files}


def remote_file(entry: dict[str, Any], base: str) -> RemoteFile:
    """Read an entry of the list of files. Addresses may be relative to `base`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a field is missing or wrong.
    """
    match = re.fullmatch("md5:([0-9a-f]{32})", entry["checksum"].lower())
    if not match or not isinstance(entry["size"], int) or not 0 <= entry["size"] < 1 << 63:
        raise ValueError(f"in {str(entry)[:300]}")
    return RemoteFile(str(entry["key"]), urljoin(base, entry["links"]["self"]), entry["size"], match[1])


def files_of(part: str, listed: dict[str, RemoteFile], url: str) -> list[RemoteFile]:
    """Return the archive of a part: one zip, or the parts of a split zip in their order.

    Raises:
        TaggingError: the record has no such archive, or not all of its parts.
    """
    name = ARCHIVES[part]
    pieces = {int(match[1]): file for key, file in listed.items()
              if (match := re.fullmatch(rf"{re.escape(name)}\.z(\d+)", key))}
    missing = [f"{name}.z{number:02}" for number in range(1, max(pieces, default=0) + 1) if number not in pieces]
    if f"{name}.zip" not in listed:
        missing.append(f"{name}.zip")
    if missing:
        raise TaggingError(f"{url} does not list {shorten(missing)}. Check --record-url, or choose other --parts.")
    return [*(pieces[number] for number in sorted(pieces)), listed[f"{name}.zip"]]


def check_first(archives: dict[str, list[RemoteFile]], out: Path, work: Path) -> None:
    """Check the free space before the download, and print what will be downloaded.

    Raises:
        TaggingError: the disk is too small.
    """
    files = [file for each in archives.values() for file in each]
    size, left = (sum(file.size for file in files), sum(file.size - file.present(out, work) for file in files))
    unpacked = sum(folder_size(out / ARCHIVES[part]) for part in archives)
    growth = max(0, round(GROWTH * size) - unpacked)
    check_space(out, left + growth, f"({sized(left)} of archives still to download, and about {sized(growth)} for the "
                                    f"files in them, estimated as {GROWTH} times the archives)")
    print(f"{', '.join(archives)}: {len(files)} archives, {sized(size)}, of which {sized(left)} are still to download. "
          f"Up to {sized(left + growth)} of free space will be used.", flush=True)


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def unpack_part(part: str, files: Sequence[RemoteFile], keep: bool, out: Path, work: Path) -> None:
    """Unpack a part, and record that it is complete.

    Raises:
        TaggingError: as `unpack`, or the archive has other files than those of the part.
    """
    sizes = unpack([out / file.name for file in files], out, work)
    expected = {"meta": ZENODO.classes, "doc": ""}.get(part, f"{ARCHIVES[part]}/")
    if not any(name.startswith(expected) for name in sizes):
        found = shorten(sorted(sizes), 3) or "nothing"
        raise TaggingError(f"{out / files[-1].name} does not contain {expected}, but {found}. It is another archive or "
                           "another version. Remove it and these files, and check --record-url.")
    write_record(part, work, {"archives": {file.name: file.md5 for file in files}, "keep": keep, "files": sizes})


def remove_archives(part: str, out: Path, work: Path) -> None:
    """Remove the archives of an unpacked part, unless they are to be kept."""
    record = read_record(part, work)
    present = [out / name for name in record["archives"] if (out / name).exists()]
    if present and not record["keep"]:
        size = sum(path.stat().st_size for path in present)
        for path in present:
            path.unlink()
        print(f"{part}: unpacked and removed {shorten([path.name for path in present], 2)} ({sized(size)})", flush=True)
