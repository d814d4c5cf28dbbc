"""Write the models of a run as one ONNX file: waveform in, probabilities out.

    python -m tools.export --run NAME [--folds 1] [--out MODEL.onnx]

    waves           (batch, samples) float32 in [-1, 1), of any length, at the sample rate of the metadata
    probabilities   (batch, classes), the mean over the models
    logits          (batch, models, classes), pooled over the windows of the whole clip

The metadata contain the classes and the audio settings. The file is compared with torch on clips before it is kept.
"""
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.evaluation.predict import make_tagger, model_info
from tagging.modeling.logmel import LogMel
from tagging.modeling.model import CPU, Model
from tagging.options import FoldedRunOptions, shown_default
from tagging.run import stage_folder
from tagging.utils.files import atomic, check_file
from tagging_lite.audio import SoundError, has_sound, read_mono
from tagging_lite.find import find_sounds
from tagging_lite.onnx import KIND, open_session

TOLERANCE = 1e-4        # largest difference in probability between torch and the exported model


@dataclass(frozen=True, kw_only=True)
class Export(FoldedRunOptions):
    """tools.export."""
    # ONNX file to write.
    out: Annotated[Path | None, shown_default("models/RUN/STAGE/model.onnx", "PATH")] = None
    # Sound files and folders on which the exported model is compared with torch, besides synthetic sounds.
    check: Annotated[tuple[Path, ...], shown_default("")] = ()


