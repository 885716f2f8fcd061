"""What is computed in float32 whatever the precision of a training."""

from torch import Tensor, float64


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32; float64 stays."""
    return x if x.dtype == float64 else x.float()
