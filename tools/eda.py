"""Write a page about a data set: its labels, its sounds, and the clips that cannot be used.

    python -m tools.eda --data DIR [--out data.html] [--clips N]
"""
from dataclasses import dataclass
from pathlib import Path

from tagging.cli import parse, run_script
from tagging.data.competition import open_competition
from tagging.errors import TaggingError
from tagging.options import CompetitionOption
from tagging.reporting.data_sections import data_sections
from tagging.reporting.eda import choose_clips, measure_sounds, open_splits, usable
from tagging.reporting.report import write_page
from tagging.utils.files import check_file
from tagging_lite.audio import RemoveSilence


@dataclass(frozen=True, kw_only=True)
class Eda(CompetitionOption):
    """tools.eda."""
    out: Path = Path("data.html")           # Html page to write.
    clips: int = 0                          # Number of random clips of each split to measure. 0 measures all clips.


def main() -> None:
    args = parse(Eda, __doc__)
    if args.clips < 0:
        raise TaggingError("--clips must be 1 or more, or 0 for all clips.")
    check_file(args.out, "--out")
    competition = open_competition(args.data)
    splits = open_splits(competition)
    sounds = {split: measure_sounds(choose_clips(clips, args.clips), RemoveSilence())
              for split, clips in splits.items()}
    text = f"{competition.layout.name} layout, {len(competition.classes)} classes."
    text += "".join(f" There is no {split} split." for split in competition.layout.splits if split not in splits)
    if args.clips:
        text += (f" The labels are those of all clips. The sounds were measured on at most {args.clips:,} random clips "
                 "of each split.")
    write_page(args.out, f"Data set {competition.root.resolve().name}", text,
               data_sections(splits, sounds, competition.classes))
    for split, table in sounds.items():
        print(f"{split}: {len(splits[split]):,} clips, {len(table):,} measured, "
              f"{len(table) - len(usable(table)):,} cannot be used")
    print(f"-> {args.out}")


if __name__ == "__main__":
    run_script(main)
