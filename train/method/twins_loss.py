"""Both views through the network, and the loss that is minimised: what a step differentiates.

B batch, T frames, M mels, K targets.
"""

import torch
from torch import Tensor, nn

from ..distributed import gathered
from .losses import bt_loss, ccc_loss, cross_correlation
from .model import TwinsNetwork
from .weighting import Weighting


class TwinsLoss(nn.Module):
    """The network with its losses as one module: one forward for DistributedDataParallel and torch.compile.

    The passes run under autocast where `in_bf16` is set. Frontend, head, losses, CCC moments and
    cross-correlation are always in float32.
    """

    def __init__(
        self, network: TwinsNetwork, weighting: Weighting, *, off_diagonal: float, in_bf16: bool
    ) -> None:
        """`off_diagonal` is the lambda of Eq. 2."""
        super().__init__()
        # The weighting comes first: the gradient norm adds up parameters in this order.
        self.weighting = weighting
        self.network = network
        self.off_diagonal = off_diagonal
        self.in_bf16 = in_bf16

    def forward(self, clean: Tensor, augmented: Tensor | None, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Views [B, 1, T, M], ratings [B, K] -> the terms [3] in the order of TERMS, detached, and the loss.

        Both are over the global batch. Without a second view (vanilla) its two terms are 0.
        """
        y = gathered(ratings)
        losses = self._one_view(clean, y) if augmented is None else self._two_views(clean, augmented, y)
        with torch.autocast(clean.device.type, enabled=False):
            return losses.detach(), self.weighting(losses)

    def _one_view(self, clean: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=self.in_bf16):
            x = self.network(clean)
        with torch.autocast(clean.device.type, enabled=False):
            l_ccc = ccc_loss(gathered(x.scores), y)
            none = l_ccc.new_zeros(())
            return torch.stack([l_ccc, none, none])

    def _two_views(self, clean: Tensor, augmented: Tensor, y: Tensor) -> Tensor:
        """Two forward passes, one for each view, so that BatchNorm sees each view apart."""
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=self.in_bf16):
            x = self.network(clean)
            x_a = self.network(augmented)
            z, z_a = self.network.project(x.embedding), self.network.project(x_a.embedding)
        with torch.autocast(clean.device.type, enabled=False):
            l_ccc = ccc_loss(gathered(x.scores), y)
            l_ccc_a = ccc_loss(gathered(x_a.scores), y)
            l_bt = bt_loss(cross_correlation(gathered(z), gathered(z_a)), off_diagonal=self.off_diagonal)
            return torch.stack([l_ccc, l_ccc_a, l_bt])
