"""On what a run trains, and that it is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rrtn.runtime.errors import ConfigError, StoppedError
from rrtn.train.checkpoint import read_info
from rrtn.train.config import Config
from rrtn.train.device import device_from_config, device_name, device_text
from rrtn.train.distributed import World

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ALONE, TWO = World(), World(0, 2, 0)
ASKED = Config(precision="bf16", compile="default")


@pytest.mark.parametrize(
    ("config", "device", "world", "text", "name"),
    [
        (Config(device="cpu"), CPU, ALONE, "on the CPU", "cpu"),
        (Config(), CPU, ALONE, "on the CPU: torch sees no CUDA GPU", "cpu"),
        (Config(device="cpu"), CPU, TWO, "in 2 processes on the CPU", "2 x cpu"),
        (ASKED, GPU, ALONE, "on NVIDIA H200, bf16, compiled", "NVIDIA H200"),
        (replace(ASKED, compile="off"), GPU, TWO, "in 2 processes on NVIDIA H200, bf16", "2 x NVIDIA H200"),
    ],
)
def test_the_device_is_named(
    monkeypatch: pytest.MonkeyPatch, config: Config, device: torch.device, world: World, text: str, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert (device_text(config, device, world), device_name(device, world)) == (text, name)


def test_a_run_says_and_keeps_on_what_it_trains(
    server: Any, make_data: Callable[..., Path], tmp_path: Path
) -> None:
    """A run that falls to the CPU says why."""
    unseen = "import torch; torch.cuda.is_available = lambda: False"
    flags = ("train", "--data", make_data(), "--epochs", 1, "--batch-size", 4, "--json", "--out", "run")
    ended = server.start(*flags, cwd=tmp_path, before=unseen).wait()
    assert ended.code == 0, ended.err
    assert "run run: resnet18, rrtn-ruwl, 1 epoch, 2 steps on the CPU: torch sees no CUDA GPU\n" in ended.err
    assert json.loads(ended.out)["device"] == "cpu"
    assert read_info(tmp_path / "run/checkpoints/last").versions["device"] == "cpu"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with one GPU, and a torch that was built for `built`."""

    def put(
        capability: tuple[int, int] = (9, 0), built: str = "sm_75 sm_80 sm_90 sm_120", count: int = 1
    ) -> None:
        for name, found in {
            "is_available": True,
            "device_count": count,
            "set_device": None,
            "get_device_capability": capability,
            "get_arch_list": built.split(),
            "get_device_name": "Tesla V100-SXM2-16GB",
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, found=found: found)

    return put


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((7, 5), "sm_75 sm_80"),
        ((8, 6), "sm_75 sm_80"),
        ((9, 0), "sm_75 sm_90a"),
        ((12, 1), "sm_90 sm_120"),
        ((12, 0), "sm_75 compute_90"),
        ((9, 4), "gfx942"),  # a build for GPUs of AMD
    ],
)
def test_a_gpu_that_torch_was_built_for_is_taken(
    gpu: Callable[..., None], capability: tuple[int, int], built: str
) -> None:
    gpu(capability, built)
    assert device_from_config(Config(), ALONE) == GPU


@pytest.mark.parametrize(
    ("capability", "built", "versions"),
    [
        ((7, 0), "sm_75 sm_80 compute_120", "7.5, 8.0, 12.0"),
        ((10, 3), "sm_90 sm_120", "9.0, 12.0"),
        ((8, 0), "sm_75 sm_86", "7.5, 8.6"),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_without_kernels_is_refused(
    gpu: Callable[..., None], asked: Any, capability: tuple[int, int], built: str, versions: str
) -> None:
    gpu(capability, built)
    with pytest.raises(ConfigError) as caught:
        device_from_config(Config(device=asked), ALONE)
    assert caught.value.came.startswith(
        f"Tesla V100-SXM2-16GB has compute capability {'.'.join(map(str, capability))}, "
    )
    assert caught.value.wanted.endswith(f"built for: {versions}")


def test_a_gpu_that_another_program_holds_is_told(
    gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(device: object) -> None:
        raise torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nMore")

    gpu()
    monkeypatch.setattr(torch.cuda, "set_device", busy)
    with pytest.raises(StoppedError, match=r"^--device cuda \| CUDA error: .* unavailable \| "):
        device_from_config(Config(), ALONE)


def test_the_one_gpu_that_another_launcher_shows_a_process_is_its_own(
    gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As srun --gpus-per-task=1 does. Under torchrun all processes of a machine see the same GPUs."""
    second = World(rank=1, size=2, local_rank=1)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    gpu()
    assert device_from_config(Config(), second) == GPU
    gpu(count=3)
    assert device_from_config(Config(), second) == torch.device("cuda", 1)
    for count, third in ((2, World(2, 4, 2)), (1, second)):
        gpu(count=count)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        with pytest.raises(ConfigError, match="start one process for each GPU"):
            device_from_config(Config(), third)
