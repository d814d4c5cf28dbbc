"""Match names of clips that are written without the extension, with a folder in front, or with backslashes.

The exact name of a clip always means that clip.
"""
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tagging.data.csv_files import open_csv, say
from tagging.errors import TaggingError, shorten
from tagging_lite.find import SUFFIXES


def find_clips(table_path: Path, folder: Path, fnames: Iterable[str]) -> list[Path]:
    """Return the path of each clip. A name that is no file is matched to the one file that fits.

    Raises:
        TaggingError: a name points outside the folder, the file is missing, or as `choose_fits`.
    """
    home, odd = folder.resolve(), []
    paths: dict[str, Path] = {}
    for fname in fnames:
        try:
            # The folder itself may be a link to another disk, but a clip's name must not point outside it.
            path = (home / fname).resolve()
            if path.is_relative_to(home) and path.is_file() and (folder / fname).is_file():
                paths[fname] = plain_path(folder, fname)        # resolve() accepts a missing a/..
            elif not path.is_relative_to(home) and os.path.exists(path):     # noqa: PTH110 - False without permission
                raise TaggingError(f"{row_of(table_path, fname)}: '{fname}' is outside {folder}. Move the file into "
                                   "the folder.")
            else:
                odd.append(fname)
        except (OSError, ValueError, RuntimeError) as error:       # too long, a NUL in it, a link to itself
            raise TaggingError(f"{row_of(table_path, fname)}: {fname!r} is no valid file name: {error}. Rename the "
                               "clip.") from error
    exact: dict[str, str] = {}
    for fname, path in paths.items():
        other = exact.setdefault(path.relative_to(folder).as_posix(), fname)
        if other != fname:
            raise TaggingError(f"{row_of(table_path, fname)}: '{other}' and '{fname}' are the same clip. Remove one of "
                               "the rows.")
    if odd:
        fits = find_fits(odd, list_files(folder))
        matched = choose_fits(fits, exact, table_path, f"the clips in {folder}")
        if missing := [fname for fname in odd if fname not in matched]:
            raise TaggingError(describe_missing(table_path, folder, missing))
        paths |= {fname: folder / clip for fname, clip in matched.items()}
    return [paths[fname] for fname in fnames]


def list_files(folder: Path) -> list[str]:
    """Return the paths of the sound files within a folder. Links to files outside it are left out."""
    home = folder.resolve()
    found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names
             if PurePosixPath(name).suffix.lower() in SUFFIXES]
    return sorted(path.relative_to(folder).as_posix() for path in found
                  if not path.is_symlink() or (path.is_file() and path.resolve().is_relative_to(home)))


def plain_path(folder: Path, fname: str) -> Path:
    """Return the path of an existing file within the folder, without ./ and .. and also if its name is absolute."""
    plain = folder / os.path.relpath(folder / fname, folder)
    if ".." in plain.relative_to(folder).parts or not plain.exists() or not plain.samefile(folder / fname):
        return folder / (folder / fname).resolve().relative_to(folder.resolve())        # links lead elsewhere
    return plain


def clip_names(folder: Path, paths: Sequence[Path]) -> list[str]:
    """Return the names of clips in their folder, in one spelling, from the paths of `find_clips`."""
    return [path.relative_to(folder).as_posix() for path in paths]


def row_of(table_path: Path, fname: str) -> str:
    """Return the table and the line of a clip, for the begin of a message."""
    with suppress(TaggingError):
        file = open_csv(table_path)
        place = file.header.index("fname")
        return next((f"{table_path}, line {line}" for line, row in file.rows if row[place] == fname), str(table_path))
    return str(table_path)


def describe_missing(table_path: Path, folder: Path, missing: list[str]) -> str:
    """Return the error for names that fit no clip, with clips that are similar to the first one."""
    stem = PurePosixPath((split_path(missing[0]) or [""])[-1]).stem.casefold()
    similar = [clip for clip in list_files(folder) if PurePosixPath(clip).stem.casefold() == stem]
    hint = f" Did you mean {shorten(similar, 3)} by {missing[0]}?" if similar else ""
    quoted = shorten([f"'{name}'" for name in missing], 5)
    return (f"{row_of(table_path, missing[0])}: the csv lists {len(missing)} clips that are missing on disk, in "
            f"{folder}: {quoted}.{hint} Unpack the archive again, or correct or remove their rows.")


