"""Look before you train: check data, recipe and machine, in about two minutes, before hours are spent.

    python -m tools.check --data DIR [--recipe NAME] [--out check]

    OUT/check.html              all findings with their pictures
    OUT/summary.txt             the same as text
    OUT/STAGE_batch.png, .wav   eight images of a batch after all augmentation, and their sounds
    OUT/overfitting.png, learning_rate.png

Clips are decoded first, as in a training, which uses them then. That takes longer than two minutes for large sets. All
knobs of the training scripts work. The exit code is 1 if something is wrong.
"""
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from matplotlib.figure import Figure

from tagging.cli import RECIPE_HELP, TrainOptions, parse_training, run_script
from tagging.data.competition import Competition, open_competition
from tagging.data.folds import open_folds
from tagging.errors import TaggingError
from tagging.modeling.model import Model
from tagging.options import DeviceOption, Flat, ModelsOption
from tagging.recipe import STAGES
from tagging.reporting.report import DPI, write_page
from tagging.reporting.sections import Section
from tagging.training.batches import check_batch_size
from tagging.utils.devices import choose_device, describe_device
from tagging.utils.files import atomic, check_folder
from tagging_lite.pictures import png
from tools.check.batch import check_batch, first_batch
from tools.check.cost import (
    Speed,
    Steps,
    check_disk,
    check_memory,
    check_time,
    estimate_stage,
    measure_steps,
)
from tools.check.learning import check_learning_rate, check_overfitting, check_start
from tools.check.subject import Finding, Subject

SHARE_OF_STEPS = 0.2       # of the time limit, for the measurement of the steps
FILES = ("check.html", "summary.txt", *(f"{stage}_batch.{kind}" for stage in STAGES for kind in ("png", "wav")),
         "overfitting.png", "learning_rate.png")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(DeviceOption, ModelsOption):
    """The check."""
    recipe: Annotated[str, tyro.conf.arg(help=RECIPE_HELP)] = "capstone"
    out: Path = Path("check")               # Folder to write. Files of an earlier check in it are replaced.
    micro_batches: int = 1                  # Number of parts of each batch, trained one after the other to save memory.
    seconds: float = 120.0                  # Time limit of the check without the decoding of the clips, in seconds.
    max_hours: float = 24.0                 # Longest time that the training of all folds may take, in hours.


@dataclass(frozen=True, kw_only=True)
class Check(TrainOptions):
    """tools.check."""
    run: Flat[CheckOptions]     # type: ignore[assignment]     # a check has no run


def main() -> None:
    args = parse_training(Check, __doc__)
    options = args.run
    if options.seconds < 10 or options.max_hours <= 0:
        raise TaggingError("--seconds must be 10 or more, and --max-hours above 0.")
    check_folder(options.out, "--out")
    for name in FILES:              # of an earlier check, which can have found more
        (options.out / name).unlink(missing_ok=True)
    device = choose_device(options.device)
    competition = open_competition(args.data.data)
    competition.check_test()
    print(f"recipe {options.recipe}, {competition.layout.name} layout in {competition.root}, on "
          f"{describe_device(device)}", flush=True)
    subjects = open_subjects(args, competition, device)
    started = time.perf_counter()
    findings = []
    for finding in check_all(subjects, args, started + options.seconds):
        print(text_of(finding), flush=True)
        findings.append(finding)
    taken = time.perf_counter() - started
    write_findings(options.out, f"Recipe {options.recipe}, {competition.root}, {describe_device(device)}", findings)
    wrong = sum(bool(finding.wrong) for finding in findings)
    skipped = sum(bool(finding.skipped) for finding in findings)
    print(f"\n{len(findings)} checks in {taken:.0f} s: {wrong} wrong, {skipped} not completed\n"
          f"-> {options.out / 'check.html'}")
    sys.exit(1 if wrong else 0)


