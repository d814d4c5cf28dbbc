"""Write the models of a run as one ONNX file: waveform in, probabilities out.

    python -m tools.export --run NAME [--folds 1] [--out MODEL.onnx]

    waves           (batch, samples) float32 in [-1, 1), at the sample rate in the metadata, of any length
    probabilities   (batch, classes), the mean over the models
    logits          (batch, models, classes), each pooled over the windows of the whole clip

The metadata hold the classes and audio settings. What is written is compared with torch on clips before it is kept.
"""
import argparse
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tagging.cli import run_script
from tagging.errors import TaggingError
from tagging.evaluation.predict import make_tagger, model_info
from tagging.modeling.logmel import LogMel
from tagging.modeling.model import Model
from tagging.recipe import STAGES
from tagging.run import stage_folder
from tagging.utils.files import atomic
from tagging_lite.audio import SoundError, has_sound, read_mono
from tagging_lite.command import find_sounds
from tagging_lite.onnx import KIND, open_session

TOLERANCE = 1e-4        # in probability, between torch and the exported model


class ConvolvedLogMel(nn.Module):
    """LogMel with the Fourier transform as one convolution, which onnxruntime computes far faster than its STFT."""

    def __init__(self, log_mel: LogMel):
        super().__init__()
        self.hop, self.top_db = log_mel.hop, log_mel.top_db
        width = len(log_mel.window)
        self.skipped = (log_mel.n_fft - width) // 2     # the window stands in the middle of n_fft samples
        self.padding = log_mel.n_fft // 2
        turns = torch.arange(width, dtype=torch.float64) + self.skipped
        angles = 2 * torch.pi / log_mel.n_fft * torch.outer(torch.arange(log_mel.n_fft // 2 + 1.), turns)
        waves = torch.cat([angles.cos(), angles.sin()]) * log_mel.window                    # (2 * frequencies, width)
        self.register_buffer("kernels", waves.float()[:, None])
        self.register_buffer("bank", log_mel.bank)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float -> (batch, 1, mels, frames) decibels"""
        padded = F.pad(waves[:, None], (self.padding, self.padding), mode="reflect")        # (batch, 1, samples)
        end = padded.shape[-1] - self.skipped
        spectrum = F.conv1d(padded[..., self.skipped:end], self.kernels, stride=self.hop)   # (batch, 2 * freqs, frames)
        real, imaginary = spectrum.chunk(2, 1)
        power = real.square() + imaginary.square()
        decibels = 10 * torch.log10((self.bank @ power).clamp(min=1e-10))                   # (batch, mels, frames)
        loudest = decibels.amax((1, 2), keepdim=True)                                       # (batch, 1, 1)
        return decibels.maximum(loudest - self.top_db).unsqueeze(1)


class Exported(nn.Module):
    """Whole clips through evenly placed windows, by all models."""

    def __init__(self, models: list[Model]):
        super().__init__()
        self.info = model_info(models[0])
        for model in models:
            model.log_mel = ConvolvedLogMel(model.log_mel)
            for module in model.modules():
                if hasattr(module, "weight_orig"):      # self-attention divides a weight by its norm in each pass
                    nn.utils.remove_spectral_norm(module)
        self.models = nn.ModuleList(models)

    def forward(self, waves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, samples) -> probabilities (batch, classes), logits (batch, models, classes)"""
        batch, samples = waves.shape
        size = self.info.window
        step = max(1, int(size * (1 - self.info.overlap)))
        room, lack = torch.sym_max(samples - size, 0), torch.sym_max(size - samples, 0)
        count = 1 + (room + step - 1) // step                                               # as place_windows has it
        share = torch.arange(count, dtype=torch.float64) / torch.sym_max(count - 1, 1)      # (windows,)
        starts = (share * room - lack / 2).round().long()
        places = size + starts[:, None] + torch.arange(size)                                # (windows, size)
        windows = F.pad(waves, (size, size))[:, places].reshape(-1, size)                   # (batch * windows, size)
        logits = torch.stack([model(windows) for model in self.models], 1)                  # (batch * windows, m, c)
        logits = logits.reshape(batch, count, *logits.shape[1:])                            # (batch, windows, m, c)
        logits = logits.amax(1) if self.info.pooling == "maximum" else logits.mean(1)    # (batch, models, classes)
        return logits.sigmoid().mean(1), logits


def write_onnx(models: list[Model], references: list[Model], sounds: list[np.ndarray], path: Path) -> float:
    """Write models of one run as one file, if that computes what torch does.

    Args:
        models: changed by it.
        references: the same models once more.
        sounds: (samples,) int16 each, to compare on.
    Returns:
        the largest difference in probability.
    Raises:
        TaggingError: the network has something that ONNX has not, the difference is too large, or the file cannot be
            written.
    """
    exported = Exported(models).eval()
    example = torch.zeros(2, 2 * exported.info.window)
    every = torch.export.Dim.DYNAMIC
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")                 # of the exporter about its own parts
            program = torch.onnx.export(
                exported, (example,), dynamo=True, verbose=False, input_names=["waves"],
                output_names=["probabilities", "logits"], dynamic_shapes=({0: every, 1: every},))
    except torch.onnx.OnnxExporterError as error:
        raise TaggingError(f"{models[0].about.recipe.network} cannot be exported: {error}.") from error
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()                         # stack traces, with the paths of this machine
    program.model.metadata_props.update(kind=KIND, model_info=json.dumps(asdict(exported.info)))
    with atomic(path) as temporary:
        program.save(temporary, external_data=False)
        difference = largest_difference(temporary, references, sounds)
        if not difference <= TOLERANCE:
            raise TaggingError(f"{path} was not written: its probabilities would differ from torch's by "
                               f"{difference:.2g}, and at most {TOLERANCE} is accepted. Export another network.")
    return difference


def largest_difference(path: Path, models: list[Model], sounds: list[np.ndarray]) -> float:
    """The largest difference in probability, over all sounds, between the file's own windows and torch's."""
    session, tagger, differences = open_session(path), make_tagger(models), []
    for wave in sounds:
        found, = session.run(["probabilities"], {"waves": wave[None].astype(np.float32) / 32768})   # (1, classes)
        differences.append(np.abs(found[0] - tagger.tag(wave)).max())
    return float(max(differences))


def made_up_sounds(window: int) -> list[np.ndarray]:
    """Noise, and a rising tone, shorter and longer than a window: (samples,) int16 each."""
    rng, sounds = np.random.default_rng(0), []
    for samples in (window // 3, window - 1, window, window + 1, 2 * window, 5 * window + 7):
        rise = np.cumsum(np.linspace(0.01, 0.9, samples)) * np.pi / 2
        sounds += [rng.normal(0, 3000, samples), 8000 * np.sin(rise) + rng.normal(0, 30, samples)]
    return [sound.astype(np.int16) for sound in sounds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="name of the run: models/RUN")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the runs lie")
    parser.add_argument("--stage", choices=STAGES, default="curated", help="which of the run's stages")
    parser.add_argument("--folds", type=int, nargs="+", default=(), help="which folds; the mean of all by default")
    parser.add_argument("--out", type=Path, help="the file to write (default: models/RUN/STAGE/model.onnx)")
    parser.add_argument("--check", type=Path, nargs="+", default=(), metavar="PATH",
                        help="sound files and folders to compare with torch on, beside made-up sounds")
    args = parser.parse_args()

    folder = stage_folder(args.models, args.run, args.stage)
    models, references = (folder.load_models(args.folds, torch.device("cpu")) for _ in range(2))
    info = model_info(models[0])
    sounds = made_up_sounds(info.window)
    for path in find_sounds(args.check):
        try:
            sounds += [wave for wave in read_mono(path, info.sample_rate) if has_sound(wave)]
        except SoundError as error:
            raise TaggingError(f"--check {path}: {error}. Name other files.") from error
    out = args.out or folder.path / "model.onnx"
    difference = write_onnx(models, references, sounds, out)
    print(f"{out}: {len(models)} models, {len(info.classes)} classes, {info.sample_rate} Hz, "
          f"{out.stat().st_size / 2**20:.1f} MB\nprobabilities differ from torch's by {difference:.1e} at most, "
          f"on {len(sounds)} sounds")


if __name__ == "__main__":
    run_script(main)
