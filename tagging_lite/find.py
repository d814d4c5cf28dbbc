"""Find the sound files in folders. All tools use this module, so they read the same files of a folder."""
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tagging_lite.errors import TaggingError, shorten

# The files of a folder that are read. A file that is named on the command line may have any suffix.
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".aif", ".aiff",
            ".wave", ".bwf", ".oga", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".nist", ".sph",
            ".aac", ".mp4", ".m4b", ".mov", ".3gp", ".3g2", ".webm", ".weba", ".mkv", ".mka", ".wma", ".amr", ".awb",
            ".mp2", ".mpga", ".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".spx", ".mpc", ".tak", ".dsf",
            ".avi", ".flv", ".m4v", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv")
UNSUPPORTED = (".mid", ".midi", ".kar", ".rmi", ".ra", ".rm", ".ram", ".dff", ".aa", ".aax", ".m4p", ".gsm", ".raw",
               ".pcm", ".sd2", ".shn", ".ofr", ".vqf", ".8svx", ".cda", ".ogv")
# What follows the suffix of a sound in the name of a backup, an unfinished download or a second download. Other
# suffixes belong to files about a sound, such as rec.wav.json.
ENDINGS = r"~|\.\d+|[^a-z\d.][^.]*|\.(part|partial|crdownload|download|filepart|opdownload|aria2|!ut|tmp|bak|old|orig)"
UNFINISHED = re.compile(rf"({'|'.join(map(re.escape, (*SUFFIXES, *UNSUPPORTED)))})({ENDINGS})", re.IGNORECASE)
MAGIC = re.compile(rb"(RIFF|RF64|RIFX)....WAVE|FORM....AIF[FC]|fLaC|OggS|ID3|\.snd|caff|\xff[\xf2\xf3\xfa\xfb]",
                   re.DOTALL)           # the first bytes of sound files

# Files and folders of macOS, Windows, Linux and network storage, besides those whose name begins with a dot.
LEFTOVERS = {"__macosx", "icon\r", "network trash folder", "temporary items", "thumbs.db", "ehthumbs.db", "desktop.ini",
             "$recycle.bin", "system volume information", "lost+found", "__pycache__", "@eadir", "@recycle", "@tmp",
             "@recently-snapshot", "@sharebin", "#recycle", "#snapshot"}

# Kinds of files and folders that are not read.
LINK = "links to folders"
HIDDEN = "hidden or left by the system"
FORMAT = "of unsupported formats"
COPY = "backups or unfinished downloads by their names"
NAMELESS = "without a suffix, but with the first bytes of a sound file"
OTHER = "no sound files by their names"


@dataclass(frozen=True)
class FoundSounds:
    """The sound files of folders, and everything else there that could be meant as sound."""
    paths: list[Path] = field(default_factory=list)                 # sorted within each folder
    left_out: dict[str, list[Path]] = field(default_factory=dict)   # reason -> files and folders that are not read

    def leave_out(self, reason: str, paths: Iterable[Path]) -> None:
        self.left_out.setdefault(reason, []).extend(paths)

    def describe(self, reasons: Sequence[str] = (LINK, HIDDEN, FORMAT, COPY, NAMELESS),
                 home: Path | None = None) -> list[str]:
        """Return a line for each reason with the number of files and folders, and the first names.

        Args:
            reasons: those to describe.
            home: folder to which the names are relative. By default, they are whole paths.
        """
        return [f"Not read, {reason} ({len(paths)}): "
                f"{shorten([path.relative_to(home) if home else path for path in paths])}"
                for reason in reasons if (paths := self.left_out.get(reason))]


def find_sounds(paths: Iterable[Path], follow: bool = False) -> FoundSounds:
    """Return the given files, and all sound files in the given folders and their subfolders.

    A given file or folder is read whatever its name is. Hidden files, the leftovers of systems, and links to folders
    that are found in a folder are not read.

    Args:
        follow: read the links to folders directly within a given folder, as `class_folders` does.
    Raises:
        TaggingError: a path does not exist, or a folder cannot be read or has no sound file.
    """
    found = FoundSounds()
    for path in paths:
        if path.is_dir():
            inside = search(path, follow)
            if not inside.paths:
                kinds = f"{', '.join(SUFFIXES[:8])} or one of {len(SUFFIXES) - 8} other suffixes"
                raise TaggingError("\n  ".join([f"{path} holds no sound file ({kinds}). Choose another folder, or give "
                                                "the names of the files.", *inside.describe()]))
            found.paths.extend(inside.paths)
            for reason, skipped in inside.left_out.items():
                found.leave_out(reason, skipped)
        elif path.exists():
            found.paths.append(path)
        else:
            raise TaggingError(f"{path} does not exist. Check the path.")
    return found


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted. A link counts, unless it leads back to `folder`.

    Raises:
        TaggingError: the folder cannot be read.
    """
    return sorted(entry.name for entry in list_folder(folder) if is_folder(entry) and not is_leftover(entry.name)
                  and not (entry.is_symlink() and leads_back(entry)))


def search(folder: Path, follow: bool) -> FoundSounds:
    """Search a folder and its subfolders. For `follow` see `find_sounds`.

    Raises:
        TaggingError: a folder cannot be read.
    """
    found = FoundSounds()
    for reason, path in walk(folder, follow):
        if reason:
            found.leave_out(reason, [path])
        else:
            found.paths.append(path)
    return found


def walk(folder: Path, follow: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield what is in a folder and its subfolders, sorted by path, in memory for one folder of each level.

    Args:
        follow: as in `find_sounds`.
    Yields:
        the reason why it is not read, "" for sound files, and the path of a file or folder.
    Raises:
        TaggingError: a folder cannot be read.
    """
    levels = [iter(sorted(list_folder(folder), key=lambda entry: entry.name))]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        path, is_sound = Path(entry.path), Path(entry.name).suffix.lower() in SUFFIXES
        if is_leftover(entry.name):
            if is_sound or is_folder(entry):
                yield HIDDEN, path
        elif is_folder(entry):
            if entry.is_symlink() and (not follow or path.parent != folder or leads_back(entry)):
                yield LINK, path
            else:
                levels.append(iter(sorted(list_folder(path), key=lambda inner: inner.name)))
        else:
            # Also a broken link to a sound: its error is shown with those of other files.
            yield "" if is_sound else explain(entry), path


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """
    Raises:
        TaggingError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise TaggingError(f"{folder} cannot be read: {error.strerror}. Check its permissions, or choose other "
                           "folders.") from error


def is_leftover(name: str) -> bool:
    """Whether a file or folder is hidden, or was created by the system and not by a user."""
    return name.startswith(".") or name.casefold() in LEFTOVERS


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:         # a link to itself
        return False


def leads_back(entry: os.DirEntry[str]) -> bool:
    """Whether a link leads to the folder that contains it, or to a folder above."""
    return Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())


def explain(entry: os.DirEntry[str]) -> str:
    """Return the reason why a file without one of the `SUFFIXES` is not read."""
    reason = explain_name(entry.name)
    try:
        if reason == OTHER and not Path(entry.name).suffix and entry.is_file():      # a pipe would block
            with open(entry.path, "rb") as file:
                return NAMELESS if MAGIC.match(file.read(12)) else OTHER
    except OSError:
        pass
    return reason


def explain_name(name: str) -> str:
    """Return the reason why a file with such a name, without one of the `SUFFIXES`, is not read."""
    if Path(name).suffix.lower() in UNSUPPORTED:
        return FORMAT
    if any(UNFINISHED.fullmatch(name, place) for place, letter in enumerate(name) if letter == "."):
        return COPY
    return OTHER
