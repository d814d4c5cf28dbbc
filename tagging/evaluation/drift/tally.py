"""Count the tags of many sounds, of one model, in a period."""
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd

from tagging.errors import TaggingError, did_you_mean
from tagging.evaluation.drift.logs import TaggedSound


@dataclass
class Tally:
    """Counts of the tags of many sounds. It has the same size for any number of sounds.

    Attributes:
        strongest: (classes,) number of sounds with this strongest tag.
        detected: (classes,) number of sounds in which the class is at least as probable as `threshold`.
        total: (classes,) sum of the probabilities.
        all_detected: whether every line lists all classes from `threshold` upwards.
        complete: whether every line lists all classes.
    """
    classes: Sequence[str]
    threshold: float = 0.5
    sounds: int = 0
    untagged: int = 0           # sounds without any tag, because they were listed with a threshold
    highest: float = 0.0        # sum of the highest probabilities
    complete: bool = True
    all_detected: bool = True
    strongest: np.ndarray = field(init=False)
    detected: np.ndarray = field(init=False)
    total: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.places = {name: place for place, name in enumerate(self.classes)}
        self.strongest, self.detected = np.zeros((2, len(self.classes)), int)
        self.total = np.zeros(len(self.classes))

    def add(self, sound: TaggedSound) -> None:
        """
        Raises:
            TaggingError: the model does not have a class.
        """
        if not sound.tags:
            self.untagged += 1
            return
        try:
            places = [self.places[name] for name in sound.tags]
        except KeyError as error:
            name = str(error.args[0])
            raise TaggingError(f"{sound.where}: the run has no class '{name}'.{did_you_mean(name, list(self.classes))} "
                               "Choose the run whose model wrote the log.") from error
        values = list(sound.tags.values())
        self.sounds += 1
        highest = max(values)
        self.highest += highest
        self.strongest[places[values.index(highest)]] += 1
        if len(values) < len(self.classes):
            self.complete = False
            self.all_detected &= min(values) < self.threshold       # a class that is not listed is not more probable
        for place, value in zip(places, values):
            self.total[place] += value
            if value >= self.threshold:
                self.detected[place] += 1

    def add_frame(self, predictions: pd.DataFrame) -> "Tally":
        """Add a table of predictions, columns the classes, and return the tally."""
        values = predictions[list(self.classes)].to_numpy()
        self.sounds += len(values)
        self.highest += float(values.max(1).sum())
        self.strongest += np.bincount(values.argmax(1), minlength=len(self.classes))
        self.detected += (values >= self.threshold).sum(0)
        self.total += values.sum(0)
        return self


@dataclass
class LogTally:
    """The tally of a log, and that of each week in UTC, if the log has times.

    Attributes:
        weeks: the Monday of a week -> the tally of its sounds.
        first, last: times of the first and the last sound.
    """
    whole: Tally
    weeks: dict[date, Tally] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None

    def add(self, sound: TaggedSound) -> None:
        """
        Raises:
            TaggingError: as `Tally.add`.
        """
        self.whole.add(sound)
        if sound.time:
            time = sound.time.astimezone(UTC)
            self.first, self.last = min(time, self.first or time), max(time, self.last or time)
            monday = time.date() - timedelta(days=time.weekday())
            if monday not in self.weeks:
                self.weeks[monday] = Tally(self.whole.classes, self.whole.threshold)
            self.weeks[monday].add(sound)


def choose_sounds(sounds: Iterable[TaggedSound], since: date | None, until: date | None) -> Iterator[TaggedSound]:
    """Yield the sounds from the day `since` to the day `until`, in UTC.

    Raises:
        TaggingError: a line has no time.
    """
    for sound in sounds:
        if since or until:
            if sound.time is None:
                raise TaggingError(f"{sound.where}: there is no time. Leave out --since and --until.")
            day = sound.time.astimezone(UTC).date()
            if (since and day < since) or (until and day > until):
                continue
        yield sound


def require_one_model(sounds: Iterable[TaggedSound], model: str) -> Iterator[TaggedSound]:
    """Yield the sounds, and check that all come from one model.

    Args:
        model: its SHA-256, or "" for that of the first line.
    Raises:
        TaggingError: a line has another model.
    """
    for sound in sounds:
        if sound.model and not model:
            model = sound.model
        if sound.model and sound.model != model:
            raise TaggingError(f"{sound.where}: the tags are of model {sound.model[:10]}…, and not of {model[:10]}…. "
                               "Compare the logs of each model apart: choose the days with --since and --until, and "
                               "the model with --model.")
        yield sound
