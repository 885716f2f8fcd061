"""Which device a process trains on."""

import torch

from ..runtime.errors import ConfigError
from ..runtime.text import counted
from .config import Config
from .distributed import World


def device_from_config(config: Config, world: World) -> torch.device:
    """The device of this process; `auto` is a GPU if there is one. Each rank of a machine has its own GPU.

    Raises ConfigError if the machine has no such device, or for torch.compile with several ranks: with Gloo
    it drops the gradient of `distributed._Sum` without a word, and with NCCL it has not run yet.
    """
    if config.is_compiled and world.size > 1:
        raise ConfigError(
            f"--compile {config.compile}",
            f"{world.size} processes",
            wanted="off with several",
            fix="--compile off",
        )
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        if config.precision == "tf32":
            came = "TF32 exists on GPUs only, and this is a CPU"
            raise ConfigError("--precision tf32", came, fix="use fp32 or bf16")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "--device cuda", "torch sees no CUDA GPU", fix="find out why: rrtn doctor; or use --device cpu"
        )
    if world.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            "torchrun",
            f"local rank {world.local_rank}, but the machine has {counted(torch.cuda.device_count(), 'GPU')}",
            fix="start one process for each GPU",
        )
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


def device_name(device: torch.device, world: World) -> str:
    """What a checkpoint names as its device: the GPU's name, or cpu; with several ranks their number, too."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return name if world.size == 1 else f"{world.size} x {name}"


def device_text(config: Config, device: torch.device, world: World) -> str:
    """What a person is told of it. `config` is resolved, but for its device."""
    processes = f"in {world.size} processes " if world.size > 1 else ""
    if device.type == "cpu":
        return f"{processes}on the CPU{': torch sees no CUDA GPU' if config.device == 'auto' else ''}"
    compiled = ", compiled" if config.is_compiled else ""
    return f"{processes}on {torch.cuda.get_device_name(device)}, {config.precision}{compiled}"
