"""Write a page about a data set: its labels, its sounds, and the clips that cannot be used.

    python -m tools.explore --data DIR [--out data.html] [--clips N]
"""
import argparse
from pathlib import Path

from tagging.competition import open_competition
from tagging.errors import TaggingError, run_script
from tagging.explore import choose_clips, measure_sounds, open_parts, usable
from tagging.report import data_sections, write_page
from tagging_lite.audio import RemoveSilence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="competition folder, as Kaggle or Zenodo give it")
    parser.add_argument("--out", type=Path, default=Path("data.html"), help="the page; default data.html")
    parser.add_argument("--clips", type=int, default=0, metavar="N",
                        help="measure N clips of each set, drawn at random; default all")
    args = parser.parse_args()
    if args.clips < 0:
        raise TaggingError("--clips must be 1 or more, or 0 for all.")
    competition = open_competition(args.data)
    parts = open_parts(competition)
    sounds = {part: measure_sounds(choose_clips(clips, args.clips), RemoveSilence()) for part, clips in parts.items()}
    text = f"{competition.layout.name} layout, {len(competition.classes)} classes."
    text += "".join(f" There is no {part} set." for part in competition.layout.parts if part not in parts)
    if args.clips:
        text += f" Sounds are of at most {args.clips:,} clips a set, drawn at random; labels are of all clips."
    write_page(args.out, f"Data set {competition.root.resolve().name}", text,
               data_sections(parts, sounds, competition.classes))
    for part, table in sounds.items():
        print(f"{part}: {len(parts[part]):,} clips, {len(table):,} measured, "
              f"{len(table) - len(usable(table)):,} cannot be used")
    print(f"-> {args.out}")


if __name__ == "__main__":
    run_script(main)
