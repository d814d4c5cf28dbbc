"""An exported model gives the tags of tools.tag to a program that has onnxruntime, and nothing of this repository."""
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import soundfile
from test_export import CLASSES, RATE, silent_ends
from test_export import two as two

from tagging.evaluation.predict import make_tagger
from tagging_lite.errors import SoundError

ALONE = """
import json, sys, wave
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
for path in sys.argv[2:]:
    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    probabilities, = session.run(["probabilities"], {"waves": samples[None].astype(np.float32) / 32768})
    print(json.dumps(probabilities[0].tolist()))
assert not [name for name in sys.modules if name.startswith(("tagging", "tools", "torch"))]
"""


@pytest.fixture
def sounds(tmp_path):
    """Sounds with silence at both ends, of one sample and more, and of nothing but silence: wav files."""
    rng, paths = np.random.default_rng(0), []
    for samples in (1, 2, 319, 320, 2047, 5000, 7999, 8000, 8001, 40_000, 50_001, 77_777):
        waves = [silent_ends(rng, samples, 9000, quiet) for quiet in (0, 3, 900)]
        for wave in [*waves, np.zeros(samples, np.int16)]:
            paths.append(tmp_path / f"{len(paths)}.wav")
            soundfile.write(paths[-1], wave, RATE)
    return paths


def test_a_program_that_imports_nothing_of_ours_gets_the_tags_of_the_tagger(two, sounds):
    tagger, silent, longest = make_tagger(two[0]), 0, 0.0
    result = subprocess.run([sys.executable, "-I", "-c", ALONE, two[1], *sounds], capture_output=True, text=True,
                            check=True)
    for path, line in zip(sounds, result.stdout.splitlines(), strict=True):
        found = np.array(json.loads(line))
        try:
            expected = tagger.tag_file(path).probabilities
        except SoundError as error:
            assert "all silence" in str(error)
            expected = np.zeros(len(CLASSES))
            silent += 1
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=str(path))
        longest = max(longest, np.abs(tagger.tag(soundfile.read(path, dtype="int16")[0]) - found).max())
    assert silent >= 12 and longest > 1e-3, "the sounds do not depend on the trimming"


def test_samples_of_more_than_16_bits_are_rounded_as_the_tagger_rounds_them(two, tmp_path):
    wave = silent_ends(np.random.default_rng(3), 30_000, 9000, 3) / 32768
    wave += np.random.default_rng(4).uniform(-0.4, 0.4, len(wave)) / 32768
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", wave, RATE, subtype="PCM_16")
    session = onnxruntime.InferenceSession(two[1])
    expected = make_tagger(two[0]).tag_file(tmp_path / "a.wav").probabilities
    for name in ("a.wav", "b.wav"):
        samples = soundfile.read(tmp_path / name, dtype="float32")[0]
        found, = session.run(["probabilities"], {"waves": samples[None]})
        np.testing.assert_allclose(found[0], expected, atol=1e-5)
