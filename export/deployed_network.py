"""The deployed network: without the projector, in float32 or float16.

B batch, T frames, M mels, D embedding, L columns of the scores.
"""

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..runtime.errors import ModelError
from ..runtime.frontend import input_shape
from ..runtime.spec import FrontendSpec
from ..train.method.columns import Columns
from ..train.method.encoders import Encoder
from ..train.method.model import TwinsNetwork


def deployed_from_network(
    network: TwinsNetwork,
    spec: FrontendSpec,
    *,
    half: bool = False,
    embeddings: bool = False,
    columns: Columns | None = None,
) -> nn.Module:
    """Encoder and head in evaluation mode: log_mel in, scores out, both float32.

    With `half`, the encoder behind bn0 computes in float16, and its BatchNorms are folded in
    float32 before; frontend, bn0 and head stay float32. With `embeddings`, the encoder's
    representation [B, D] is a second output. The scores are in the units of the `columns`' scales;
    without columns all are 0 to 1.
    """
    encoder = half_encoder(network.encoder, spec) if half else network.encoder
    head = nn.Sequential(network.head, Units(columns)) if columns and columns.is_scaled else network.head
    return LogMelModel(encoder, head, embeddings=embeddings).eval()


class LogMelModel(nn.Module):
    """log_mel [B, 1, T, M] -> scores [B, L], and with `embeddings` also the embedding [B, D]."""

    def __init__(self, encoder: nn.Module, head: nn.Module, *, embeddings: bool) -> None:
        super().__init__()
        self.encoder, self.head, self.embeddings = encoder, head, embeddings

    def forward(self, log_mel: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Scores, or scores and embedding."""
        embedding = self.encoder(log_mel).float()
        scores: Tensor = self.head(embedding)
        return (scores, embedding) if self.embeddings else scores


class Units(nn.Module):
    """scores [B, L] in 0 to 1 -> the same in the units of the scales, in float32 in every variant."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor([scale.low for scale in columns.spans]))
        self.register_buffer("width", torch.tensor([scale.width for scale in columns.spans]))

    def forward(self, scores: Tensor) -> Tensor:
        """low + width * score."""
        return scores * self.get_buffer("width") + self.get_buffer("low")


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
        """x -> its numbers, rounded."""
        return x.half()
