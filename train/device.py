"""Which device a process trains on, and what goes wrong there."""

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import torch
import torch.distributed as dist

from ..runtime.errors import ConfigError, RrtnError, StoppedError
from ..runtime.text import counted
from .config import Config
from .distributed import World

# Of a RuntimeError's text: what CUDA and its libraries report, and which of it says that memory is full.
_OF_GPU: Final = re.compile(r"CUDA(?: driver)? error|cuDNN error|(?:CUBLAS|CUDNN|CUFFT)_(?:STATUS_)?[A-Z]{2}")
_FULL: Final = re.compile(r"out of memory|_ALLOC_FAILED")


def device_from_config(config: Config, world: World) -> torch.device:
    """The device of this process; `auto` is a GPU if there is one. Each rank of a machine has its own GPU.

    Raises ConfigError if the machine has no such device or torch no kernels for it, StoppedError for a GPU
    that cannot be used now. Raises ConfigError for torch.compile with several ranks: with Gloo
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
    device = torch.device("cuda", _gpu_number(world))
    with gpu_errors("--device cuda"):
        torch.cuda.set_device(device)
    _check_kernels(device)
    return device


def _gpu_number(world: World) -> int:
    """The local rank, or the one GPU that a launcher other than torchrun shows this process alone."""
    count = torch.cuda.device_count()
    if world.local_rank < count:
        return world.local_rank
    if count == 1 and not dist.is_torchelastic_launched():
        return 0
    raise ConfigError(
        "torchrun",
        f"local rank {world.local_rank}, but the machine has {counted(count, 'GPU')}",
        fix="start one process for each GPU",
    )


def _check_kernels(device: torch.device) -> None:
    """Raises ConfigError where this torch was built for other GPUs."""
    major, minor = torch.cuda.get_device_capability(device)
    built = [re.match(r"(sm|compute)_(\d+)(\d)", arch) for arch in torch.cuda.get_arch_list()]
    found = [(match[1], int(match[2]), int(match[3])) for match in built if match]
    # Code of a GPU runs on later ones of its generation, code that the driver compiles on all later ones.
    if found and not any(
        (kind == "compute" and (of_major, of_minor) <= (major, minor))
        or (of_major == major and of_minor <= minor)
        for kind, of_major, of_minor in found
    ):
        name = torch.cuda.get_device_name(device)
        versions = dict.fromkeys(f"{of_major}.{of_minor}" for _, of_major, of_minor in found)
        raise ConfigError(
            "--device cuda",
            f"{name} has compute capability {major}.{minor}, and this torch has no kernels for it",
            wanted=f"one that it was built for: {', '.join(versions)}",
            fix="use --device cpu, or a build of torch for this GPU",
        )


@contextlib.contextmanager
def gpu_errors(subject: str, *, batch: int | None = None) -> Iterator[None]:
    """Raises StoppedError for what a GPU reports inside. `batch` is the size of a training's batches."""
    try:
        yield
    except RuntimeError as error:
        of_gpu = isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) or _OF_GPU.search(
            str(error)
        )
        if isinstance(error, RrtnError) or not of_gpu:
            raise
        came = str(error).partition("\n")[0]
        fix = "see what its driver says (nvidia-smi, dmesg), and continue with --resume"
        if isinstance(error, torch.OutOfMemoryError) or _FULL.search(str(error)):
            fix = "free memory of the GPU, or use --device cpu"
            if batch is not None:
                came = f"batch {batch}: {came}"
                fix = (
                    "use --precision bf16, more GPUs (torchrun), or a smaller --batch-size; that is another "
                    "experiment, since the losses are over the batch"
                )
        raise StoppedError(subject, came, fix=fix) from error


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
