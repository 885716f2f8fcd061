"""The network as it is deployed: no projector, with the frontend outside or inside the graph.

B batch, N samples, T frames, F spectrum bins, M mels, K targets.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.bundle import InputKind
from ..runtime.frontend import hann, mel_filterbank
from ..runtime.spec import FrontendSpec
from ..train.model import TwinsNetwork


def deployed_from_network(network: TwinsNetwork, spec: FrontendSpec, input_kind: InputKind) -> nn.Module:
    """Encoder and head in evaluation mode, taking `log_mel` or `waveform`."""
    module = LogMelModel(network) if input_kind == "logmel" else WaveformModel(network, spec)
    return module.eval()


class LogMelModel(nn.Module):
    """log_mel [B, 1, T, M] -> scores [B, K]."""

    def __init__(self, network: TwinsNetwork) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.head = network.head

    def forward(self, log_mel: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.head(self.encoder(log_mel))
        return scores


class WaveformModel(nn.Module):
    """waveform [B, N] in [-1, 1], levelled -> scores [B, K]."""

    def __init__(self, network: TwinsNetwork, spec: FrontendSpec) -> None:
        super().__init__()
        self.frontend = ConvLogMel(spec)
        self.model = LogMelModel(network)

    def forward(self, waveform: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.model(self.frontend(waveform))
        return scores


class ConvLogMel(nn.Module):
    """waveform [B, N] -> log_mel [B, 1, T, M] by a strided convolution with the windowed DFT basis.

    Not the ONNX STFT operator: it has no CUDA kernel in ONNX Runtime and its CPU kernel is slow. The basis is made in
    float64 and rounded once.
    """

    def __init__(self, spec: FrontendSpec) -> None:
        super().__init__()
        self.spec = spec
        phase = 2 * np.pi * np.outer(np.arange(spec.n_bins), np.arange(spec.n_fft)) / spec.n_fft  # [F, n_fft]
        basis = np.concatenate([np.cos(phase), -np.sin(phase)]) * hann(spec.n_fft)  # [2 F, n_fft]
        self.register_buffer("basis", torch.from_numpy(basis).float().unsqueeze(1))
        self.register_buffer("mel", torch.from_numpy(mel_filterbank(spec)).float())

    def forward(self, waveform: Tensor) -> Tensor:
        """Decibels, in float32."""
        half = self.spec.n_fft // 2
        reflected = F.pad(waveform.unsqueeze(1), (half, half), mode="reflect")
        spectrum = F.conv1d(reflected, self.get_buffer("basis"), stride=self.spec.hop)  # [B, 2 F, T]
        real, imaginary = spectrum.chunk(2, dim=1)
        power = real.square() + imaginary.square()
        mel = power.transpose(1, 2) @ self.get_buffer("mel")  # [B, T, M]
        decibels = mel.clamp(min=self.spec.power_floor).log() * (10 / math.log(10))
        return decibels.unsqueeze(1)
