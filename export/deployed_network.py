"""The deployed network: without the projector, with the frontend outside or inside the graph.

B batch, N samples, T frames, F spectrum bins, M mels, K targets.
"""

import copy
import math
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..runtime.errors import ModelError
from ..runtime.frontend import hann, input_shape, mel_filterbank
from ..runtime.spec import FrontendSpec, InputKind
from ..train.method.encoders import Encoder
from ..train.method.model import TwinsNetwork


def deployed_from_network(
    network: TwinsNetwork,
    spec: FrontendSpec,
    input_kind: InputKind,
    *,
    half: bool = False,
    embeddings: bool = False,
) -> nn.Module:
    """Encoder and head in evaluation mode. The input is `log_mel` or `waveform`, float32 like the output.

    With `half`, the encoder behind bn0 computes in float16, and its BatchNorms are folded in
    float32 before; frontend, bn0 and head stay float32. With `embeddings`, the encoder's
    representation [B, D] is a second output.
    """
    encoder = half_encoder(network.encoder, spec) if half else network.encoder
    model = LogMelModel(encoder, network.head, embeddings=embeddings)
    return (model if input_kind == "logmel" else WaveformModel(model, spec)).eval()


class LogMelModel(nn.Module):
    """log_mel [B, 1, T, M] -> scores [B, K], and with `embeddings` also the embedding [B, D]."""

    def __init__(self, encoder: nn.Module, head: nn.Module, *, embeddings: bool) -> None:
        super().__init__()
        self.encoder, self.head, self.embeddings = encoder, head, embeddings

    def forward(self, log_mel: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Scores, or scores and embedding."""
        embedding = self.encoder(log_mel).float()
        scores: Tensor = self.head(embedding)
        return (scores, embedding) if self.embeddings else scores


class WaveformModel(nn.Module):
    """waveform [B, N] in [-1, 1], its level already set -> the same outputs."""

    def __init__(self, model: LogMelModel, spec: FrontendSpec) -> None:
        super().__init__()
        self.frontend = ConvLogMel(spec)
        self.model = model

    def forward(self, waveform: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Scores, or scores and embedding."""
        outputs: Tensor | tuple[Tensor, Tensor] = self.model(self.frontend(waveform))
        return outputs


def half_encoder(encoder: Encoder, spec: FrontendSpec) -> nn.Module:
    """A copy in float16, except for bn0, which brings decibels into the range of float16.

    Raises what `folded_encoder` raises.
    """
    half: nn.Module = folded_encoder(encoder, spec)
    bn0 = half.get_submodule("bn0")
    half.add_module("bn0", nn.Identity())
    half.half()
    half.add_module("bn0", nn.Sequential(bn0, ToHalf()))
    return half


def folded_encoder(encoder: Encoder, spec: FrontendSpec) -> Encoder:
    """A copy whose convolutions hold the BatchNorm behind them.

    The folding is in float32: a small running_var makes large weights. bn0 stays, because no
    convolution is in front of it. Raises ModelError where another BatchNorm is left: float16 does
    not hold small variances.
    """
    folded = copy.deepcopy(encoder).eval()
    names = {module: name for name, module in folded.named_modules()}
    for conv, norm in _foldable(folded, spec):
        folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        folded.set_submodule(names[norm], nn.Identity())
    if left := [
        name for name, module in folded.named_modules() if isinstance(module, _BatchNorm) and name != "bn0"
    ]:
        raise ModelError(
            f"{type(encoder).__name__}.{left[0]}",
            "this BatchNorm cannot be folded into a convolution, so there is no encoder in float16",
            wanted="each BatchNorm but bn0 directly behind a Conv2d that is called once",
            fix="change the encoder, or export without --fp16",
        )
    return folded


def _foldable(encoder: Encoder, spec: FrontendSpec) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution with the BatchNorm that takes its output, found by running a silent clip.

    The names and the nesting of the modules do not matter. A convolution or a BatchNorm that is
    called more than once is left as it is, because several places use its weights.
    """
    calls: Counter[nn.Module] = Counter()
    outputs: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # keeping the tensors keeps their ids unique
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = (output, module)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][1], module))

    watched = [module for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    handles = [module.register_forward_hook(record) for module in watched]
    with torch.no_grad():
        encoder(torch.zeros(1, *input_shape(spec, "logmel"), device=encoder.bn0.weight.device))
    for handle in handles:
        handle.remove()
    return [(conv, norm) for conv, norm in pairs if calls[conv] == calls[norm] == 1]


class ToHalf(nn.Module):
    """float32 -> float16."""

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers, rounded."""
        return x.half()


class ConvLogMel(nn.Module):
    """waveform [B, N] -> log_mel [B, 1, T, M] by a strided convolution with the windowed DFT basis.

    Not the ONNX STFT operator: it has no CUDA kernel in ONNX Runtime and its CPU kernel is slow.
    The basis is made in float64 and rounded once.
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
