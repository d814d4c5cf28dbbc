"""Unpack a zip so that each file appears complete or not at all, and an interrupted unpacking can be resumed."""
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISLNK
from zipfile import BadZipFile, ZipFile, ZipInfo

from tagging.errors import TaggingError, shorten
from tagging.utils.files import read_json, write_json
from tools.download.progress import ByteProgress, say, sized
from tools.download.split_zip import open_zip

CHUNK = 1 << 20
# What zipfile raises for damaged, encrypted and unknown content.
UNPACK_ERRORS = (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)
PARTIAL = ".unpacking.partial"      # name of the file that is being written, in the folder of its member


def unpack(parts: Sequence[Path], folder: Path, work: Path) -> dict[str, int]:
    """Unpack a zip into `folder`. Files that are there with the right content are kept.

    Args:
        parts: the files of the zip, in order.
        work: folder that keeps files of other content, which the members replace.
    Returns:
        The members: path within `folder`, with slashes -> size in bytes.
    Raises:
        TaggingError: the zip is damaged or unsafe, the disk is too small, or a file cannot be written.
    """
    name, replaced = parts[-1].name, []
    try:
        with open_zip(parts) as archive:
            members = safe_members(archive.infolist(), name, work.name)
            left = [info for info in members if not (folder / info.filename).is_file()]
            check_space(folder, sum(info.file_size for info in left), f"for the files of {name}")
            with ByteProgress(f"unpacking {name}", sum(info.file_size for info in members)) as progress:
                for info in members:
                    path = folder / info.filename
                    if path.exists() and not same_content(path, info):
                        replaced.append(info.filename)
                        set_aside(path, work)
                    if not path.exists():
                        write_member(archive, info, path)
                    progress.update(info.file_size)
    except UNPACK_ERRORS as error:
        raise TaggingError(f"{parts[-1]} cannot be unpacked: {error}. Remove this file and {work}, and run the same "
                           "command again. If the error stays, the archive is damaged at its source.") from error
    except BrokenPipeError:     # of stdout
        raise
    except OSError as error:
        raise TaggingError(f"{error.filename or folder} could not be written: {error.strerror or error}. Check the "
                           "free space and the permissions of the folder. Run the same command again to resume."
                           ) from error
    finally:
        if replaced:
            say(f"{len(replaced)} files differed from those in {name}, and are replaced: {shorten(replaced, 5)}. The "
                f"old ones are in {work / 'replaced'}.")
    return {info.filename: info.file_size for info in members}


def safe_members(infos: Sequence[ZipInfo], name: str, own: str) -> list[ZipInfo]:
    """Return the members that are files.

    Args:
        own: name of the folder with the records of this tool.
    Raises:
        TaggingError: a path leaves the folder or is in that of the records, a member is a link, or two members have the
            same path.
    """
    for info in infos:
        for path in (PurePosixPath(info.filename), PureWindowsPath(info.filename)):
            if path.is_absolute() or path.anchor or ".." in path.parts:
                raise TaggingError(f"{name} has a member outside its folder: {info.filename!r}. The archive is not to "
                                   "be trusted. Nothing was unpacked.")
            if own in (part.rstrip(". ").casefold() for part in path.parts):
                raise TaggingError(f"{name} has a member in {own}, the folder of this tool: {info.filename!r}. The "
                                   "archive is not to be trusted. Nothing was unpacked.")
        if S_ISLNK(info.external_attr >> 16):
            raise TaggingError(f"{name} has a link as a member: {info.filename!r}. The archive is not to be trusted. "
                               "Nothing was unpacked.")
    files = [info for info in infos if not info.is_dir()]
    if len({info.filename for info in files}) < len(files):
        raise TaggingError(f"{name} has two members of the same name. The archive is damaged. Nothing was unpacked.")
    return files


def same_content(path: Path, info: ZipInfo) -> bool:
    """Return whether a file has the size and the CRC of a member."""
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == info.CRC


def write_member(archive: ZipFile, info: ZipInfo, path: Path) -> None:
    """Write a member under a temporary name, and rename it when its CRC is right.

    Raises:
        BadZipFile: the CRC is wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(PARTIAL)
    try:
        with archive.open(info) as source, open(temporary, "wb") as out:
            shutil.copyfileobj(source, out, CHUNK)      # the last read checks the CRC
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path, work: Path) -> Path:
    """Move a file to `work`/replaced, so that no content is lost. Return its new path."""
    kept = work / "replaced" / path.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while kept.exists():
        kept, number = kept.with_name(f"{path.name}.{number}"), number + 1
    shutil.move(path, kept)
    return kept


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """
    Args:
        needed: free space in bytes.
        purpose: for the message: "for ...".
    Raises:
        TaggingError: the disk of `folder` has less space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TaggingError(f"{folder} needs {sized(needed)} of free space {purpose}, and its disk has {sized(free)}. "
                           "Free some space, or choose a folder on another disk.")


def all_present(what: str, sizes: dict[str, int], folder: Path) -> bool:
    """Return whether all files are in `folder` with their sizes in bytes. Print which are not.

    Args:
        what: name of the whole, for the message.
    """
    changed = [name for name, size in sizes.items()
               if not (path := folder / name).is_file() or path.stat().st_size != size]
    if changed:
        say(f"{what}: {len(changed)} of {len(sizes)} files are missing or have another size: {shorten(changed, 5)}. "
            "They are unpacked again.")
    return not changed


def record_path(what: str, work: Path) -> Path:
    """Return the path of the record that something is unpacked."""
    return work / f"{what}.json"


def write_record(what: str, work: Path, content: dict) -> None:
    """Record that something is unpacked, after its files are on the disk."""
    if hasattr(os, "sync"):
        os.sync()       # once for thousands of clips; without it, a power cut could leave empty ones
    write_json(record_path(what, work), content)


def read_record(what: str, work: Path) -> dict:
    """Return the content that `write_record` wrote, with the key "files": path -> size in bytes.

    Raises:
        TaggingError: the record is damaged.
    """
    path, remedy = record_path(what, work), "Remove this file, and run the same command again."
    content = read_json(path, remedy)
    if not isinstance(content.get("files"), dict):
        raise TaggingError(f"{path} is damaged: it lists no files. {remedy}")
    return content
