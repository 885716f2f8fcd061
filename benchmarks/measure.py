"""What every benchmark prints: the machine, the versions, and medians of interleaved runs."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import rrtn
from rrtn.runtime.backends.engine_stamp import driver_version
from rrtn.runtime.system.cpus import cpu_kind, usable_cpus

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "numpy",
    "onnxruntime-gpu",
    "onnxruntime",
    "torch",
    "torchaudio",
    "soundfile",
    "soxr",
    "openvino",
    "mnn",
    "ncnn",
    "audonnx",
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-rtx-cu13",
)
Ratio = dict[str, Any]  # median, q25, q75 over the rounds of a run, n, and which way is better


def machine(device: "torch.device | None" = None) -> dict[str, Any]:
    """The processor, usable cores, the GPU if `device` is one, and the versions that matter."""
    versions = {"rrtn": rrtn.__version__} | {
        name: version for name in PACKAGES if (version := _version(name))
    }
    hardware = {
        **cpu_kind(),
        "cores": usable_cpus(),
        "python": platform.python_version(),
        "versions": versions,
    }
    return hardware | {"gpu": _gpu(device) if device is not None and device.type == "cuda" else None}


def _gpu(device: "torch.device") -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: int = 2,
    warm_caches: bool = False,
    pause: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call by `clock`, in rounds over all functions, forwards and backwards in turn.

    So a slow moment of the machine slows all of them, and none has always the same one before it, which
    leaves caches and clocks as it does. `warm_caches` calls each once more, untimed, right before: calls of
    a few milliseconds differ by up to a third by what ran before them. A `pause` (s) before each call lets
    the threads of the previous one stop spinning on the cores.
    """
    for function in functions.values():
        for _ in range(warm_up):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats):
        for name, function in list(functions.items())[:: -1 if turn % 2 else 1]:
            time.sleep(pause)
            if warm_caches:
                function()
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return seconds


def summary(seconds: list[float], *, clips: int) -> dict[str, float]:
    """Median, p90 and spread of a call that handles `clips` clips."""
    median = float(np.median(seconds))
    return {
        "n": len(seconds),
        "median_ms": round(1e3 * median, 4),
        "p90_ms": round(1e3 * float(np.quantile(seconds, 0.9)), 4),
        "spread": round(float(np.std(seconds) / np.mean(seconds)), 3),
        "clips_per_s": round(clips / median, 2),
    }


def ratio(times: list[float], of: list[float], *, better: str = "higher") -> Ratio:
    """The median and the quartiles of `times` / `of`, round by round.

    A slow moment of the machine is in both, so the ratio hardly depends on how fast the machine is.
    results.py therefore compares ratios between two runs.
    """
    q25, median, q75 = np.quantile(np.array(times) / np.array(of), (0.25, 0.5, 0.75)).round(4).tolist()
    return {"median": median, "q25": q25, "q75": q75, "n": len(times), "better": better}


def best_against_best(ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> Ratio:
    """How many times as fast the fastest of ours is as the fastest of theirs; `between` names the two."""
    mine, peer = fastest(ours), fastest(theirs)
    return ratio(theirs[peer], ours[mine]) | {"between": f"{mine}, and {peer}"}


def fastest(seconds: Mapping[str, list[float]]) -> str:
    """The name of the least median."""
    return min(seconds, key=lambda name: float(np.median(seconds[name])))


def report(
    title: str, results: Mapping[str, Mapping[str, Any]], *, ratios: Mapping[str, Ratio], **more: Any
) -> None:
    """A line for each result and each ratio, then the machine, then everything as one JSON line."""
    hardware = machine()
    print(f"{title}: {hardware['cpu']}, {hardware['cores']} cores")
    for name, result in results.items():
        print(f"  {name:36s} " + "  ".join(f"{key} {value}" for key, value in result.items()))
    for name, value in ratios.items():
        spread = f"{value['q25']} to {value['q75']}, n {value['n']}"
        print(f"  {name:60s} {value['median']} ({spread}, {value['better']} is better)")
    print(json.dumps({"benchmark": title, "machine": hardware, "results": results, "ratios": ratios, **more}))
