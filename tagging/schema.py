"""The formats of earlier versions, as tables, and their conversion to the format of this version.

All settings, weights and checkpoints pass through here before anything else uses them, so those of every commit can be
read. tests/data/runs has runs of earlier commits. To change a format, add to a table; if older code would misread the
result, increase `SCHEMA` too.
"""
import copy

from tagging.errors import TaggingError, shorten

SCHEMA = 3              # of settings.json. A file without a number has schema 1: all commits up to 15e5621.
NETWORK_SCHEMA = 2      # is written for networks: versions that read no baselines, schema 3, can read their runs
REMEDY = "Use the version that wrote it, or train again."
KINDS = {               # of the other files, oldest first. The last one is written.
    "model": ("audio-tagging 1", "audio-tagging model 1"),
    "checkpoint": ("audio-tagging checkpoint 1", "audio-tagging checkpoint 2"),
    "baseline": ("audio-tagging baseline 1",),
}
STAGES = ("noisy", "curated")
FIRST = {               # knobs that every version has
    "recipe": ("network", "fold_count", "fold_seed", "stratified", "trim_db", "crop_seconds", "window_overlap", "n_fft",
               "n_window", "mels", "frames", "f_min", "f_max", "top_db", "normalise", "mask_width", "lighting",
               "lighting_chance", *STAGES, "batch_size", "weight_decay", "seed", "epoch_windows", "single_crop"),
    "schedule": ("epochs", "lrs", "sizes", "mixup"),
}
ADDED: dict[str, dict] = {               # later knob: (the version that added it, its value in the code before)
    "recipe": {"pooling": ("3ccca79", "mean"), "noisy_share": ("3ccca79", 0.0), "balance": ("84c8f51", False),
               "view_speeds": ("a506ba5", []), "old_rounding": ("schema 2", False),     # or True: see ROUNDING
               # Before, a column with this name was ignored. A resumed run whose folds it changes is refused.
               "source_column": ("0.2.0", "source")},
    "schedule": {"wave_mix": ("3ccca79", 0.0), "speed": ("159f003", 0.0)},
}
RETIRED = {             # knob of a schedule that only matters for training: (the last commit with it, off value)
    "plain_share": ("532bc43", 0.0),                # share of epochs at the end without masks and mixing
    "wave_mix_across_sets": ("922c4ef", False),     # not a knob: wave_mix worked like this before 2a3759a
}
RENAMED = {             # old name: new name
    "schedule": {"rates": "lrs"},                                               # c9f85f2
    "model": {"rate": "sample_rate", "deviation": "std"},                       # c9f85f2, also of settings.json
    "progress": {"share": "pct_train", "rate": "lr"},                           # c9f85f2
    "state": {"grad_avg": "mean", "sqr_avg": "square"},                         # ef5b68d, of the optimizer
}
LATER: dict[str, dict] = {               # keys that older files do not have
    "settings": {"noisy_clips": None, "noisy_labels": None, "baseline": None},  # 3ccca79, 532bc43, schema 3
    "made_by": {"files": {}, "date": ""},                                       # 1d1709a, 18b5648
    "scores": {"seconds": None, "peak_memory_mb": {}},                          # 18b5648
}
# All commits with the knob "rates", and whether they rounded n_fft and hop in the old way. At 44.1 kHz it makes no
# difference for usual knobs, at 16 and 48 kHz it does.
ROUNDING = {"d037d4d": True, "f0e76a1": True, "64f25b6": True, "1d1709a": True, "18b5648": True,
            "37d0e82": False, "e960402": False}


