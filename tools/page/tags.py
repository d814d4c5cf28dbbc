"""What the page shows of a tagged sound, as JSON."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagging.reporting.charts import Bars, Column
from tagging_lite.audio import concatenate, has_sound, read_mono, resample
from tagging_lite.decoding.sound import RATES
from tagging_lite.errors import SoundError
from tagging_lite.pictures import frequency_ticks, printable
from tagging_lite.similar import find_similar
from tagging_lite.tagger import Tagger
from tools.page.render import show
from tools.page.sounds import LONGEST, Sounds

BARS = 10               # tags shown as bars
ROWS = 8                # tags of the timeline
SIMILAR = 10            # similar sounds


@dataclass(frozen=True)
class Tagging:
    """Tags uploads, recordings and the microphone."""
    tagger: Tagger
    sounds: Sounds
    index: Path | None = None       # embeddings of an archive, from `tools.tag --embeddings --out`

    def tag_upload(self, path: Path, name: str) -> dict[str, object]:
        """Tag a file, keep its sound, and return both for the page.

        Args:
            name: the name of the file for the reader.
        Raises:
            SoundError: the file cannot be used. The message names the file.
            TaggingError: the index cannot be used.
        """
        info = self.tagger.info
        try:
            result = self.tagger.tag_file(path, True, LONGEST, embeddings=self.index is not None)
            wave = concatenate(read_mono(path, info.sample_rate, LONGEST))
        except SoundError as error:
            raise SoundError(f"{name} cannot be tagged: {str(error).replace(str(path), name)}.") from error
        tags = self.tagger.top_tags(result.probabilities, BARS)
        assert result.timeline is not None
        return {**describe_sound(self.sounds.add(wave, info.sample_rate), name, len(wave), info.sample_rate),
                "found": f"{printable(tags[0][0])} {tags[0][1]:.2f}", "notes": list(result.notes),
                "similar": None if result.embedding is None else self.similar(result.embedding),
                "timeline": timeline_rows(result.timeline, info.classes),
                "bars": show(Bars("Probability of each tag", "tag", [tag for tag, _ in tags],
                                  [Column("probability", [value for _, value in tags], end=1)]), "")}

    def similar(self, embedding: np.ndarray) -> list[dict[str, str]]:
        """Return the sounds of the archive that are most similar to an embedding (features,)."""
        assert self.index is not None
        matches = find_similar(self.tagger, embedding, self.index, SIMILAR)
        return [{"name": printable(match.path), "text": f"similarity {match.similarity:.2f}",
                 "sound": self.sounds.offer(Path(match.path)) if Path(match.path).is_file() else ""}
                for match in matches]

    def tag_moment(self, samples: bytes, rate: int) -> dict[str, object]:
        """Tag the newest samples of a microphone.

        Args:
            samples: int16, little-endian, one channel, about one window of the model.
            rate: Hz.
        Returns:
            probabilities of all classes, or None in silence.
        Raises:
            SoundError: the samples cannot be used.
        """
        info = self.tagger.info
        if not RATES[0] <= rate <= RATES[1]:
            raise SoundError(f"The sample rate of {rate} Hz is not supported")
        if not samples or len(samples) % 2:
            raise SoundError("The samples must be 16 bit integers, and at least one")
        wave = np.frombuffer(samples, "<i2")
        if not has_sound(wave):
            return {"probabilities": None}
        wave = resample(wave.astype(np.int16), rate, info.sample_rate)[-info.window:]
        return {"probabilities": [round(float(value), 4) for value in self.tagger.tag(wave)]}


def describe_sound(sound: str, name: str, samples: int, rate: int) -> dict[str, object]:
    """Return what the player of the page needs of a sound."""
    return {"sound": sound, "name": printable(name), "seconds": samples / rate,
            "ticks": [{"place": place, "text": text} for place, text in frequency_ticks(rate)]}


def timeline_rows(timeline: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, object]]:
    """Return the tags with the highest peaks: their names, and a probability for each second.

    Args:
        timeline: (seconds, classes).
    """
    shown = np.argsort(-timeline.max(0), kind="stable")[:ROWS]
    return [{"name": printable(classes[place]), "values": [round(float(value), 4) for value in timeline[:, place]]}
            for place in shown]
