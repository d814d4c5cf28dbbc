"""Find the sounds of an archive that are most similar to a sound.

    python -m tools.tag --run NAME ARCHIVE --embeddings --out DIR       writes the index
    python -m tools.similar SOUND --index DIR --run NAME
    python -m tools.similar SOUND --index DIR --model MODEL.onnx        imports no torch

The similarity is the cosine of the angle between two embeddings: 1 for the same sound. A copy of the sound in the
archive is listed too.
"""
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.options import Flat
from tagging_lite.console import csv_writer, json_text
from tagging_lite.errors import SoundError, list_notes, one_line
from tagging_lite.similar import Match, find_similar, index_parts
from tools.tag import TagRunOptions, load_exported, load_run


@dataclass(frozen=True, kw_only=True)
class Similar:
    """tools.similar."""
    sound: Annotated[Positional[Path], arg(metavar="SOUND", help="Sound file to compare with the archive.")]
    index: Path                     # Folder that `tools.tag --embeddings --out` wrote.
    top: int = 10                   # Largest number of sounds to list.
    seconds: bool = False           # Compare with each second of the archive. The index must have a timeline.
    format: Literal["text", "csv", "json"] = "text"     # Format of the output.
    run: Flat[TagRunOptions]


def print_text(matches: list[Match]) -> None:
    for match in matches:
        place = "" if match.second is None else f"  at {match.second // 60}:{match.second % 60:02}"
        print(f"{match.similarity:.3f}  {one_line(match.path)}{place}")


def print_csv(matches: list[Match]) -> None:
    writer = csv_writer(sys.stdout)
    writer.writerow(["path", "second", "similarity"])
    writer.writerows([match.path, match.second, f"{match.similarity:.6f}"] for match in matches)


def print_json(matches: list[Match]) -> None:
    entries = [match._asdict() | {"similarity": round(match.similarity, 6)} for match in matches]
    print(json_text(entries, sys.stdout.encoding or "utf-8", indent=1))


def main() -> None:
    args = parse(Similar, __doc__)
    if args.top < 1:
        raise TaggingError(f"--top {args.top} must be 1 or more.")
    index_parts(args.index)         # before the models are loaded
    tagger = load_exported(args.run.model) if args.run.model else load_run(args.run)
    try:
        result = tagger.tag_file(args.sound, embeddings=True)
    except SoundError as error:
        raise TaggingError(f"{one_line(args.sound)}: {error}. Choose another sound.") from error
    assert result.embedding is not None
    matches = find_similar(tagger, result.embedding, args.index, args.top, args.seconds)
    {"text": print_text, "csv": print_csv, "json": print_json}[args.format](matches)
    for line in list_notes([(args.sound, result.notes)]):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
