"""Stage 2: train each fold on the curated set, usually from stage 1 -> models/RUN/curated/, models/RUN/report.html"""
import sys

from tagging.cli import TrainCurated, parse_training, run_script
from tagging.data.competition import open_competition
from tagging.errors import TaggingError
from tagging.reporting.report import write_run_report
from tagging.run import stage_folder
from tagging.training.distributed import init_distributed, is_main
from tagging.training.stage import StageOptions, train_stage
from tagging.utils.devices import choose_devices
from tagging.utils.files import check_run_folder


@init_distributed()
def main() -> None:
    args = parse_training(TrainCurated, __doc__)
    run = args.run
    if run.from_scratch and run.noisy_run:
        raise TaggingError("--noisy-run and --from-scratch exclude each other. Remove one of them.")
    folder = stage_folder(run.models, run.run, "curated")
    if is_main():
        check_run_folder(folder.path)
    devices = choose_devices(run.device, run.devices)
    competition = open_competition(args.data.data)
    competition.announce_missing("test")                # better known now than after hours of training
    competition.check_test()
    from_scratch = run.from_scratch or not (run.noisy_run or "noisy" in args.knobs.stages)
    start = None if from_scratch else stage_folder(run.models, run.noisy_run or run.run, "noisy")
    print(f"recipe {run.recipe}, {competition.layout.name} layout in {competition.root}")
    train_stage("curated", competition, folder, args.knobs, StageOptions(
        cache=args.data.cache, devices=devices, folds=run.folds, skip_bad=args.data.skip_bad_clips, start=start,
        micro_batches=run.micro_batches, noisy_labels=run.noisy_labels))
    try:
        if is_main():
            print(f"-> {write_run_report(folder, competition)}", flush=True)
    except TaggingError as error:       # weights and scores are written; a missing report must not fail the training
        print(f"note: no report was written: {error}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main, resumable=True)
