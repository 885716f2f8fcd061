"""Encoder, regression head and projector: the Redundancy Reduction Twins Network.

B batch, T frames, M mels, D embedding, K rated targets, J class targets, C classes in all, L = K + C
columns of the scores, P projector units.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..precision import at_least_float32
from .choices import Activation, EncoderName
from .encoders import encoder_from_name


class Prediction(NamedTuple):
    """One view through the network."""

    scores: Tensor  # [B, L] in [0, 1]: ratings, then the probabilities of each class target's classes
    embedding: Tensor  # [B, D]


class TwinsNetwork(nn.Module):
    """Encoder, head and projector. Both views pass through the same weights.

    By default the projector is one Linear with a bias and without BatchNorm: the paper's parameter
    counts leave no other choice. Vanilla models have no projector, and export drops it.
    """

    def __init__(
        self,
        encoder: EncoderName,
        *,
        n_mels: int,
        n_targets: int,
        class_sizes: Sequence[int] = (),  # the number of classes of each class target
        activation: Activation = "sigmoid",
        projector_layers: int = 1,  # 0 for vanilla models
        projector_units: int = 2048,
    ) -> None:
        super().__init__()
        self.encoder = encoder_from_name(encoder, n_mels=n_mels)
        width = self.encoder.embedding_size
        self.head = Head(width, n_targets, activation, class_sizes)
        self.projector = _projector(width, projector_layers, projector_units) if projector_layers else None

    def forward(self, log_mel: Tensor) -> Prediction:
        """[B, 1, T, M] -> scores [B, L], always float32 or more, and embedding [B, D]."""
        embedding: Tensor = self.encoder(log_mel)
        with _without_autocast(log_mel.device.type):
            return Prediction(self.head(at_least_float32(embedding)), embedding)

    def class_logits(self, embedding: Tensor) -> Tensor:
        """[B, D] -> [B, C] in front of the softmax, always float32 or more: what cross-entropy is made of."""
        return self.head.class_logits(at_least_float32(embedding))

    def project(self, embedding: Tensor) -> Tensor:
        """[B, D] -> z [B, P] for the Barlow Twins loss, always float32 or more."""
        assert self.projector is not None
        return at_least_float32(self.projector(embedding))

    def parameter_counts(self) -> Mapping[str, int]:
        """Number of trainable parameters of each part, and in total."""
        parts = {"encoder": self.encoder, "head": self.head, "projector": self.projector}
        counts = {
            name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()
        }
        return {**counts, "total": sum(counts.values())}


class Head(nn.Linear):
    """embedding [B, D] -> scores [B, L]: one Linear for all columns, then what each column needs.

    Ratings get nothing or a sigmoid, for ratings in [0, 1]; the classes of a class target a softmax.
    """

    def __init__(
        self, width: int, n_targets: int, activation: Activation, class_sizes: Sequence[int] = ()
    ) -> None:
        super().__init__(width, n_targets + sum(class_sizes))
        self.activation = activation
        self.sizes = (n_targets, *class_sizes)

    def forward(self, embedding: Tensor) -> Tensor:
        """[B, D] -> [B, L]."""
        logits = super().forward(embedding)
        if len(self.sizes) == 1:
            return self._rated(logits)
        rated, *classes = logits.split(self.sizes, dim=1)
        parts = [self._rated(rated)] if self.sizes[0] else []
        return torch.cat([*parts, *(part.softmax(1) for part in classes)], dim=1)

    def class_logits(self, embedding: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        n = self.sizes[0]
        return nn.functional.linear(embedding, self.weight[n:], self.bias[n:])

    def _rated(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits) if self.activation == "sigmoid" else logits


def _projector(width: int, layers: int, units: int) -> nn.Module:
    """Linear layers with BatchNorm and ReLU between them, as in facebookresearch/barlowtwins."""
    if layers == 1:
        return nn.Linear(width, units)
    hidden: list[nn.Module] = []
    for i in range(layers - 1):
        hidden += [nn.Linear(units if i else width, units, bias=False), nn.BatchNorm1d(units), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(units, units, bias=False))


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Switches autocast off. Meta tensors, whose FLOPs are counted, have no autocast to switch."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
