"""Operators in the form that torch.compile fuses best, for training steps that are compiled.

Inductor writes the gradient of avg_pool2d to memory in float32, and reads a ReLU's output again to
mask its gradient. In the forms of this file both are parts of the kernels beside them. Eager steps,
validation and exports keep torch's operators. B batch, C channels, T frames, M mels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def relu(x: Tensor, *, training: bool) -> Tensor:
    """max(x, 0), NaN where x is NaN.

    The compiled gradient masks by x, which is computed anew from what BatchNorm reads anyway.
    """
    if _is_compiled(training):
        return torch.where(x <= 0, 0.0, x)
    return F.relu(x)


def halved(x: Tensor, *, training: bool) -> Tensor:
    """[B, C, T, M] -> [B, C, T // 2, M // 2], the means of squares of 2 x 2; an odd last row is dropped."""
    if not _is_compiled(training):
        return F.avg_pool2d(x, 2)
    t, m = x.shape[2] // 2, x.shape[3] // 2
    squares = x[:, :, : 2 * t, : 2 * m].unflatten(3, (m, 2)).unflatten(2, (t, 2))
    means: Tensor = squares.mean((3, 5))
    return means


def _is_compiled(training: bool) -> bool:
    return training and torch.compiler.is_compiling()
