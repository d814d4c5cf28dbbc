"""Stage 2: fine-tune each fold's stage-1 model on the curated set -> models/RUN/curated/, models/RUN/report.html"""
import sys

from tagging.cli import TrainCurated, parse
from tagging.competition import open_competition
from tagging.distributed import is_main, joined
from tagging.errors import TaggingError, run_script
from tagging.report import write_run_report
from tagging.run import stage_folder
from tagging.side_by_side import choose_devices
from tagging.stage import train_stage


@joined()
def main() -> None:
    args = parse(TrainCurated, __doc__)
    if args.from_scratch and args.noisy_run:
        raise TaggingError("--noisy-run and --from-scratch exclude each other. Leave one of them out.")
    devices = choose_devices(args.device, args.devices)
    competition = open_competition(args.data)
    from_scratch = args.from_scratch or not (args.noisy_run or "noisy" in args.knobs.stages)
    start = None if from_scratch else stage_folder(args.models, args.noisy_run or args.run, "noisy")
    folder = stage_folder(args.models, args.run, "curated")
    print(f"recipe {args.recipe}, {competition.layout.name} layout in {competition.root}")
    train_stage("curated", competition, folder, args.knobs, folds=args.folds, cache=args.cache, devices=devices,
                skip_bad=args.skip_bad_clips, start=start, parts=args.accumulate, noisy_labels=args.noisy_labels)
    try:
        if is_main():
            print(f"-> {write_run_report(folder, competition)}", flush=True)
    except TaggingError as error:       # weights and scores are written, and no page is worth an error after hours
        print(f"note: no report was written: {error}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main, goes_on=True)
