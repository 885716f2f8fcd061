"""Encoder, regression head and projector: the Redundancy Reduction Twins Network.

B batch, T frames, M mels, D embedding, K targets, P projector units.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .encoders import EncoderName, encoder_from_name

PROJECTOR_UNITS = 2048


class Prediction(NamedTuple):
    """One view through the network."""

    scores: Tensor  # [B, K] in [0, 1]
    embedding: Tensor  # [B, D]


class TwinsNetwork(nn.Module):
    """Both views pass through the same weights, one forward pass each, so that BatchNorm sees each view apart.

    The projector is one Linear with bias and without BatchNorm, as the paper's parameter counts demand; vanilla
    models have none, and export drops it.
    """

    def __init__(self, encoder: EncoderName, *, n_mels: int, n_targets: int, with_projector: bool) -> None:
        super().__init__()
        self.encoder = encoder_from_name(encoder, n_mels=n_mels)
        width = self.encoder.embedding_size
        self.head = nn.Linear(width, n_targets)
        self.projector = nn.Linear(width, PROJECTOR_UNITS) if with_projector else None

    def forward(self, log_mel: Tensor) -> Prediction:
        """[B, 1, T, M] -> scores [B, K] and embedding [B, D]."""
        embedding: Tensor = self.encoder(log_mel)
        return Prediction(torch.sigmoid(self.head(embedding)), embedding)

    def project(self, embedding: Tensor) -> Tensor:
        """[B, D] -> z [B, P], which the Barlow Twins loss compares."""
        assert self.projector is not None
        z: Tensor = self.projector(embedding)
        return z

    def parameter_counts(self) -> Mapping[str, int]:
        """Trainable parameters of each part, and in all."""
        parts = {"encoder": self.encoder, "head": self.head, "projector": self.projector}
        counts = {name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()}
        return {**counts, "total": sum(counts.values())}
