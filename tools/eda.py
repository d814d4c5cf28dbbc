"""Write a page about a data set: its labels, its sounds, and the clips that cannot be used.

    python -m tools.explore --data DIR [--out data.html] [--clips N]
"""
import argparse
from pathlib import Path

from tagging.cli import run_script
from tagging.data.competition import open_competition
from tagging.errors import TaggingError
from tagging.reporting.eda import choose_clips, measure_sounds, open_splits, usable
from tagging.reporting.report import data_sections, write_page
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
    splits = open_splits(competition)
    sounds = {split: measure_sounds(choose_clips(clips, args.clips), RemoveSilence()) for split, clips in splits.items()}
    text = f"{competition.layout.name} layout, {len(competition.classes)} classes."
    text += "".join(f" There is no {split} set." for split in competition.layout.splits if split not in splits)
    if args.clips:
        text += f" Sounds are of at most {args.clips:,} clips a set, drawn at random; labels are of all clips."
    write_page(args.out, f"Data set {competition.root.resolve().name}", text,
               data_sections(splits, sounds, competition.classes))
    for split, table in sounds.items():
        print(f"{split}: {len(splits[split]):,} clips, {len(table):,} measured, "
              f"{len(table) - len(usable(table)):,} cannot be used")
    print(f"-> {args.out}")


if __name__ == "__main__":
    run_script(main)
