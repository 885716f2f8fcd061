"""How much arithmetic a training step is, and how fast a device multiplies matrices.

The first over the second is the share of the peak. B batch, T frames, M mels, S side of a square matrix.
"""

import copy
import time
from typing import Final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...runtime.spec import FrontendSpec
from .losses import cross_correlation
from .model import TwinsNetwork

_SMALLEST_SIDE: Final = 256
_LARGEST_SIDE: Final = {"cpu": 2048, "cuda": 8192}
# On a GPU there are so many that launching and waiting, some 10 us, do not show.
_PRODUCTS_A_TIMING: Final = {"cpu": 1, "cuda": 10}


def step_flops(network: TwinsNetwork, *, spec: FrontendSpec, batch_size: int) -> int:
    """FLOPs of one optimiser step on `batch_size` clips, forward and backward.

    A multiplication and its addition are two. Convolutions and matrix products count; elementwise
    work, normalisation, pooling, biases, the optimiser and the log-Mel frontend do not. A network with
    a projector takes two views, one without takes one. Nothing is computed, and the network does not
    change.
    """
    shapes = _on_meta(network)
    log_mel = torch.empty(batch_size, 1, spec.frames, spec.n_mels, device="meta")
    with FlopCounterMode(display=False) as counter:
        _stand_in_loss(shapes, log_mel).backward()
    flops: int = counter.get_total_flops()
    return flops


def scoring_flops(network: TwinsNetwork, *, spec: FrontendSpec) -> int:
    """FLOPs from the log-Mel of one clip to its scores, counted as in `step_flops`."""
    shapes = _on_meta(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(torch.empty(1, 1, spec.frames, spec.n_mels, device="meta"))
    flops: int = counter.get_total_flops()
    return flops


def matmul_peak(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.3) -> float:
    """FLOP/s of the fastest square matrix product in `seconds`: the ceiling of the device.

    Sides are 8192 on CUDA. On the CPU they grow up to 2048 while the next product fits into the time
    that is left, because a dtype without own instructions can be a hundred times slower. Float32 uses
    TF32 if the process has allowed that.
    """
    largest = _LARGEST_SIDE[device.type]
    matrices = _noise(largest if device.type == "cuda" else _SMALLEST_SIDE, device, dtype)
    _seconds_a_product(matrices)  # warm-up
    best, stop = 0.0, time.perf_counter() + seconds
    while (left := stop - time.perf_counter()) > 0:
        side, took = matrices.shape[-1], _seconds_a_product(matrices)
        best = max(best, 2 * side**3 / took)
        # Twice the side is 8 times the arithmetic, and slower than that outside the cache.
        if side < largest and 16 * took < left:
            matrices = _noise(2 * side, device, dtype)
    return best


def _on_meta(network: TwinsNetwork) -> TwinsNetwork:
    """A copy of the network with shapes and no numbers.

    deepcopy finds a stand-in for each tensor in its memo, and so copies none.
    """
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(
        network, {id(t): torch.empty_like(t, device="meta", requires_grad=t.requires_grad) for t in tensors}
    )


def _stand_in_loss(network: TwinsNetwork, log_mel: Tensor) -> Tensor:
    """log_mel [B, 1, T, M] -> a scalar with the matrix products of the real loss, and no other work."""
    views = [network(log_mel) for _ in range(1 if network.projector is None else 2)]
    loss: Tensor = sum(view.scores.sum() for view in views)
    if network.projector is not None:
        loss = loss + cross_correlation(*(network.project(view.embedding) for view in views)).sum()
    return loss


def _noise(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[3, S, S]: two factors and room for their product.

    A GPU multiplies zeros faster, because they draw less power.
    """
    generator = torch.Generator(device).manual_seed(0)  # its own, so that the run's draws do not change
    return torch.randn(3, side, side, device=device, dtype=dtype, generator=generator)


def _seconds_a_product(matrices: Tensor) -> float:
    """[3, S, S] -> wall time of one product of the first two, written into the third."""
    a, b, product = matrices
    n = _PRODUCTS_A_TIMING[a.device.type]
    _wait(a.device)
    start = time.perf_counter()
    for _ in range(n):
        torch.mm(a, b, out=product)
    _wait(a.device)
    return (time.perf_counter() - start) / n


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
