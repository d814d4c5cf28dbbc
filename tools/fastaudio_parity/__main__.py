"""Compare our transforms with those of fastaudio 1.0.2, which run in an environment of their own.

    make fastaudio-parity                                                  # builds the environment, and calls this
    python -m tools.fastaudio_parity --clips recording.wav "a folder"      # on your own clips

The exit code is 1 if a difference exceeds its tolerance. docs/fastaudio.md describes the table.
"""
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import soundfile

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.options import shown_default
from tools.fastaudio_parity.arrays import RATE, StoredClip, read_arrays, write_arrays
from tools.fastaudio_parity.compare import Reference, Row, compare, distance
from tools.fastaudio_parity.resampling import compare_resampling
from tools.fastaudio_parity.sounds import Sound, made_sounds, noise_sounds, read_sounds, recording

SCRIPT = Path(__file__).with_name("reference.py")


@dataclass(frozen=True, kw_only=True)
class FastaudioParity:
    """tools.fastaudio_parity."""
    # Sound files or folders to compare on. The default is the test clips, and sounds that this tool makes.
    clips: Annotated[tuple[Path, ...], shown_default("", "PATH [PATH ...]")] = ()
    arrays: Path = Path("tests/data/parity.npz")            # File with the test clips and fastaudio's arrays.
    write: bool = False     # Write the new arrays to --arrays, if all differences are within their tolerances.
    python: Path = Path(".venv-fastaudio/bin/python")       # Python of the environment with fastaudio.

    def check(self) -> None:
        """
        Raises:
            TaggingError: options do not go together, or the environment does not exist.
        """
        if self.clips and self.write:
            raise TaggingError("--write writes the test clips, so it does not go with --clips. Remove one of them.")
        if not self.python.is_file():
            raise TaggingError(f"{self.python} does not exist. Build the environment with `make fastaudio-parity`, or "
                               "choose another Python with --python.")


def main() -> None:
    args = parse(FastaudioParity, __doc__)
    args.check()
    stored = {} if args.clips else read_arrays(args.arrays)
    sounds = read_sounds(args.clips) if args.clips else [
        *(recording(name, clip.wave, RATE) for name, clip in stored.items()), *made_sounds(), *noise_sounds()]
    with TemporaryDirectory(prefix="fastaudio-parity-") as scratch:
        write_sounds(sounds, Path(scratch))
        references, versions = run_reference(args.python, len(sounds), Path(scratch))
        rows = compare(sounds, references, Path(scratch))
    rows += compare_resampling(sounds, references)
    new = {name: stored_clip(sound, theirs) for name, sound, theirs in zip(stored, sounds, references)}
    rows += compare_stored(stored, new)
    print(f"{len(sounds)} sounds; {', '.join(f'{name} {version}' for name, version in versions.items())}\n")
    print_table(rows)
    exceeded = [row.transform for row in rows if row.exceeded]
    if exceeded:
        print(f"\nAbove the tolerance ({len(exceeded)} of {len(rows)} rows): {'; '.join(exceeded)}")
        sys.exit(1)
    if args.write:
        before = args.arrays.read_bytes()
        write_arrays(args.arrays, new, versions)
        print(f"\n{args.arrays} is written{', with the same bytes' * (args.arrays.read_bytes() == before)}.")


def write_sounds(sounds: Sequence[Sound], folder: Path) -> None:
    """Write the sounds for both sides: 000.wav, 001.wav and so on, and resample.json with the rates to resample to."""
    for number, sound in enumerate(sounds):
        soundfile.write(folder / f"{number:03d}.wav", sound.wave, sound.rate, subtype="PCM_16")
    rates = {f"{number:03d}.wav": sound.new_rates for number, sound in enumerate(sounds)}
    (folder / "resample.json").write_text(json.dumps(rates))


def run_reference(python: Path, count: int, scratch: Path) -> tuple[list[Reference], dict[str, str]]:
    """Run reference.py on the sounds of `write_sounds`.

    Args:
        count: number of sounds.
        scratch: their folder, where it also writes its arrays.
    Returns:
        the arrays for each sound, and the versions of the packages.
    Raises:
        TaggingError: it fails.
    """
    out = scratch / "reference.npz"
    # -I: this environment's variables and this folder's modules do not count there.
    result = subprocess.run([python, "-I", SCRIPT, scratch, out], stderr=subprocess.PIPE, text=True, check=False,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})
    if result.returncode or not out.exists():
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise TaggingError(f"{SCRIPT.name} failed with {python}: {reason}\nIf packages are missing there, remove "
                           "that environment, and build it again with `make fastaudio-parity`.")
    with np.load(out) as file:
        arrays = dict(file)
    references: list[Reference] = [{} for _ in range(count)]
    for key, array in arrays.items():
        number, _, name = key.partition("_")
        if name:
            references[int(number)][name] = array
    return references, json.loads(str(arrays["versions"]))


def stored_clip(sound: Sound, theirs: Reference) -> StoredClip:
    """Return what the tests read about a clip."""
    first, last = theirs["trim"].tolist()
    return StoredClip(sound.wave, (first, last), theirs["logmel_60"].astype(np.float64), theirs["masks"])


def compare_stored(stored: dict[str, StoredClip], new: dict[str, StoredClip]) -> list[Row]:
    """Compare the arrays of the tests, which can come from other versions, with the new ones."""
    rows = {"trim": Row("stored bounds", "samples", 0), "logmel": Row("stored log-mel", "dB", 5e-3),
            "masks": Row("stored masks", "bins and dB", 5e-3)}
    for name, clip in stored.items():
        for key, row in rows.items():
            row.differences[name] = distance(np.array(getattr(clip, key)), np.array(getattr(new[name], key)))
    return list(rows.values()) if stored else []


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows as a table in Markdown."""
    table = [["transform", "unit", "tolerance", "smallest", "largest", "largest for"], *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(lines))


def cells(row: Row) -> list[str]:
    """Return the cells of a row of the table."""
    worst = max(row.differences, key=lambda name: row.differences[name])
    values = min(row.differences.values()), row.differences[worst]
    return [row.transform, row.unit, "-" if row.tolerance is None else f"{row.tolerance:g}",
            *(f"{value:.4g}" for value in values), "-" if values[0] == values[1] else worst]


if __name__ == "__main__":
    run_script(main)