def upgrade_knobs(knobs: dict, commit: str | None = None, sample_rate: int = 0) -> dict:
    """Convert the JSON of a recipe to the knobs of this version.

    Args:
        commit: the commit that wrote it, if known.
        sample_rate: of the clips in Hz, if known.
    Returns:
        A new dictionary with all knobs. It leaves out retired ones: `retired_knobs` returns them.
    Raises:
        TaggingError: a knob is unknown or missing, or an unknown commit leaves the rounding open.
    """
    if not isinstance(knobs, dict) or not all(isinstance(knobs.get(stage), dict) for stage in STAGES):
        raise TaggingError(f"The recipe has no schedules {shorten(STAGES)}. {REMEDY}")
    result = complete(knobs, "recipe", "", commit)
    for stage in STAGES:
        schedule = {name: value for name, value in rename(knobs[stage], "schedule").items() if name not in RETIRED}
        result[stage] = complete(schedule, "schedule", f"{stage}.", commit)
    if "old_rounding" not in knobs and any("rates" in knobs[stage] for stage in STAGES):
        result["old_rounding"] = needs_old_rounding(result, commit, sample_rate)
    return result


def complete(values: dict, scope: str, prefix: str, commit: str | None) -> dict:
    """Add the later knobs that are missing. Raise a TaggingError if a knob is unknown, or one of `FIRST` is missing."""
    unknown = [prefix + name for name in values if name not in FIRST[scope] and name not in ADDED[scope]]
    if unknown:
        raise TaggingError(f"The knobs {shorten(unknown)} are unknown. A newer version than this one (schema {SCHEMA}) "
                           f"has them{f': commit {commit[:7]}' if commit else ''}. {REMEDY}")
    missing = [prefix + name for name in FIRST[scope] if name not in values]
    if missing:
        raise TaggingError(f"The knobs {shorten(missing)} are missing, and every version writes them. {REMEDY}")
    return copy.deepcopy({name: before for name, (_, before) in ADDED[scope].items()} | values)


def needs_old_rounding(knobs: dict, commit: str | None, sample_rate: int) -> bool:
    """Return whether the code that wrote "rates" rounded in the old way. If both ways give the same, this is False.

    Raises:
        TaggingError: the commit is not in `ROUNDING`, and the two ways differ.
    """
    if commit and commit[:7] in ROUNDING:
        return ROUNDING[commit[:7]]
    n_fft, crop = round(knobs["n_fft"] * sample_rate / 44_100), round(knobs["crop_seconds"] * sample_rate)
    if n_fft % 2 or crop % knobs["frames"] == 0:
        raise TaggingError(f"Commit {commit} is unknown, and it decides how n_fft and hop were rounded. Add "
                           "\"old_rounding\" to the recipe in settings.json: true if it is older than 37d0e82.")
    return False


def retired_knobs(knobs: dict, commit: str | None = None) -> dict:
    """Return the settings of a recipe that this version cannot train with, as {"STAGE.KNOB": value}."""
    found: dict = {}
    for stage in STAGES:
        schedule = dict(knobs[stage])
        # Four commits have speed and neither of the next two knobs: 2a3759a, and three with the mixing from before.
        before = "speed" not in schedule or not ("plain_share" in schedule or "view_speeds" in knobs
                                                 or (commit or "").startswith("2a3759a"))
        if before and stage == "curated" and knobs.get("noisy_share") and schedule.get("wave_mix"):
            schedule["wave_mix_across_sets"] = True
        found |= {f"{stage}.{name}": schedule[name] for name, (_, off) in RETIRED.items()
                  if schedule.get(name, off) != off}
    return found


def require_trainable(settings: dict, where: object) -> None:
    """Check that this version can continue the training of a run, from the result of `upgrade_settings`.

    Raises:
        TaggingError: the run has a retired knob. The message names the last commit that has it.
    """
    for name, value in settings["retired"].items():
        raise TaggingError(f"{where} was trained with {name} = {value}. Commit {RETIRED[name.split('.')[-1]][0]} is "
                           "the last one that has this: continue with it, or train another --run. This version can "
                           "only predict with this run.")


def require_network(settings: dict, where: object) -> None:
    """Check that a run is one of a network, from the result of `upgrade_settings`.

    Raises:
        TaggingError: it is one of a baseline.
    """
    if settings["baseline"]:
        raise TaggingError(f"{where} is a baseline, {settings['baseline']['model']}, and a network is needed here. "
                           "Choose another --run.")


