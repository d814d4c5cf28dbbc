"""Stage 2: fine-tune each fold's stage-1 model on the curated set -> models/RUN/curated/, models/RUN/report.html"""
import sys

from tagging.cli import TrainCurated, parse
from tagging.competition import open_competition
from tagging.errors import TaggingError, run_script
from tagging.model import choose_device
from tagging.report import write_run_report
from tagging.run import stage_folder
from tagging.stage import train_stage


def main() -> None:
    args = parse(TrainCurated, __doc__)
    if args.from_scratch and args.noisy_run:
        raise TaggingError("--noisy-run and --from-scratch exclude each other. Leave one of them out.")
    device = choose_device(args.device)
    competition = open_competition(args.data)
    start = None if args.from_scratch else stage_folder(args.models, args.noisy_run or args.run, "noisy")
    folder = stage_folder(args.models, args.run, "curated")
    print(f"recipe {args.recipe}, {competition.layout.name} layout in {competition.root}")
    train_stage("curated", competition, folder, args.knobs, folds=args.folds, cache=args.cache, device=device,
                skip_bad=args.skip_bad_clips, start=start, parts=args.accumulate)
    try:
        print(f"-> {write_run_report(folder, competition)}", flush=True)
    except TaggingError as error:       # weights and scores are written, and no page is worth an error after hours
        print(f"note: no report was written: {error}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
