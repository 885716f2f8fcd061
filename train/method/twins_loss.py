"""Both views through the network, and the loss that is minimised: what a step differentiates.

B batch, T frames, M mels, K targets. Terms of the loss are in the order ccc, ccc_a, bt.
"""

import torch
from torch import Tensor, nn

from ..config import Config
from ..distributed import gathered
from .losses import bt_loss, ccc_loss, cross_correlation, ruwl_loss, ruwl_weights
from .model import TwinsNetwork


class TwinsLoss(nn.Module):
    """The network with its losses as one module, so that DistributedDataParallel and torch.compile see
    one forward.

    The passes run under autocast where `precision` is bf16; frontend, head, losses, CCC moments and
    cross-correlation are float32 always.
    """

    def __init__(self, network: TwinsNetwork, config: Config) -> None:
        super().__init__()
        self.network = network
        self.method = config.model.method
        self.off_diagonal = config.loss.off_diagonal
        self.in_bf16 = config.precision == "bf16"
        learned = self.method == "rrtn-ruwl" and config.ruwl.mode == "learned"
        self.c = nn.Parameter(torch.tensor(config.ruwl.c), requires_grad=learned)
        self.register_buffer("lambdas", torch.tensor(config.ruwl.lambdas))

    def forward(self, clean: Tensor, augmented: Tensor | None, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Views [B, 1, T, M], ratings [B, K] -> the three terms [3], detached, and the loss over the
        global batch.

        Two forward passes, one per view, so that BatchNorm sees each view apart. Vanilla has one
        view, None for the other.
        """
        y = gathered(ratings)
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=self.in_bf16):
            x = self.network(clean)
            if augmented is None:
                l_ccc = ccc_loss(gathered(x.scores), y)
                none = l_ccc.new_zeros(())
                return torch.stack([l_ccc.detach(), none, none]), l_ccc
            x_a = self.network(augmented)
            z, z_a = self.network.project(x.embedding), self.network.project(x_a.embedding)
        with torch.autocast(clean.device.type, enabled=False):
            l_ccc = ccc_loss(gathered(x.scores), y)
            l_ccc_a = ccc_loss(gathered(x_a.scores), y)
            l_bt = bt_loss(cross_correlation(gathered(z), gathered(z_a)), off_diagonal=self.off_diagonal)
            losses = torch.stack([l_ccc, l_ccc_a, l_bt])
            return losses.detach(), self._weighted(losses)

    def _weighted(self, losses: Tensor) -> Tensor:
        if self.method == "rrtn":  # without RUWL: its initial weights, fixed
            return (self.weights() * losses).sum()
        return ruwl_loss(losses, self.c, self.get_buffer("lambdas"))

    def weights(self) -> Tensor:
        """What the three terms count with, [3]."""
        return ruwl_weights(self.c, self.get_buffer("lambdas"))
