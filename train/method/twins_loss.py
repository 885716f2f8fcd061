"""Both views through the network, and the loss that is minimised: what a step differentiates.

B batch, T frames, M mels, K targets, P projector units.
"""

import torch
from torch import Tensor, nn

from ..distributed import gathered
from .losses import bt_loss, ccc_loss, cross_correlation
from .model import TwinsNetwork
from .view_batchnorm import with_views_apart
from .weighting import Weighting

Passed = tuple[Tensor, Tensor]  # a view's scores [B, K] and z [B, P]


class TwinsLoss(nn.Module):
    """The network with its losses as one module: one forward for DistributedDataParallel and torch.compile.

    The passes run under autocast to `autocast_to`, if there is one. Frontend, head, losses, CCC moments and
    cross-correlation are always in float32.
    """

    def __init__(
        self,
        network: TwinsNetwork,
        weighting: Weighting,
        *,
        off_diagonal: float,
        autocast_to: torch.dtype | None,
        in_one_batch: bool = False,
    ) -> None:
        """`off_diagonal` is the lambda of Eq. 2.

        `in_one_batch` passes both views through the network at once; its BatchNorms become BatchNormPerView.
        """
        super().__init__()
        # The weighting comes first: the gradient norm adds up parameters in this order.
        self.weighting = weighting
        self.network = network
        self.off_diagonal = off_diagonal
        self.autocast_to = autocast_to
        self.in_one_batch = in_one_batch
        if in_one_batch:
            with_views_apart(network, 2)

    def forward(self, clean: Tensor, augmented: Tensor | None, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Views [B, 1, T, M], ratings [B, K] -> the terms [3] in the order of TERMS, detached, and the loss.

        Both are over the global batch. Without a second view (vanilla) its two terms are 0.
        """
        y = gathered(ratings)
        losses = self._one_view(clean, y) if augmented is None else self._two_views(clean, augmented, y)
        with torch.autocast(clean.device.type, enabled=False):
            return losses.detach(), self.weighting(losses)

    def _autocast(self, view: Tensor) -> torch.autocast:
        return torch.autocast(view.device.type, self.autocast_to, enabled=self.autocast_to is not None)

    def _one_view(self, clean: Tensor, y: Tensor) -> Tensor:
        with self._autocast(clean):
            x = self.network(clean)
        with torch.autocast(clean.device.type, enabled=False):
            l_ccc = ccc_loss(gathered(x.scores), y)
            none = l_ccc.new_zeros(())
            return torch.stack([l_ccc, none, none])

    def _two_views(self, clean: Tensor, augmented: Tensor, y: Tensor) -> Tensor:
        with self._autocast(clean):
            passes = self._one_batch if self.in_one_batch else self._two_passes
            (scores, z), (scores_a, z_a) = passes(clean, augmented)
        with torch.autocast(clean.device.type, enabled=False):
            l_ccc = ccc_loss(gathered(scores), y)
            l_ccc_a = ccc_loss(gathered(scores_a), y)
            l_bt = bt_loss(cross_correlation(gathered(z), gathered(z_a)), off_diagonal=self.off_diagonal)
            return torch.stack([l_ccc, l_ccc_a, l_bt])

    def _two_passes(self, clean: Tensor, augmented: Tensor) -> tuple[Passed, Passed]:
        """One forward pass for each view, so that BatchNorm sees each view apart."""
        x, x_a = self.network(clean), self.network(augmented)
        z, z_a = self.network.project(x.embedding), self.network.project(x_a.embedding)
        return (x.scores, z), (x_a.scores, z_a)

    def _one_batch(self, clean: Tensor, augmented: Tensor) -> tuple[Passed, Passed]:
        """The same in one forward pass of 2 B clips, whose BatchNorms tell the views apart."""
        both = self.network(torch.cat([clean, augmented]))
        scores, scores_a = both.scores.chunk(2)
        z, z_a = self.network.project(both.embedding).chunk(2)
        return (scores, z), (scores_a, z_a)
