"""Stage 1: train a model for each fold on the noisy set, from random weights -> models/RUN/noisy/"""
from tagging.cli import TrainNoisy, parse_training, run_script
from tagging.data.competition import open_competition
from tagging.run import stage_folder
from tagging.training.distributed import init_distributed, is_main
from tagging.training.stage import StageOptions, train_stage
from tagging.utils.devices import choose_devices
from tagging.utils.files import check_run_folder


@init_distributed()
def main() -> None:
    args = parse_training(TrainNoisy, __doc__)
    folder = stage_folder(args.run.models, args.run.run, "noisy")
    if is_main():
        check_run_folder(folder.path)
    devices = choose_devices(args.run.device, args.run.devices)
    competition = open_competition(args.data.data)
    competition.announce_missing("curated", "test")     # better known now than after hours of training
    competition.check_test()
    print(f"recipe {args.run.recipe}, {competition.layout.name} layout in {competition.root}")
    train_stage("noisy", competition, folder, args.knobs, StageOptions(
        cache=args.data.cache, devices=devices, folds=args.run.folds, skip_bad=args.data.skip_bad_clips,
        micro_batches=args.run.micro_batches))


if __name__ == "__main__":
    run_script(main, resumable=True)
