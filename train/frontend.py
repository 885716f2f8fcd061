"""Log-Mel on the training device, with torchaudio, from the same spec as the runtime's.

B batch, N samples, T frames, M mels.
"""

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from ..runtime.spec import FrontendSpec


class LogMel(nn.Module):
    """waveform [B, N] in [-1, 1] -> log-Mel [B, 1, T, M] in dB, float32.

    Never in half precision or TF32, where |STFT|^2 overflows and 1e-10 underflows; computed in float64, because beside a
    loud voice single precision moves bins at -90 dB by hundredths of a decibel. It is a thousandth of a training step.
    """

    def __init__(self, spec: FrontendSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=spec.sampling_rate,
            n_fft=spec.n_fft,
            win_length=spec.n_fft,
            hop_length=spec.hop,
            f_min=spec.f_min,
            f_max=spec.f_max,
            n_mels=spec.n_mels,
            wkwargs={"dtype": torch.float64},
            power=2.0,
            norm="slaney",
            mel_scale="slaney",
        ).double()

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """A waveform too short to reflect is continued with zeros first; T follows from the N that came."""
        frames = 1 + waveform.shape[-1] // self.spec.hop
        missing = max(0, self.spec.n_fft // 2 + 1 - waveform.shape[-1])
        with torch.autocast(waveform.device.type, enabled=False):
            mel = self.mel(F.pad(waveform.double(), (0, missing)))[..., :frames]  # [B, M, T]
            decibels: Tensor = 10 * mel.clamp(min=self.spec.power_floor).log10()
        return decibels.float().transpose(1, 2).unsqueeze(1)
