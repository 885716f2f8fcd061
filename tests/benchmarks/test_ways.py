"""What every_way.py and score_folder.py compare: our best with the best of others, in each precision."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("every_way")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("score_folder")


def test_our_best_way_stands_beside_the_best_peer(ways: ModuleType) -> None:
    made = {
        "rrtn cpu on cpu": ways.Way("fp32", True, np.copy),
        "rrtn mnn on mnn": ways.Way("fp32", True, np.copy),
        "rrtn cpu-int8 on cpu": ways.Way("int8", True, np.copy),
        ways.BASE: ways.Way("fp32", False, np.copy),
        "MNN fp32": ways.Way("fp32", False, np.copy),
        "OpenVINO bf16": ways.Way("bf16", False, np.copy),
        "OpenVINO int8": ways.Way("int8", False, np.copy),
    }
    times = dict(zip(made, (3.0, 2.0, 1.0, 6.0, 2.5, 0.1, 1.5), strict=True))
    found = dict(ways._ratios({name: [one, one] for name, one in times.items()}, made))

    assert found["rrtn cpu on cpu over ONNX Runtime fp32"]["median"] == 2
    fp32 = found["our best fp32 over the best peer's"]
    assert (fp32["median"], fp32["between"]) == (1.25, "rrtn mnn on mnn, and MNN fp32")
    assert found["our best int8 over the best peer's"]["between"] == "rrtn cpu-int8 on cpu, and OpenVINO int8"
    assert found["rrtn cpu-int8 on cpu over OpenVINO int8"]["median"] == 1.5


def test_tools_are_compared_at_equal_precision(folder: ModuleType) -> None:
    times = {
        **{f"bare ORT {name}": 1.0 for name in ("fp32", "cpu", "int8", "cpu-int8")},
        "rrtn fp32": 4.0,
        "rrtn cpu": 3.0,
        "rrtn mnn": 2.0,
        "rrtn int8": 1.0,
        "rrtn cpu-int8": 1.25,
        "PyTorch": 8.0,
        "audonnx 2 files": 6.0,
        "audonnx 2 files int8": 2.0,
        "OpenVINO int8": 1.5,
    }
    found = folder.ratios({name: [one, one] for name, one in times.items()})

    assert found["fp32 over the best other tool"]["between"] == "rrtn mnn, and audonnx 2 files"
    assert found["fp32 over the best other tool"]["median"] == 3
    assert found["int8 over the best other tool"]["between"] == "rrtn int8, and OpenVINO int8"
    assert found["int8 over audonnx"]["median"] == 2
    assert found["share of bare ORT, cpu-int8"]["median"] == 0.8


def test_what_is_far_behind_is_measured_once(folder: ModuleType) -> None:
    """All settings of audonnx but the fastest, and tools that take 1.5 times as long as the best."""
    once = {
        "rrtn fp32": [9.0],
        "audonnx default": [3.0],
        "audonnx 2 files": [2.0],
        "audonnx default int8": [1.0],
        "OpenVINO fp32": [2.9],
        "OpenVINO int8": [1.6],
        "PyTorch": [3.1],
    }
    left = folder._without_worse_settings(dict.fromkeys(once, list), once)

    assert list(left) == ["rrtn fp32", "audonnx 2 files", "audonnx default int8", "OpenVINO fp32"]
