"""Both views through the network, and the loss that is minimised: what a step differentiates.

B batch, T frames, M mels, K rated targets, J class targets, L columns of the scores, P projector units.
"""

import torch
from torch import Tensor, nn

from ..distributed import gathered
from .losses import bt_loss, ccc_loss, ccc_loss_of_rated, class_loss, cross_correlation
from .model import Prediction, TwinsNetwork
from .view_batchnorm import with_views_apart
from .weighting import Weighting

Passed = tuple[Prediction, Tensor]  # of a view, and its z [B, P]


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
        has_blanks: bool = False,
        in_one_batch: bool = False,
    ) -> None:
        """`off_diagonal` is the lambda of Eq. 2; `has_blanks` says that ratings may be missing.

        `in_one_batch` passes both views through the network at once; its BatchNorms become BatchNormPerView.
        """
        super().__init__()
        # The weighting comes first: the gradient norm adds up parameters in this order.
        self.weighting = weighting
        self.network = network
        self.off_diagonal = off_diagonal
        self.autocast_to = autocast_to
        self.has_blanks = has_blanks
        self.in_one_batch = in_one_batch
        if in_one_batch:
            with_views_apart(network, 2)

    def forward(self, clean: Tensor, augmented: Tensor | None, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Views [B, 1, T, M], labels [B, K + J] -> the terms, detached, and the loss.

        The terms are [T] in the order of `config.terms_of_config`. All are over the global batch.
        Without a second view (vanilla) its two terms are 0.
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
            none = x.scores.new_zeros(())
            ccc = [self._ccc(x, y), none] if self._n_rated else []
            return torch.stack([*ccc, none, *self._classes([x], y)])

    def _two_views(self, clean: Tensor, augmented: Tensor, y: Tensor) -> Tensor:
        with self._autocast(clean):
            passes = self._one_batch if self.in_one_batch else self._two_passes
            (x, z), (x_a, z_a) = passes(clean, augmented)
        with torch.autocast(clean.device.type, enabled=False):
            ccc = [self._ccc(x, y), self._ccc(x_a, y)] if self._n_rated else []
            l_bt = bt_loss(cross_correlation(gathered(z), gathered(z_a)), off_diagonal=self.off_diagonal)
            return torch.stack([*ccc, l_bt, *self._classes([x, x_a], y)])

    def _two_passes(self, clean: Tensor, augmented: Tensor) -> tuple[Passed, Passed]:
        """One forward pass for each view, so that BatchNorm sees each view apart."""
        x, x_a = self.network(clean), self.network(augmented)
        return (x, self.network.project(x.embedding)), (x_a, self.network.project(x_a.embedding))

    def _one_batch(self, clean: Tensor, augmented: Tensor) -> tuple[Passed, Passed]:
        """Both views in one forward pass of 2 B clips, whose BatchNorms tell them apart."""
        both = self.network(torch.cat([clean, augmented]))
        z, z_a = self.network.project(both.embedding).chunk(2)
        x, x_a = map(Prediction, both.scores.chunk(2), both.embedding.chunk(2))
        return (x, z), (x_a, z_a)

    @property
    def _n_rated(self) -> int:
        return self.network.head.sizes[0]

    def _ccc(self, x: Prediction, y: Tensor) -> Tensor:
        """L_ccc of one view; y [W B, K + J] is of all ranks.

        Complete ratings have a function of their own, which needs no masks.
        """
        n, scores = self._n_rated, x.scores
        if y.shape[1] > n:
            scores, y = scores[:, :n], y[:, :n]
        return (ccc_loss_of_rated if self.has_blanks else ccc_loss)(gathered(scores), y)

    def _classes(self, views: list[Prediction], y: Tensor) -> list[Tensor]:
        """[L_ce], the mean over class targets and views; empty where there are no classes."""
        n, *sizes = self.network.head.sizes
        if not sizes:
            return []
        losses = [
            class_loss(logits, y[:, n + j])
            for x in views
            for j, logits in enumerate(gathered(self.network.class_logits(x.embedding)).split(sizes, dim=1))
        ]
        return [torch.stack(losses).mean()]