def adopt_names(names: Sequence[str], clips: Sequence[str], path: Path, what: str) -> list[str]:
    """Return each name in the spelling of the clip that it means, or as it is if it means none.

    Args:
        names: of a table, each once.
        clips: the names as they should be, each once.
        path: the table, for messages.
        what: what the clips are, for messages, such as "the rows of truth.csv".
    Raises:
        TaggingError: a name fits several clips, or two names fit the same clip.
    """
    named, known = set(names), set(clips)
    odd = [name for name in names if name not in known]
    if not odd or named >= known:
        return list(names)
    fits = find_fits(odd, clips)
    for clip, found in find_fits([clip for clip in clips if clip not in named], odd).items():
        for name in found:                                  # the clips may have the shorter names
            fits[name] = list(dict.fromkeys([*fits[name], clip]))
    matched = choose_fits(fits, {name: name for name in names if name in known}, path, what)
    return [matched.get(name, name) for name in names]


def choose_fits(fits: dict[str, list[str]], exact: dict[str, str], path: Path, what: str) -> dict[str, str]:
    """Return the one clip that each name fits, without the names that fit none, and log how they were matched.

    Args:
        fits: the clips that each name fits.
        exact: the clips that are named as they are, and their names.
        path, what: as for `adopt_names`.
    Raises:
        TaggingError: as `adopt_names`.
    """
    name_of = dict(exact)
    for name, found in fits.items():
        if len(found) > 1:
            raise TaggingError(f"{row_of(path, name)}: '{name}' fits {len(found)} of {what}: {shorten(found, 5)}. "
                               "Write the whole name of the clip.")
        for clip in found:
            if clip in name_of:
                raise TaggingError(f"{row_of(path, name)}: '{name_of[clip]}' and '{name}' are the same clip, {clip}, "
                                   f"of {what}. Remove one of the rows.")
            name_of[clip] = name
    matched = {name: found[0] for name, found in fits.items() if found}
    examples: dict[str, list[str]] = defaultdict(list)
    for name, clip in matched.items():
        examples[describe_difference(name, clip)].append(f"'{name}' is '{clip}'")
    if matched:
        ways = "; ".join(f"{len(pairs)} {way}, such as {pairs[0]}" for way, pairs in examples.items())
        say(f"{path}: {len(matched)} of {len(exact) + len(fits)} names were matched to {what}: {ways}.")
    return matched


def find_fits(names: Iterable[str], clips: Iterable[str]) -> dict[str, list[str]]:
    """Return the clips that fit each name: those with the longest path in common.

    A clip fits if its whole path, with or without the extension of a sound file, is the end of the name.
    """
    whole, stems = defaultdict(list), defaultdict(list)
    for clip in clips:
        key = "/".join(split_path(clip))
        whole[key].append(clip)
        suffix = PurePosixPath(key).suffix
        if suffix.lower() in SUFFIXES:
            stems[key.removesuffix(suffix)].append(clip)
    return {name: next((found for tail in tails(name) if (found := whole.get(tail) or stems.get(tail))), [])
            for name in names}


def split_path(name: str) -> list[str]:
    """Return the parts of a path of any system, below its drive and its last `..`, in one form of Unicode."""
    parts = re.split(r"[/\\]+", unicodedata.normalize("NFC", name.strip()))
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index(".."):]
    return [part for part in parts if part not in ("", ".") and not re.fullmatch("[a-zA-Z]:", part)]


def tails(name: str) -> Iterator[str]:
    """Yield the path, then the path without its first folder, and so on, to the last part alone."""
    parts = split_path(name)
    for start in range(len(parts)):
        yield "/".join(parts[start:])


def describe_difference(name: str, clip: str) -> str:
    """Return how a name of a table and the clip that it means differ."""
    ways, one, other = [], split_path(name), split_path(clip)
    if one[-1:] != other[-1:]:
        ways.append("without the extension")
    if len(one) != len(other) or len(re.split(r"[/\\]", name)) != len(re.split(r"[/\\]", clip)):
        ways.append("with other folders in front")
    if "\\" in name:
        ways.append("with backslashes")
    return " and ".join(ways) or "with other blanks or accents"
