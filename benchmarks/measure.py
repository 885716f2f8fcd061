"""What every benchmark prints: the machine, the versions, and medians of interleaved repetitions."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rrtn.runtime.cpus import usable_cpus

PACKAGES = ("rrtn", "numpy", "onnxruntime-gpu", "torch", "torchaudio", "soundfile", "soxr")


def machine() -> dict[str, Any]:
    """CPU model, usable cores, and the versions that matter."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = models[0].partition(": ")[2] if models else platform.processor()
    versions = {name: _version(name) for name in PACKAGES}
    return {"cpu": cpu, "cores": usable_cpus(), "python": platform.python_version(), "versions": versions}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def interleaved(functions: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each call, in rounds over all functions: a slow moment of the machine hits them alike."""
    for function in functions.values():
        for _ in range(warm_up):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
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


def report(title: str, results: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
    """A line for each result, then the machine, then everything as one JSON line."""
    hardware = machine()
    print(f"{title}: {hardware['cpu']}, {hardware['cores']} cores")
    for name, result in results.items():
        print(f"  {name:36s} " + "  ".join(f"{key} {value}" for key, value in result.items()))
    print(json.dumps({"benchmark": title, "machine": hardware, "results": results, **more}))
