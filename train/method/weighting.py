"""How the terms of the loss become the one number that is minimised.

To add a weighting: write its class here, and give it a name and its settings in config.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .losses import ruwl_loss, ruwl_weights


class Weighting(nn.Module):
    """Base of the weightings: losses of the terms [T], in the order of the config's -> the loss, a scalar.

    The checkpoint keeps the state dict, so a run resumes with it. Parameters that require a gradient
    are trained, without weight decay and with the learning rate `lr`.
    """

    lr: float = 0.0

    def weights(self) -> Tensor:
        """The factor [T] of each term as it is now: one column of history.jsonl."""
        raise NotImplementedError


class FixedWeights(Weighting):
    """The sum of the terms with constant weights w_t = lambda_t / c_t^2."""

    def __init__(self, *, lambdas: Sequence[float], c: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("c", torch.tensor(c))
        self.register_buffer("lambdas", torch.tensor(lambdas), persistent=False)

    def weights(self) -> Tensor:
        """[T]."""
        return ruwl_weights(self.get_buffer("c"), self.get_buffer("lambdas"))

    def forward(self, losses: Tensor) -> Tensor:
        """sum_t w_t L_t."""
        return (self.weights() * losses).sum()


class RuwlWeights(Weighting):
    """Restrained uncertainty weights (Eqs. 5 and 6): c is learned, or stays where it starts."""

    def __init__(
        self,
        *,
        lambdas: Sequence[float],
        c: Sequence[float],
        learned: bool,
        lr: float,
        restraint: float = 2,
    ) -> None:
        """`restraint` is what the sum of |c| is held to (Eq. 5)."""
        super().__init__()
        self.lr, self.restraint = lr, restraint
        self.c = nn.Parameter(torch.tensor(c), requires_grad=learned)
        self.register_buffer("lambdas", torch.tensor(lambdas), persistent=False)

    def weights(self) -> Tensor:
        """[T]."""
        return ruwl_weights(self.c, self.get_buffer("lambdas"))

    def forward(self, losses: Tensor) -> Tensor:
        """The weighted terms with their restraint and their regulariser."""
        return ruwl_loss(losses, self.c, self.get_buffer("lambdas"), restraint=self.restraint)
