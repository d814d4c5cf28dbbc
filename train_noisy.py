"""Stage 1: train one model a fold on the noisy set, from random weights -> models/RUN/noisy/"""
from tagging.cli import Train, parse
from tagging.competition import open_competition
from tagging.errors import run_script
from tagging.model import choose_device
from tagging.run import stage_folder
from tagging.stage import train_stage


def main() -> None:
    args = parse(Train, __doc__)
    device = choose_device(args.device)
    competition = open_competition(args.data)
    competition.announce_missing("curated", "test")     # better known now than after hours of stage 1
    folder = stage_folder(args.models, args.run, "noisy")
    print(f"recipe {args.recipe}, {competition.layout.name} layout in {competition.root}")
    train_stage("noisy", competition, folder, args.knobs, folds=args.folds, cache=args.cache, device=device,
                skip_bad=args.skip_bad_clips, parts=args.accumulate)


if __name__ == "__main__":
    run_script(main)