class ConvolvedLogMel(nn.Module):
    """LogMel with the Fourier transform as one convolution. onnxruntime computes it far faster than its STFT."""

    kernels: torch.Tensor       # (2 * frequencies, 1, width)
    bank: torch.Tensor          # (mels, frequencies)

    def __init__(self, log_mel: LogMel):
        super().__init__()
        self.hop, self.top_db = log_mel.hop, log_mel.top_db
        width = len(log_mel.window)
        self.skipped = (log_mel.n_fft - width) // 2     # the window is in the middle of n_fft samples
        self.rest = log_mel.n_fft - width - self.skipped
        self.padding = log_mel.n_fft // 2
        turns = torch.arange(width, dtype=torch.float64) + self.skipped
        angles = 2 * torch.pi / log_mel.n_fft * torch.outer(torch.arange(log_mel.n_fft // 2 + 1.), turns)
        waves = torch.cat([angles.cos(), angles.sin()]) * log_mel.window                    # (2 * frequencies, width)
        self.register_buffer("kernels", waves.float()[:, None])
        self.register_buffer("bank", log_mel.bank)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float -> (batch, 1, mels, frames) decibels"""
        padded = F.pad(waves[:, None], (self.padding, self.padding), mode="reflect")        # (batch, 1, samples)
        end = padded.shape[-1] - self.rest
        spectrum = F.conv1d(padded[..., self.skipped:end], self.kernels, stride=self.hop)   # (batch, 2 * freqs, frames)
        real, imaginary = spectrum.chunk(2, 1)
        power = real.square() + imaginary.square()
        decibels = 10 * torch.log10((self.bank @ power).clamp(min=1e-10))                   # (batch, mels, frames)
        loudest = decibels.amax((1, 2), keepdim=True)                                       # (batch, 1, 1)
        return decibels.maximum(loudest - self.top_db).unsqueeze(1)


class Exported(nn.Module):
    """All models on whole clips, through evenly placed windows."""

    def __init__(self, models: list[Model]):
        super().__init__()
        self.info = model_info(models[0])
        for model in models:
            assert isinstance(model.log_mel, LogMel)        # no model is exported twice
            model.log_mel = ConvolvedLogMel(model.log_mel)
            for module in model.modules():
                if hasattr(module, "weight_orig"):      # self-attention divides a weight by its norm in each call
                    nn.utils.remove_spectral_norm(module)
        self.models = nn.ModuleList(models)

    def forward(self, waves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, samples) -> probabilities (batch, classes), logits (batch, models, classes)"""
        batch, samples = waves.shape
        size = self.info.window
        step = max(1, int(size * (1 - self.info.overlap)))
        room, missing = torch.sym_max(samples - size, 0), torch.sym_max(size - samples, 0)
        count = 1 + (room + step - 1) // step                                               # as in place_windows
        share = torch.arange(count, dtype=torch.float64) / torch.sym_max(count - 1, 1)      # (windows,)
        starts = (share * room - missing / 2).round().long()
        places = size + starts[:, None] + torch.arange(size)                                # (windows, size)
        windows = F.pad(waves, (size, size))[:, places].reshape(-1, size)                   # (batch * windows, size)
        logits = torch.stack([model(windows) for model in self.models], 1)                  # (batch * windows, m, c)
        logits = logits.reshape(batch, count, *logits.shape[1:])                            # (batch, windows, m, c)
        pooled = logits.amax(1) if self.info.pooling == "maximum" else logits.mean(1)       # (batch, models, classes)
        return pooled.sigmoid().mean(1), pooled


def write_onnx(models: list[Model], references: list[Model], sounds: list[np.ndarray], path: Path) -> float:
    """Write the models of a run as one file, if the file computes the same as torch.

    Args:
        models: this function changes them.
        references: the same models, loaded a second time.
        sounds: (samples,) int16 each, for the comparison.
    Returns:
        the largest difference in probability.
    Raises:
        TaggingError: ONNX does not support a part of the network, the difference is too large, or the file cannot be
            written.
    """
    exported = Exported(models).eval()
    example = torch.zeros(2, 2 * exported.info.window)
    every = torch.export.Dim.DYNAMIC
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")                 # the exporter warns about its own parts
            program = torch.onnx.export(
                exported, (example,), dynamo=True, verbose=False, input_names=["waves"],
                output_names=["probabilities", "logits"], dynamic_shapes=({0: every, 1: every},))
    except torch.onnx.OnnxExporterError as error:
        raise TaggingError(f"The network {models[0].metadata.recipe.network} cannot be exported: {error}. Export a run "
                           "with another --network.") from error
    assert program is not None      # only the old exporter, without dynamo, returns None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()                         # stack traces with the paths of this machine
    program.model.metadata_props.update(kind=KIND, model_info=json.dumps(asdict(exported.info)))
    with atomic(path) as temporary:
        program.save(temporary, external_data=False)
        difference = largest_difference(temporary, references, sounds)
        if not difference <= TOLERANCE:
            raise TaggingError(f"{path} was not written: its probabilities differ from torch's by {difference:.2g}, "
                               f"which is more than {TOLERANCE}. Export a run with another --network.")
    return difference


def largest_difference(path: Path, models: list[Model], sounds: list[np.ndarray]) -> float:
    """Return the largest difference in probability between the file and torch over all sounds."""
    session, tagger, differences = open_session(path), make_tagger(models), []
    for wave in sounds:
        found, = session.run(["probabilities"], {"waves": wave[None].astype(np.float32) / 32768})   # (1, classes)
        differences.append(np.abs(found[0] - tagger.tag(wave)).max())
    return float(max(differences))


def synthetic_sounds(window: int) -> list[np.ndarray]:
    """Return noise and rising tones, shorter and longer than a window: (samples,) int16 each."""
    rng, sounds = np.random.default_rng(0), []
    for samples in (window // 3, window - 1, window, window + 1, 2 * window, 5 * window + 7):
        rise = np.cumsum(np.linspace(0.01, 0.9, samples)) * np.pi / 2
        sounds += [rng.normal(0, 3000, samples), 8000 * np.sin(rise) + rng.normal(0, 30, samples)]
    return [sound.astype(np.int16) for sound in sounds]


def read_sounds(paths: Sequence[Path], sample_rate: int) -> list[np.ndarray]:
    """Read the sounds of --check: (samples,) int16 each. Print the files and folders that are left out.

    Raises:
        TaggingError: a file cannot be used.
    """
    sounds, found = [], find_sounds(paths)
    for path in found.paths:
        try:
            sounds += [wave for wave in read_mono(path, sample_rate) if has_sound(wave)]
        except SoundError as error:
            raise TaggingError(f"--check {path} cannot be used: {error}. Choose other files.") from error
    for line in found.describe():
        print(f"--check: {line}")
    return sounds


def main() -> None:
    args = parse(Export, __doc__)
    folder = stage_folder(args.models, args.run, args.stage)
    out = args.out or folder.path / "model.onnx"
    check_file(out, "--out")
    models, references = (folder.load_models(args.folds, CPU) for _ in range(2))
    info = model_info(models[0])
    sounds = synthetic_sounds(info.window) + read_sounds(args.check, info.sample_rate)
    difference = write_onnx(models, references, sounds, out)
    print(f"{out}: {len(models)} models, {len(info.classes)} classes, {info.sample_rate} Hz, "
          f"{out.stat().st_size / 2**20:.1f} MB\nThe probabilities differ from torch's by at most {difference:.1e} on "
          f"{len(sounds)} sounds.")


if __name__ == "__main__":
    run_script(main)
