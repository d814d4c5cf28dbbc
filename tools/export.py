"""Write the models of a run as one ONNX file: waveform in, probabilities out.

    python -m tools.export --run NAME [--folds 1] [--out MODEL.onnx]

    waves           (batch, samples) float32 in [-1, 1), of any length, at the sample rate of the metadata
    trim_db         optional number, ends this many dB below the loudest frame are trimmed; 0 keeps them
    probabilities   (batch, classes), the mean over the models; 0 for a clip of all silence
    logits          (batch, models, classes), pooled over the windows of the whole clip
    features        (batch, models, features), the input of the last layer, the mean over the windows

The probabilities are those of tools.tag. The metadata contain the classes, the audio settings, and the thresholds of
`tools.tag --threshold auto`. The file is compared with torch on clips before it is kept.
"""
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tagging.cli import parse, run_script
from tagging.errors import TaggingError
from tagging.evaluation.predict import make_tagger, model_info, models_checksum
from tagging.evaluation.thresholds import add_thresholds
from tagging.modeling.logmel import LogMel
from tagging.modeling.model import CPU, Model
from tagging.options import FoldedRunOptions, shown_default
from tagging.run import stage_folder
from tagging.utils.files import atomic, check_file
from tagging_lite.audio import SoundError, has_sound, make_trim, read_mono, trim_silence
from tagging_lite.find import find_sounds
from tagging_lite.onnx import CHECKSUM_KEY, KIND, format_info, open_session
from tagging_lite.tagger import ModelInfo
from tools.clip_graph import ClipGraph, halve_weights, replace_mish

TOLERANCE = 1e-4        # largest difference in probability between torch and the exported model
HALF_TOLERANCE = 1e-3   # the same for weights in float16


@dataclass(frozen=True, kw_only=True)
class Export(FoldedRunOptions):
    """tools.export."""
    # ONNX file to write.
    out: Annotated[Path | None, shown_default("models/RUN/STAGE/model.onnx", "PATH")] = None
    # Store the weights as float16, in half the space. The export fails if a probability changes by more than 0.001.
    fp16: bool = False
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


class Networks(nn.Module):
    """All models of a run on windows. They share one front end."""

    def __init__(self, models: Sequence[Model]):
        super().__init__()
        log_mel = models[0].log_mel
        assert isinstance(log_mel, LogMel)
        self.log_mel, self.models = ConvolvedLogMel(log_mel), nn.ModuleList(models)
        for module in self.modules():
            if hasattr(module, "weight_orig"):      # self-attention divides a weight by its norm in each call
                nn.utils.remove_spectral_norm(module)

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(windows, samples) -> logits (windows, models, classes), features (windows, models, features)"""
        decibels, logits, features = self.log_mel(windows), [], []
        for model in self.models:
            assert isinstance(model, Model)
            images = (decibels - model.metadata.mean) / model.metadata.std
            features.append(model.network.features(model.resize(images)))
            logits.append(model.network.head(features[-1]))
        return torch.stack(logits, 1), torch.stack(features, 1)


def write_onnx(models: list[Model], references: list[Model], sounds: list[np.ndarray], path: Path,
               info: ModelInfo | None = None, half: bool = False) -> float:
    """Write the models of a run as one file, if the file computes the same as torch.

    Args:
        models: this function changes them.
        references: the same models, loaded a second time.
        sounds: (samples,) int16 each, for the comparison.
        info: with thresholds. None has none.
        half: write the weights as float16.
    Returns:
        the largest difference in probability.
    Raises:
        TaggingError: ONNX does not support a part of the network, the difference is too large, or the file cannot be
            written.
    """
    networks, info = Networks(models).eval(), info or model_info(models[0])
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")                 # the exporter warns about its own parts
            program = torch.onnx.export(
                networks, (torch.zeros(2, info.window),), dynamo=True, verbose=False, input_names=["windows"],
                output_names=["window_logits", "window_features"], dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    except torch.onnx.OnnxExporterError as error:
        raise TaggingError(f"The network {models[0].metadata.recipe.network} cannot be exported: {error}. Export a run "
                           "with another --network.") from error
    assert program is not None      # only the old exporter, without dynamo, returns None
    replace_mish(program.model.graph)
    if half:
        halve_weights(program.model.graph)
    ClipGraph(program.model.graph, info).wrap()
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()                         # stack traces with the paths of this machine
    program.model.metadata_props.update({"kind": KIND, "model_info": format_info(info),
                                         CHECKSUM_KEY: models_checksum(references)})
    with atomic(path) as temporary:
        program.save(temporary, external_data=False)
        difference, tolerance = largest_difference(temporary, references, sounds), HALF_TOLERANCE if half else TOLERANCE
        if not difference <= tolerance:
            raise TaggingError(f"{path} was not written: its probabilities differ from torch's by {difference:.2g}, "
                               f"which is more than {tolerance}. "
                               + ("Export without --fp16." if half else "Export a run with another --network."))
    return difference


def largest_difference(path: Path, models: list[Model], sounds: list[np.ndarray]) -> float:
    """Return the largest difference in probability between the file alone and `Tagger.tag_file` over all sounds."""
    session, tagger, differences = open_session(path), make_tagger(models), []
    trim = make_trim(tagger.info.trim_db)
    for wave in sounds:
        found, = session.run(["probabilities"], {"waves": wave[None].astype(np.float32) / 32768})   # (1, classes)
        expected = tagger.tag(trim_silence(wave, tagger.info.sample_rate, trim))
        differences.append(np.abs(found[0] - expected).max())
    return float(np.max(differences))       # NaN if one of them is


def synthetic_sounds(window: int) -> list[np.ndarray]:
    """Return noise and rising tones, shorter and longer than a window: (samples,) int16 each.

    The longer ones are quiet at both ends.
    """
    rng, sounds = np.random.default_rng(0), []
    for samples in (window // 3, window - 1, window, window + 1, 2 * window, 5 * window + 7):
        rise = np.cumsum(np.linspace(0.01, 0.9, samples)) * np.pi / 2
        loudness = np.ones(samples)
        if samples > 2 * window:
            loudness[:window // 2] = loudness[-window:] = 0.001
        noise, tone = rng.normal(0, 3000, samples), 8000 * np.sin(rise) + rng.normal(0, 30, samples)
        sounds += [(loudness * wave).astype(np.int16) for wave in (noise, tone)]
    return sounds


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
    info = add_thresholds(model_info(models[0]), folder, args.folds)
    sounds = synthetic_sounds(info.window) + read_sounds(args.check, info.sample_rate)
    difference = write_onnx(models, references, sounds, out, info, args.fp16)
    print(f"{out}: {len(models)} models, {len(info.classes)} classes, {info.sample_rate} Hz, "
          f"{out.stat().st_size / 2**20:.1f} MB\nThe probabilities differ from torch's by at most {difference:.1e} on "
          f"{len(sounds)} sounds.")


if __name__ == "__main__":
    run_script(main)
