"""On what a run trains, and that it is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rrtn.train.checkpoint import read_info
from rrtn.train.config import Config
from rrtn.train.device import device_name, device_text
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
