"""Stage 1: train one model a fold on the noisy set, from random weights -> models/RUN/noisy/"""
from tagging.cli import Train, parse
from tagging.competition import open_competition
from tagging.distributed import joined
from tagging.errors import run_script
from tagging.run import stage_folder
from tagging.side_by_side import choose_devices
from tagging.stage import train_stage


@joined()
def main() -> None:
    args = parse(Train, __doc__)
    devices = choose_devices(args.device, args.devices)
    competition = open_competition(args.data)
    competition.announce_missing("curated", "test")     # better known now than after hours of stage 1
    folder = stage_folder(args.models, args.run, "noisy")
    print(f"recipe {args.recipe}, {competition.layout.name} layout in {competition.root}")
    train_stage("noisy", competition, folder, args.knobs, folds=args.folds, cache=args.cache, devices=devices,
                skip_bad=args.skip_bad_clips, parts=args.accumulate)


if __name__ == "__main__":
    run_script(main, goes_on=True)
