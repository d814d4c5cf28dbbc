"""Download the competition from Kaggle, with the account of the user."""
import filecmp
import os
import shutil
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import tenacity

from tagging.errors import TaggingError
from tools.download.progress import say, sized
from tools.download.retries import BUSY, RESUME, policy
from tools.download.unpack import all_present, read_record, record_path, set_aside, unpack, write_record

COMPETITION = "freesound-audio-tagging-2019"
PAGE = f"https://www.kaggle.com/c/{COMPETITION}"
TOKEN = ("Create a token at https://www.kaggle.com/settings (API), and save it as ~/.kaggle/access_token or set "
         "KAGGLE_API_TOKEN. A kaggle.json in ~/.kaggle works too.")
SPACE = 55_000_000_000      # bytes on the disk at most, about: the archive and its files, or these and the clips
ATTEMPTS = 6                # failed requests in a row
DOWNLOADED, UNPACKED = "kaggle-downloaded", "kaggle"        # names of the records


def download_kaggle(out: Path, work: Path) -> None:
    """Download and unpack the competition, unless an earlier call has.

    Args:
        out: competition folder.
        work: folder for the download and the records, on the same disk.
    Raises:
        TaggingError: Kaggle refuses the download, or it cannot be unpacked.
    """
    unpacked = record_path(UNPACKED, work)
    if unpacked.exists():
        complete = all_present(COMPETITION, read_record(UNPACKED, work)["files"], out)
        clean(work)
        if complete:
            return
        unpacked.unlink()
    if not record_path(DOWNLOADED, work).exists():
        announce_space(out)
        bundle = fetch(work / "kaggle")
        sizes = {path.relative_to(bundle).as_posix(): path.stat().st_size
                 for path in bundle.rglob("*") if path.is_file() and path.suffix != ".zip"}
        write_record(DOWNLOADED, work, {"folder": str(bundle.relative_to(work.resolve())), "files": sizes})
    sizes = place(out, work)
    write_record(UNPACKED, work, {"files": sizes})
    clean(work)


def announce_space(out: Path) -> None:
    """Print a note if the disk may be too small. Kaggle tells no sizes before the download."""
    free = shutil.disk_usage(out).free
    if free < SPACE:
        say(f"note: the download and its files take up to about {sized(SPACE)} at a time, and the disk of {out} has "
            f"{sized(free)} free.")


def fetch(cache: Path) -> Path:
    """Download the files of the competition with kagglehub, which resumes an interrupted download.

    Args:
        cache: folder for kagglehub, instead of the one in the home folder.
    Returns:
        The folder of the files, within `cache`.
    Raises:
        TaggingError: Kaggle refuses the download, or the connection fails.
    """
    os.environ["KAGGLEHUB_CACHE"] = str(cache.resolve())
    import kagglehub  # type: ignore[import-untyped]

    try:
        folder = Path(tenacity.Retrying(**policy("Kaggle", ATTEMPTS, may_pass))(
            kagglehub.competition_download, COMPETITION)).resolve()
    except Exception as error:
        raise explain(error) from error
    if not folder.is_relative_to(cache.resolve()):
        raise TaggingError(f"Kaggle provides the competition in {folder} on this machine. Nothing needs to be "
                           f"downloaded: use --data {folder}.")
    return folder


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error of kagglehub, or None."""
    return getattr(getattr(error, "response", None), "status_code", None)


def may_pass(error: BaseException) -> bool:
    """Return whether another attempt may succeed. Errors of the network are OSErrors without a number."""
    status = status_of(error)
    return status in BUSY if status else isinstance(error, OSError) and error.errno is None


def explain(error: Exception) -> TaggingError:
    """Return the error with a remedy."""
    status, kind = status_of(error), type(error).__name__
    if kind in ("UnauthenticatedError", "CredentialError"):
        return TaggingError(f"Kaggle needs your account, and there is no token. {TOKEN}")
    if status == 401:
        return TaggingError(f"Kaggle does not accept your token (401). It may have expired. {TOKEN}")
    if status == 403:
        return TaggingError(f"Kaggle refuses the download (403): your account has not accepted the rules of the "
                            f"competition. Open {PAGE}/rules with the same account, accept them, and run the same "
                            "command again. Kaggle may ask you to verify your telephone number first.")
    if status == 404:
        return TaggingError(f"Kaggle has no files of {COMPETITION} (404). Check whether {PAGE}/data shows them. "
                            "Otherwise use --from zenodo.")
    if status:
        return TaggingError(f"Kaggle answered with the HTTP status {status}: {error}. {RESUME[:-1]} later.")
    if kind == "ValueError" and "redentials" in str(error):
        return TaggingError(f"{error}. {TOKEN}")
    if isinstance(error, OSError) and error.errno is None:
        return TaggingError(f"The connection to Kaggle failed: {error}. Check the network, and HTTPS_PROXY if you need "
                            f"a proxy. {RESUME}")
    return TaggingError(f"The download from Kaggle failed: {kind}: {error}. Check the free space. {RESUME}")


def place(out: Path, work: Path) -> dict[str, int]:
    """Move the downloaded files to `out`, and unpack the zips among them, each into a folder of its name.

    Returns:
        All files: path within `out`, with slashes -> size in bytes.
    """
    record = read_record(DOWNLOADED, work)
    bundle, sizes = work / record["folder"], record["files"]        # `sizes` stays a part of `record`
    for path in sorted(bundle.rglob("*")):
        if path.is_file() and path.suffix != ".zip":
            move(path, out / path.relative_to(bundle), work)
    for path in sorted(bundle.rglob("*.zip")):
        folder = out / path.relative_to(bundle).with_suffix("")
        if has_folder(path):
            folder = folder.parent
        folder.mkdir(parents=True, exist_ok=True)
        inside = folder.relative_to(out)
        sizes.update({(inside / name).as_posix(): size for name, size in unpack([path], folder, work).items()})
        write_record(DOWNLOADED, work, record)
        path.unlink()
    return sizes


def has_folder(path: Path) -> bool:
    """Return whether all members of a zip are in a folder of its name."""
    try:
        with ZipFile(path) as archive:
            return all(name.startswith(f"{path.stem}/") for name in archive.namelist())
    except BadZipFile:
        return False        # `unpack` gives the error


def move(path: Path, target: Path, work: Path) -> None:
    """Move a file. A file at `target` with other content is set aside."""
    if target.exists():
        if filecmp.cmp(path, target, shallow=False):
            path.unlink()
            return
        say(f"{target} differed from the download and was replaced. The old file is {set_aside(target, work)}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)


def clean(work: Path) -> None:
    """Remove what remains of a download whose files are in place."""
    shutil.rmtree(work / "kaggle", ignore_errors=True)
    record_path(DOWNLOADED, work).unlink(missing_ok=True)
