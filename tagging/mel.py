"""The front end: waves in, log-mel images out, in batches and on the device. fastaudio calls it AudioToSpec."""
import torch
from torch import nn
from torchaudio.functional import melscale_fbanks


def as_float(waves: torch.Tensor) -> torch.Tensor:
    """int16 becomes float32 in [-1, 1); float stays as it is."""
    return waves.float() / 32768 if waves.dtype == torch.int16 else waves.float()


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels, the same for training, validation, test and export.

    HTK mel scale without normalisation, Hann window, reflection at the edges: torchaudio's MelSpectrogram and
    AmplitudeToDB, written out because the power from real and imaginary part is three times as fast on a CPU as the
    absolute value of a complex number.

    Args:
        sample_rate: Hz.
        n_fft, window, hop: samples.
        f_min, f_max: Hz.
        top_db: dB below the loudest cell of a clip at which its image is cut off.
    """

    def __init__(self, *, sample_rate: int, n_fft: int, window: int, hop: int, mels: int, f_min: float, f_max: float,
                 top_db: float):
        super().__init__()
        self.n_fft, self.hop, self.top_db = n_fft, hop, top_db
        bank = melscale_fbanks(n_fft // 2 + 1, f_min, f_max, mels, sample_rate, norm=None, mel_scale="htk")
        self.register_buffer("bank", bank.T.contiguous(), persistent=False)                  # (mels, frequencies)
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
