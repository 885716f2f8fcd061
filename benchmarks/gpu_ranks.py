"""Section `ranks`: several processes compute what one does.

A world of one over NCCL runs every collective of training. Two ranks on one GPU over Gloo must find the
gradient of one rank on the whole batch. Without a GPU both are over Gloo. B batch of all ranks.
"""

import socket
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import checkout  # noqa: F401  # before rrtn
import torch
import torch.distributed as dist
from gpu_correct import config_of, difference
from gpu_section import Place, Record
from rrtn.train.distributed import World, _Gather, _Sum, any_rank, with_global_batchnorm
from rrtn.train.plan import network_from_config
from rrtn.train.step import loss_from_config
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

LIMIT = 1e-8  # relative, in float64: sums over the ranks are in another order
SECONDS = 120.0


def section_ranks(place: Place, record: Record) -> None:
    """A world of one, then two ranks; each in processes of its own."""
    on_gpu = place.device.type == "cuda"
    for size, backend in ((1, "nccl" if on_gpu else "gloo"), (2, "gloo")):
        name = f"{size} rank{'s' if size > 1 else ''} over {backend}"
        with record.part(name), tempfile.TemporaryDirectory() as folder:
            run_ranks(size, backend, place.device.type, Path(folder))
            for rank in range(size):
                found = torch.load(Path(folder) / f"{rank}.pt", weights_only=True)
                for what, (came, expected) in found.items():
                    record.check(f"{name}, rank {rank}: {what}", difference(came, expected), LIMIT)


def run_ranks(size: int, backend: str, device: str, folder: Path) -> None:
    """Starts the ranks and waits for them. Raises what one of them raised, or TimeoutError."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
    context = start_processes(
        _rank, (size, backend, device, address, str(folder)), nprocs=size, join=False, start_method="spawn"
    )
    deadline = time.monotonic() + SECONDS
    while not context.join(timeout=1.0):  # true once all have ended
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"{size} ranks over {backend} did not end in {SECONDS:.0f} s")


def _rank(rank: int, size: int, backend: str, device_type: str, address: str, folder: str) -> None:
    """One process: {what: (found, expected)} into <folder>/<rank>.pt."""
    device = torch.device(device_type, 0) if device_type == "cuda" else torch.device("cpu")
    torch.set_num_threads(1)
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=size)
    try:
        world = World(rank=rank, size=size)
        found = {**collectives(world, device), **step_gradients(world, device)}
        torch.save(
            {what: tuple(t.cpu() for t in pair) for what, pair in found.items()}, f"{folder}/{rank}.pt"
        )
    finally:
        dist.destroy_process_group()


def collectives(world: World, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """What training's own collectives give, and their gradients."""
    rows = torch.arange(6.0, dtype=torch.float64, device=device).view(3, 2)
    everything = torch.cat([rows + rank for rank in range(world.size)])
    x = (rows + world.rank).requires_grad_()
    gathered_rows: Tensor = _Gather.apply(x)
    gathered_rows.square().sum().backward()
    assert x.grad is not None
    of_gather, x.grad = x.grad, None
    total: Tensor = _Sum.apply(x)
    assert not any_rank(world, False, device) and any_rank(world, world.is_first, device)
    return {
        "gathered rows": (gathered_rows.detach(), everything),
        "gradient of gathered rows": (of_gather, 2 * world.size * x.detach()),
        "sum": (total.detach(), torch.stack([rows + rank for rank in range(world.size)]).sum(0)),
    }


def step_gradients(world: World, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Loss and gradient of a twin-view step of ResNet18, which has no dropout, on all ranks and on one."""
    batch = 8
    config = config_of("resnet18", batch_size=batch, frontend={"frames": 32})
    generator = torch.Generator().manual_seed(0)
    views = 15 * torch.randn(2, batch, 1, 32, 64, generator=generator, dtype=torch.float64) - 50
    ratings = torch.rand(batch, len(config.data.targets), generator=generator, dtype=torch.float64)
    arguments = [part.to(device) for part in (*views, ratings)]
    ours = loss_from_config(config, _network(config, device)).to(device, torch.float64)
    with_global_batchnorm(ours, device)
    parallel = nn.parallel.DistributedDataParallel(
        ours,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
    came = _differentiated(parallel, [part[world.slice_of(batch)] for part in arguments])
    single = loss_from_config(config, _network(config, device)).to(device, torch.float64)
    with _no_process_group():
        expected = _differentiated(single, arguments)
    return {what: (came[what], expected[what]) for what in came}


def _network(config: Any, device: torch.device) -> Any:
    return network_from_config(config).to(device, torch.float64).train()


def _differentiated(module: nn.Module, arguments: list[Tensor]) -> dict[str, Tensor]:
    terms, loss = module(*arguments)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    running = torch.cat([b.flatten() for name, b in module.named_buffers() if "running" in name])
    return {"loss terms": terms.detach(), "gradient": gradient, "running statistics": running}


def _no_process_group() -> Any:
    """Inside, `gathered` takes this process for the only one."""
    return mock.patch.object(dist, "is_initialized", return_value=False)