def upgrade_settings(settings: dict, where: object) -> dict:
    """Convert the content of settings.json.

    Args:
        where: the file, for messages.
    Returns:
        A new dictionary. Its "retired" holds the result of `retired_knobs`.
    Raises:
        TaggingError: a newer version wrote it, or a key is missing; or as `upgrade_knobs`.
    """
    schema = settings.get("schema", 1)
    if schema not in range(1, SCHEMA + 1):
        raise TaggingError(f"{where} has schema {schema}, and this version reads 1 to {SCHEMA}. A newer version wrote "
                           "it: update this one, or use that one.")
    settings = LATER["settings"] | rename(settings, "model")
    missing = {"recipe", "classes", "sample_rate", "initial_weights", "made_by"} - set(settings)
    if missing or not isinstance(settings["made_by"], dict):
        raise TaggingError(f"{where} has no {shorten(sorted(missing) or ['made_by'])}. {REMEDY}")
    commit = commit_of(settings["made_by"])
    try:
        recipe = upgrade_knobs(settings["recipe"], commit, settings["sample_rate"])
    except (TaggingError, TypeError, ArithmeticError) as error:
        raise TaggingError(f"{where}: {error}") from error
    return {"retired": retired_knobs(settings["recipe"], commit)} | settings | {
        "schema": SCHEMA, "recipe": recipe, "made_by": LATER["made_by"] | settings["made_by"]}


def commit_of(made_by: dict) -> str | None:
    """Return the commit in settings.json or in the record of a fold. Without a date it is at most 1d1709a."""
    return (str(made_by.get("commit") or "") or None) if "date" in made_by else "1d1709a"


def upgrade_model(about: dict, kind: str, commit: str | None = None) -> dict:
    """Convert the description in a weights file.

    Args:
        kind: one of `KINDS["model"]`.
        commit: `commit_of` the record of the fold.
    Raises:
        TaggingError: as `upgrade_knobs`.
    """
    about = rename(about, "model")
    commit = "64f25b6" if kind == KINDS["model"][0] else commit         # or one of the two before it
    return about | {"recipe": upgrade_knobs(about["recipe"], commit, about["sample_rate"])}


def upgrade_checkpoint(tensors: dict, about: dict, kind: str, order: list[int]) -> tuple[dict, dict]:
    """Convert a checkpoint.

    Args:
        kind: one of `KINDS["checkpoint"]`.
        order: position in `network.parameters()` of each parameter of the optimizer. Kind 1 numbers them by it.
    Returns:
        Tensors and description. Older files lack parts of "model" and "groups": keep the present values for them.
    Raises:
        TaggingError: as `upgrade_knobs`.
    """
    if "model" in about:
        model, progress = upgrade_model(about["model"], KINDS["model"][-1]), about["progress"]
    else:                                           # before c9f85f2
        model = rename({name: about[name] for name in ("mean", "deviation")}, "model")
        progress = {"seconds": 0.0} | rename({name: about[name] for name in ("step", "share", "rate")}, "progress")
        progress["rows"] = [rename(row, "progress") for row in about["rows"]]
    if kind == KINDS["checkpoint"][0]:
        moved = {f"slow.{old}": f"optimiser.{new}.slow" for new, old in enumerate(order)} | {
            f"optimiser.{old}.{before}": f"optimiser.{new}.{after}"
            for new, old in enumerate(order) for before, after in RENAMED["state"].items()}
        tensors = {moved.get(name, name): value for name, value in tensors.items()}
    return tensors, {"groups": [{"step": about.get("count")}] * 2} | about | {"model": model, "progress": progress}


def rename(content: dict, table: str) -> dict:
    """Return a copy with the names of this version."""
    return {RENAMED[table].get(name, name): value for name, value in content.items()}
