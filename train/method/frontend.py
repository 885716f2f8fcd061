"""Log-Mel on the training device, from the same spec as the runtime's.

B batch, N samples, F spectrum bins, T frames, M mels.
"""

from typing import Final

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from ...runtime.spec import FrontendSpec

_CPU_CLIPS: Final = 4  # at a time, so that their spectra stay in the processor's cache


class LogMel(nn.Module):
    """waveform [B, N] in [-1, 1] -> log-Mel [B, 1, T, M] in dB, float32.

    Everything up to the power spectrum is in float64: in single precision, bins at -90 dB beside a
    loud voice are wrong by hundredths of a decibel. The rest is in float32, never in half precision
    or TF32, where |STFT|^2 overflows and 1e-10 underflows. The Mel filters are torchaudio's.
    """

    def __init__(self, spec: FrontendSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("window", torch.hann_window(spec.n_fft, dtype=torch.float64))
        filters = torchaudio.functional.melscale_fbanks(
            spec.n_bins,
            spec.f_min,
            spec.f_max,
            spec.n_mels,
            spec.sampling_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", filters)  # [F, M]

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, N] -> [B, 1, T, M]; T follows from N. Zeros continue a waveform too short to reflect.

        `lengths` [B] are the samples of each recording. With pad zero_db the frames behind the
        recording are 0 dB.
        """
        parts = waveform.split(_CPU_CLIPS) if waveform.device.type == "cpu" else (waveform,)
        with torch.autocast(waveform.device.type, enabled=False):
            log_mel = torch.cat([self._decibels(part) for part in parts]).unsqueeze(1)
        if lengths is not None and self.spec.pad == "zero_db":
            frame = torch.arange(log_mel.shape[2], device=lengths.device)
            behind = frame >= 1 + lengths[:, None] // self.spec.hop  # [B, T]
            return log_mel.masked_fill(behind[:, None, :, None], 0.0)
        return log_mel

    def _decibels(self, waveform: Tensor) -> Tensor:
        """[B, N] -> [B, T, M]."""
        spec, frames = self.spec, self.spec.frames_of(waveform.shape[-1])
        missing = max(0, spec.n_fft // 2 + 1 - waveform.shape[-1])
        spectrum = torch.stft(
            F.pad(waveform.double(), (0, missing)),
            spec.n_fft,
            spec.hop,
            window=self.get_buffer("window"),
            return_complex=True,
        )  # [B, F, T]
        squares = torch.view_as_real(spectrum).square()
        # Not .sum(-1), which takes ten times as long on a CPU: more than all the rest here.
        power = (squares[..., 0] + squares[..., 1]).float()[..., :frames]
        mel = power.transpose(1, 2) @ self.get_buffer("filters")
        decibels: Tensor = 10 * mel.clamp(min=spec.power_floor).log10()
        return decibels
