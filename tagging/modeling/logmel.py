"""The front end: waves in, log-mel images out, in batches and on the device. fastaudio calls it AudioToSpec."""
import torch
from torch import nn
from torchaudio.functional import melscale_fbanks

from tagging.recipe import Recipe, require
from tagging_lite.decoding.sound import RATES


def as_float(waves: torch.Tensor) -> torch.Tensor:
    """Convert int16 to float32 in [-1, 1). Floats are returned unchanged."""
    return waves.float() / 32768 if waves.dtype == torch.int16 else waves.float()


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels, the same for training, validation, test and export.

    HTK mel scale without normalisation, Hann window, reflection at the edges: torchaudio's MelSpectrogram and
    AmplitudeToDB. It is written out because the power from the real and imaginary parts is three times as fast on a CPU
    as the absolute value of a complex number.

    Args:
        sample_rate: Hz.
        n_fft, window, hop: samples.
        f_min, f_max: Hz.
        top_db: the image is clipped this many dB below its loudest cell.
    """

    bank: torch.Tensor          # (mels, frequencies)
    window: torch.Tensor        # (samples,)

    def __init__(self, *, sample_rate: int, n_fft: int, window: int, hop: int, mels: int, f_min: float, f_max: float,
                 top_db: float):
        super().__init__()
        self.n_fft, self.hop, self.top_db = n_fft, hop, top_db
        bank = melscale_fbanks(n_fft // 2 + 1, f_min, f_max, mels, sample_rate, norm=None, mel_scale="htk")
        self.register_buffer("bank", bank.T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    @torch.autocast("cuda", enabled=False)      # in bf16 the decibels are up to 0.15 off
    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """
        Args:
            waves: (batch, samples) int16, or float in [-1, 1).
        Returns:
            (batch, 1, mels, frames) float32, decibels, with 1 + samples // hop frames.
        """
        spectrum = torch.stft(as_float(waves), self.n_fft, self.hop, len(self.window), self.window, center=True,
                              pad_mode="reflect", return_complex=True)                       # (batch, freqs, frames)
        power = spectrum.real.square() + spectrum.imag.square()
        decibels = 10 * torch.log10((self.bank @ power).clamp(min=1e-10))                    # (batch, mels, frames)
        loudest = decibels.amax((1, 2), keepdim=True)                                        # (batch, 1, 1)
        return decibels.maximum(loudest - self.top_db).unsqueeze(1)


def build_log_mel(recipe: Recipe, sample_rate: int) -> LogMel:
    """Build the front end for clips of `sample_rate` Hz. A crop becomes an image of `recipe.frames` columns.

    Raises:
        TaggingError: a knob does not suit the sample rate.
    """
    require(RATES[0] <= sample_rate <= RATES[1], f"clips of {sample_rate} Hz cannot be used")
    scale, crop = sample_rate / 44_100, recipe.crop_samples(sample_rate)
    n_fft = 2 * round(recipe.n_fft * scale / 2)       # even, so that the last bin is at half the sample rate
    hop = crop // recipe.frames + 1
    if recipe.old_rounding:
        n_fft, hop = round(recipe.n_fft * scale), -(-crop // recipe.frames)
    require(crop > n_fft // 2, f"--crop-seconds {recipe.crop_seconds} is too short for --n-fft at {sample_rate} Hz")
    require(n_fft >= 16, f"--n-fft {recipe.n_fft} is too small for clips of {sample_rate} Hz")
    require(recipe.f_min < sample_rate / 2,
            f"--f-min {recipe.f_min} must be below half of the clips' {sample_rate} Hz")
    return LogMel(sample_rate=sample_rate, n_fft=n_fft, window=min(n_fft, round(recipe.n_window * scale)),
                  hop=hop, mels=recipe.mels, f_min=recipe.f_min,
                  f_max=min(recipe.f_max, sample_rate / 2), top_db=recipe.top_db)
