"""The option --threshold: one number for all classes, or numbers that suit each class."""
import math

import numpy as np

from tagging_lite.errors import TaggingError, shorten
from tagging_lite.tagger import ModelInfo

AUTO, PRECISION = "auto", "precision:"
HELP = ("Leave out tags with a lower probability. A number from 0 to 1; or auto, the threshold of each class that has "
        "the best F1 out of fold; or precision:P, the lowest threshold of each class whose tags have at least the "
        "precision P out of fold, such as precision:0.9.")


def parse_threshold(text: str) -> tuple[str, float]:
    """Return the kind of a threshold ("", AUTO or PRECISION) and its number, which is 0 for AUTO.

    Raises:
        TaggingError: it is none of them, or not from 0 to 1.
    """
    kind = AUTO if text == AUTO else PRECISION if text.startswith(PRECISION) else ""
    try:
        value = 0.0 if kind == AUTO else float(text.removeprefix(kind))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise TaggingError(f"--threshold '{text}' must be a number from 0 to 1, {AUTO}, or {PRECISION}P with a number "
                           f"P from 0 to 1, such as {PRECISION}0.9.")
    return kind, value


def choose_thresholds(text: str, info: ModelInfo) -> tuple[np.ndarray, list[str]]:
    """Return the threshold of each class for the option --threshold, and remarks.

    Returns:
        (classes,), infinite for a class that gets no tags.
        a remark on classes that get no tags.
    Raises:
        TaggingError: the option is invalid, or the model has no thresholds.
    """
    kind, value = parse_threshold(text)
    if not kind:
        return np.full(len(info.classes), value), []
    if not info.thresholds or not info.precisions:
        raise TaggingError(f"The model has no thresholds for --threshold {text}. Export it again with "
                           "`python -m tools.export --run NAME`, or give a number.")
    if kind == AUTO:
        chosen, reason = np.array(info.thresholds), "These classes have no label in the out-of-fold clips"
    else:
        chosen = np.array([next((threshold for precision, threshold in steps if precision >= value), math.inf)
                           for steps in info.precisions])
        reason = f"These classes do not reach a precision of {value:g} out of fold"
    without = [name for name, threshold in zip(info.classes, chosen) if math.isinf(threshold)]
    return chosen, [f"note: {reason} and get no tags: {shorten(without)}"] if without else []