def open_subjects(args: Check, competition: Competition, device: torch.device) -> list[Subject]:
    """Open the clips of the stages of the recipe whose clips exist.

    Raises:
        TaggingError: as in a training.
    """
    recipe, data, subjects = args.knobs, args.data, []
    stages = [stage for stage in recipe.stages if competition.has(stage)] or list(recipe.stages[-1:])
    if missing := [stage for stage in recipe.stages if stage not in stages]:
        print(f"note: the data have no {missing[0]} clips, so that stage is not checked."
              + (" Train with --from-scratch." if missing == ["noisy"] else ""))
    for stage in stages:
        folded = open_folds(stage, competition, recipe, data.cache, data.skip_bad_clips)
        noisy = open_folds("noisy", competition, recipe, data.cache, data.skip_bad_clips, folded.store.sample_rate) \
            if recipe.mixes_sets(stage) else None
        subject = Subject(stage, recipe, competition, folded, noisy, device, args.run.micro_batches)
        check_batch_size(subject.batch_size, args.run.micro_batches, f"{stage} fold 1")
        subjects.append(subject)
    return subjects


def check_all(subjects: list[Subject], args: Check, end: float) -> Iterator[Finding]:
    """Yield all findings. The first stage starts from random weights, so what depends on them is checked there.

    Args:
        end: `time.perf_counter()` at the time limit.
    """
    options, first = args.run, subjects[0]
    models: list[Model] = []
    building: list[float] = []
    for subject in subjects:
        started = time.perf_counter()
        model = subject.model()
        building.append(time.perf_counter() - started)
        models.append(model)
        batch = first_batch(subject, model, subject.schedule.sizes[0])
        yield from check_batch(subject, model, batch, options.out / f"{subject.stage}_batch.wav")
        if subject is first:
            yield check_start(model, batch.images, batch.targets)
    normalised = models[0].metadata.mean, models[0].metadata.std
    sizes = sorted({size for subject in subjects for size in subject.schedule.sizes})
    measured: list[Steps] = []
    try:
        for size in sizes:      # larger images get more of the time
            measured += measure_steps(first, models[0], size,
                                      SHARE_OF_STEPS * options.seconds * size ** 2 / sum(each ** 2 for each in sizes))
    except torch.OutOfMemoryError as error:
        yield Finding("memory", f"A batch at {size} px does not fit: {str(error).split('. ')[0]}.",
                      wrong="Add --micro-batches 2 or more, or choose a smaller --batch-size or --network.")
        return
    speed = Speed(tuple(measured))
    times = {subject.stage: estimate_stage(subject, model, speed, seconds)
             for subject, model, seconds in zip(subjects, models, building)}
    yield check_time(times, first.recipe.fold_count, speed, first.batch_size, options.max_hours)
    yield check_memory(first, speed)
    yield check_disk(subjects, models[0], first.competition, args.data.cache, options.models)
    finding, speed = check_overfitting(first, normalised, speed, 0.55 * (end - time.perf_counter()))
    yield finding
    yield check_learning_rate(first, normalised, speed, 0.95 * (end - time.perf_counter()))


def text_of(finding: Finding) -> str:
    """Return a finding as lines of text."""
    lines = textwrap.wrap(finding.measured, 114)
    return "\n".join([f"\n{finding.what}: {finding.verdict}", *(f"    {line}" for line in lines)])


def write_findings(out: Path, title: str, findings: list[Finding]) -> None:
    """Write the page, the text, and each picture as a file."""
    sections = [Section(f"{finding.what.capitalize()}: {finding.verdict.partition(':')[0]}",
                        f"{finding.verdict[0].upper()}{finding.verdict[1:]}".rstrip(".") + f". {finding.measured}",
                        finding.blocks) for finding in findings]
    write_page(out / "check.html", "Check before the training", f"{title}.", sections)
    with atomic(out / "summary.txt") as temporary:
        temporary.write_text("\n".join([title, *map(text_of, findings), ""]), encoding="utf-8",
                             errors="backslashreplace")
    for finding in findings:
        name = finding.what.replace(" ", "_") + ".png"
        for figure in finding.blocks:
            if isinstance(figure, Figure):
                with atomic(out / name) as temporary:
                    temporary.write_bytes(png(figure, DPI))


if __name__ == "__main__":
    run_script(main)
