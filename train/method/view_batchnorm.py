"""BatchNorm that sees each view apart, where all views pass through the network as one batch.

That is what several forward passes do, one for each view (point 10 of docs/method.md). One batch has
fewer and larger convolutions, and one gradient for each weight. V views, B clips of each, C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..precision import at_least_float32


class BatchNormPerView(nn.BatchNorm2d):
    """BatchNorm of V views [V B, C, ...] that lie one after the other, each by its own statistics.

    The running statistics follow the views in their order, as they do in V forward passes. Parameters
    and buffers are those of nn.BatchNorm2d. In evaluation mode there are no views.
    """

    views: int

    def forward(self, x: Tensor) -> Tensor:
        """[V B, C, ...] -> same, in the dtype of x."""
        if not self.training:
            return super().forward(x)
        apart = x.unflatten(0, (self.views, -1))  # [V, B, C, ...]
        normalised, mean, variance = _normalised(apart, self.weight, self.bias, self.eps)
        self._follow(mean, variance, apart.numel() // mean.numel())
        out: Tensor = normalised.flatten(0, 1)
        return out

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Running statistics by the means and variances [V, C] of `count` values, in torch's arithmetic."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        unbiased = variance * count / (count - 1)
        with torch.no_grad():
            for view in range(self.views):
                for running, seen in ((self.running_mean, mean[view]), (self.running_var, unbiased[view])):
                    running.mul_(1 - self.momentum).add_(seen, alpha=self.momentum)
                self.num_batches_tracked += 1

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions from two on: BatchNorm1d and 2d alike."""


def with_views_apart(network: nn.Module, views: int) -> nn.Module:
    """The network with every BatchNorm as a BatchNormPerView; changes it."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = BatchNormPerView
            assert isinstance(module, BatchNormPerView)
            module.views = views
    return network


class _Normalised(torch.autograd.Function):
    """x [V, B, C, ...] -> x normalised, scaled and shifted; and mean and biased variance [V, C].

    The gradient is written out because autograd would keep the centred x in float32, which the compiler
    then writes to memory. Like torch's own, it keeps x and the statistics alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = at_least_float32(x)
        variance, mean = torch.var_mean(exact, _over(x), correction=0, keepdim=True)  # [V, 1, C, 1, ...]
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        of_channel = mean.shape[1:]
        out = (exact - mean) * scale * weight.view(of_channel) + bias.view(of_channel)
        statistics = mean.flatten(1), variance.flatten(1)
        ctx.mark_non_differentiable(*statistics)
        # Not `out.to` where it would give `out` itself: torch.compile then loses the gradient without a word.
        return (out if out.dtype == x.dtype else out.to(x.dtype)), *statistics

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        gradient = at_least_float32(gradients[0])
        normalised = (at_least_float32(x) - mean) * scale
        of_bias = gradient.sum(_over(x), keepdim=True)
        of_weight = (gradient * normalised).sum(_over(x), keepdim=True)
        count = x.numel() // mean.numel()
        of_x = gradient - of_bias / count - normalised * (of_weight / count)
        of_x = of_x * (scale * weight.view(mean.shape[1:]))
        return of_x.to(x.dtype), of_weight.flatten(1).sum(0), of_bias.flatten(1).sum(0), None


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor] = _Normalised.apply(x, weight, bias, eps)
    return result


def _over(x: Tensor) -> list[int]:
    """All dimensions but the view and the channel."""
    return [dim for dim in range(x.dim()) if dim not in (0, 2)]
