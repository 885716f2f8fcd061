"""Several processes train as one: losses and BatchNorm always see the global batch.

That is point 14 of docs/method.md.

torchrun starts the processes. Each rank takes its slice of the batch. Embeddings, scores and ratings
are gathered, so that every rank computes the losses of the whole batch with the code of a single
process. DistributedDataParallel then averages the gradients over the ranks; `gathered` therefore
gives each slice the sum of all ranks' gradients. B batch of this rank, W ranks.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..runtime.errors import ConfigError, StoppedError
from .precision import at_least_float32

_Value = TypeVar("_Value")
# The first rank may decode a whole data set while the others wait.
_TIMEOUT: Final = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine, which is also the number of its GPU

    @property
    def is_first(self) -> bool:
        """The one process that writes and speaks."""
        return self.rank == 0

    def slice_of(self, batch_size: int) -> slice:
        """This rank's part of a global batch."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)


def world_from_environment() -> World:
    """The World that torchrun's environment variables name; a single process without them."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    found = {name: os.environ[name] for name in names if name in os.environ}
    if not found:
        return World()
    if len(found) < len(names):
        raise ConfigError(
            "environment",
            f"only {', '.join(found)}",
            wanted=f"{', '.join(names)}, or none",
            fix="start with torchrun",
        )
    for name, value in found.items():
        if not value.isdecimal():
            fix = "start with torchrun"
            raise ConfigError(f"environment {name}", repr(value), wanted="a whole number", fix=fix)
    return World(*map(int, found.values()))


@contextlib.contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """A process group while the block runs: NCCL on GPUs, Gloo on CPUs, none for a single process.

    Raises StoppedError if another process has ended, ConfigError where the processes cannot be joined.
    """
    if world.size == 1:
        yield
        return
    address = _address()
    try:
        if device.type == "cuda":
            dist.init_process_group("nccl", timeout=_TIMEOUT, device_id=device)
        else:
            dist.init_process_group("gloo", timeout=_TIMEOUT)
        yield
    except RuntimeError as error:
        if "Duplicate GPU detected" in str(error):  # NCCL's words
            fix = "start one process for each GPU"
            raise ConfigError("torchrun", "two processes on one GPU", fix=fix) from error
        if isinstance(error, dist.DistNetworkError) and not dist.is_initialized():
            came, fix = str(error).partition("\n")[0], "check MASTER_ADDR and MASTER_PORT of all processes"
            raise ConfigError(address, came, fix=fix) from error
        lost = dist.is_initialized() and isinstance(error, dist.DistError)
        # Gloo has no error class, and may fail while it connects
        if not lost and "/gloo/" not in str(error):
            raise
        raise _lost(world) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _address() -> str:
    """Where the processes meet. Raises ConfigError if the environment does not say."""
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ConfigError("environment", f"no {', '.join(missing)}", fix="start with torchrun, or set them")
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    if not port.isdecimal():
        raise ConfigError("environment MASTER_PORT", repr(port), wanted="a whole number")
    return f"{host}:{port}"


@contextlib.contextmanager
def first_on_machine_first(world: World) -> Iterator[None]:
    """One process of each machine runs the block before the others, which then find its files.

    Where it raises, the others do not run the block: they raise StoppedError.
    """
    is_first = world.local_rank == 0
    if not is_first:
        _check_all_done(world)
    try:
        yield
    except Exception:  # a signal is for all of them
        if is_first:
            with contextlib.suppress(
                RuntimeError
            ):  # of a process that is lost: this one's own error says more
                from_all(world, False)
        raise
    if is_first:
        _check_all_done(world)


def _check_all_done(world: World) -> None:
    """Waits for the first process of each machine. Raises StoppedError where one of them has failed."""
    if not all(from_all(world, True)):
        raise _lost(world)


def _lost(world: World) -> StoppedError:
    fix = "read that process's message, then continue with --resume"
    return StoppedError("torchrun", f"rank {world.rank} has lost another process", fix=fix)


def from_first(world: World, value: str) -> str:
    """The first rank's value, on every rank."""
    if world.size == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=0)
    return str(values[0])


def from_all(world: World, value: _Value) -> list[_Value]:
    """The values of all ranks, in their order, on every rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def check_equal(world: World, what: str, value: str) -> None:
    """Raises ConfigError on every rank if the ranks have different values."""
    values = from_all(world, value)
    if len(set(values)) > 1:
        seen = ", ".join(f"rank {rank} {found}" for rank, found in enumerate(values))
        raise ConfigError("torchrun", f"{what} differs: {seen}", wanted="the same on all ranks")


def any_rank(world: World, flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank. This is a sync point."""
    if world.size == 1:
        return flag
    found = torch.tensor(int(flag), device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)


def concatenated(world: World, part: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows [n_r, K] of each rank -> all rows [n, K], in the order of the ranks."""
    return part if world.size == 1 else np.concatenate(from_all(world, part))


def gathered(x: Tensor) -> Tensor:
    """[B, ...] of each rank -> [W B, ...] in the order of the ranks; differentiable.

    A single process gets its own tensor back.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    result: Tensor = _Gather.apply(x)
    return result


class _Gather(torch.autograd.Function):
    """Every rank's loss depends on every slice, so the gradient of a slice is the sum over all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # A copy: autograd may hand the same tensor to others.
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


class _Sum(torch.autograd.Function):
    """Sum over the ranks; the gradient of a sum is the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


def with_global_batchnorm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with every BatchNorm over the global batch.

    GPUs use torch's SyncBatchNorm. It has no version for CPUs, which use `_GlobalBatchNorm`.
    """
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return synced
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = _GlobalBatchNorm
    return network


class _GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm over [B, C, ...] of all ranks, from two sums. Its buffers are torch's."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        x = at_least_float32(x)
        over = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _sum(x.sum(over)) / count
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(over)) / count
        with torch.no_grad():
            self._follow(mean, variance * (count / (count - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.view(shape) + self.bias.view(shape)

    def _follow(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)
        self.num_batches_tracked += 1

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions from two on: BatchNorm1d and 2d alike."""


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total
