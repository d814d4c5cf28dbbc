"""Download and unpack the data of Freesound Audio Tagging 2019.

    python -m tools.download data/fsdkaggle2019 --from zenodo     all test clips with their truth, without an account
    python -m tools.download data/fsdkaggle2019 --from kaggle     with an account that has accepted the rules

Run the same command again after any interruption: it resumes, and it does nothing when everything is in place.
"""
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tagging.cli import parse, run_script
from tagging.data.competition import LAYOUTS, find_clips, open_competition
from tagging.data.tables import index_by_fname, read_table
from tagging.errors import TaggingError
from tagging.options import Flat
from tagging.utils.files import check_folder
from tagging.utils.locks import file_lock

WORK = ".download"          # folder in OUT with the lock, partial files, and records of what is unpacked
Part = Literal["curated", "noisy", "test", "meta", "doc"]


@dataclass(frozen=True, kw_only=True)
class ZenodoOptions:
    """Options of --from zenodo."""
    # Parts to download: clips of the curated, noisy and test set, csv files (meta), documents (doc).
    parts: tuple[Part, ...] = ("curated", "noisy", "test", "meta")
    keep: bool = False              # Keep the archives once they are unpacked.
    connections: int = 4            # Number of files that are downloaded at a time, from 1 to 16.
    attempts: int = 6               # Number of failed requests for a file, in a row, that end the download.
    record_url: Annotated[str, arg(
        help="Address of the record's JSON document. A mirror needs these fields of it: files, each with key, size, "
             "checksum and links.self.")] = "https://zenodo.org/api/records/3612637"


@dataclass(frozen=True, kw_only=True)
class Download:
    """tools.download."""
    out: Annotated[Positional[Path], arg(metavar="OUT", help="Competition folder to write or to complete.")]
    source: Annotated[Literal["zenodo", "kaggle"], arg(name="from", help="Site to download from.")] = "zenodo"
    zenodo: Flat[ZenodoOptions]

    def check(self) -> None:
        """
        Raises:
            TaggingError: an option is out of its range or has no effect, or the folder cannot be written or has the
                layout of the other site.
        """
        zenodo, other = self.zenodo, "kaggle" if self.source == "zenodo" else "zenodo"
        if not zenodo.parts or not 1 <= zenodo.connections <= 16 or zenodo.attempts < 1:
            raise TaggingError("--parts must name at least one part, --connections must be 1 to 16, and --attempts at "
                               "least 1.")
        if not zenodo.record_url.startswith(("https://", "http://")):
            raise TaggingError("--record-url is no web address. It must begin with https:// or http://.")
        if self.source == "kaggle" and zenodo != ZenodoOptions():
            raise TaggingError("--parts, --keep, --connections, --attempts and --record-url work with --from zenodo "
                               "only. Kaggle offers one archive. Remove these options.")
        check_folder(self.out, "OUT")
        present = [layout.name for layout in LAYOUTS if (self.out / layout.classes).is_file()]
        if other.title() in present:
            raise TaggingError(f"{self.out} has the layout of {other.title()}, and a folder can have one layout only. "
                               f"Choose another OUT, or --from {other}.")


def main() -> None:
    args = parse(Download, __doc__)
    args.check()
    out, work = args.out, args.out / WORK
    with file_lock(work / "lock", f"Another process downloads to {out}. Wait for it, or stop it."):
        try:
            download(args, work)
        except ImportError as error:
            raise TaggingError(f"tools.download needs the package {error.name}. Install it with `pip install -r "
                               "requirements-tools.txt`.") from error
        check_clips(out, args.source.title(), [split for split in ("curated", "noisy", "test")
                                               if args.source == "kaggle" or split in args.zenodo.parts])


def download(args: Download, work: Path) -> None:
    """Download and unpack what is missing."""
    if args.source == "kaggle":
        from tools.download.kaggle import download_kaggle
        download_kaggle(args.out, work)
    else:
        from tools.download.zenodo import Server, download_zenodo
        options = args.zenodo
        server = Server(options.record_url, options.connections, options.attempts)
        download_zenodo(options.parts, server, options.keep, args.out, work)


def check_clips(out: Path, name: str, splits: Iterable[str]) -> None:
    """Check that each clip of the csv files exists, and print how many there are.

    Args:
        name: of the layout.
    Raises:
        TaggingError: a csv file is missing or wrong, or a clip is missing.
    """
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    if name == "Zenodo" and not (out / layout.classes).is_file():
        print("note: the csv files are not there. Download them with --parts meta before you train.")
        return
    competition = open_competition(out)
    for split in splits:
        table, folder = (out / path for path in competition.layout.splits[split])
        fnames = index_by_fname(read_table(table), table).index
        find_clips(table, folder, fnames)
        print(f"{split}: all {len(fnames):,} clips of {table} are in {folder}")


if __name__ == "__main__":
    run_script(main, resumable=True)
