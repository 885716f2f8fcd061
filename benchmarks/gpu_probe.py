"""Section `probe`: what the GPU does with the pieces of a step, before the whole is timed.

It says whether a goal can be reached, and where the time of a step goes. B batch, C channels, T frames,
M mels.
"""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import checkout  # noqa: F401  # before rrtn
import numpy as np
import torch
import torch.nn.functional as F
from gpu_correct import config_of
from gpu_section import Place, Record, seconds_of_blocks
from gpu_training import peak_of, stepping
from rrtn.runtime import FrontendSpec
from rrtn.runtime.system.cpus import usable_cpus
from rrtn.train.data.device_clips import SplitClips
from rrtn.train.method.choices import EncoderName
from torch import Tensor
from train_step import split_of_noise

# Input and output channels, frames and mels of CNN14's twelve convolutions.
CONVOLUTIONS = tuple(
    (c_in, c_out, 250 >> level, 64 >> level)
    for level, channels in enumerate((64, 128, 256, 512, 1024, 2048))
    for c_in, c_out in ((channels // 2 if level else 1, channels), (channels, channels))
)
KERNELS_NAMED = 15


def section_probe(place: Place, record: Record) -> None:
    """The machine, each convolution, a step under the profiler, CUDA graphs, dropout in a replay."""
    if place.smoke:
        torch.compiler.set_stance("force_eager")
    with record.part("machine"):
        record.add("machine", **machine_facts())
    batch = place.size(128, 4)
    for size in (batch, 2 * batch):  # a view, and both at once
        for shape in place.size(CONVOLUTIONS, CONVOLUTIONS[-1:]):
            name = "convolution {} to {}, {} x {}".format(*shape) + f", batch {size}"
            with record.part(name):
                record.add(name, **convolution(place, shape, size))
    split = split_of_noise(2 * batch, FrontendSpec(), place.device)
    encoder = place.chosen(("cnn14",), ("resnet18",))[0]
    for mode in ("off", "default"):
        with record.part(f"{encoder} {mode}: profile"):
            record.add(f"{encoder} {mode}: profile", **profile(place, encoder, mode, batch, split))
    with record.part("CUDA graphs"):
        record.add("CUDA graphs", **captured(place, encoder, batch, split))
    with record.part("dropout in a replay"):
        record.add("dropout in a replay", **dropout_replayed(place))
    torch.compiler.set_stance("default")


def machine_facts() -> dict[str, Any]:
    """What libcuda says, and how much room there is."""
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    facts: dict[str, Any] = {"cores": usable_cpus(), "free_disk_gb": round(free, 1)}
    facts["free_memory_gb"] = round(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    facts["c_compiler"] = shutil.which("cc") or shutil.which("gcc") or ""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {**facts, "libcuda": str(error)}
    version, count = ctypes.c_int(), ctypes.c_int()
    facts["cuInit"] = driver.cuInit(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    return {**facts, "cuda_of_driver": version.value, "gpus": count.value}


def convolution(place: Place, shape: tuple[int, int, int, int], batch: int) -> dict[str, Any]:
    """TFLOP/s of the three products of a 3x3 convolution in bf16, with cudnn.benchmark and without."""
    c_in, c_out, frames, mels = shape
    x = _noise(place, batch, c_in, frames, mels)
    weight = _noise(place, c_out, c_in, 3, 3)
    gradient = _noise(place, batch, c_out, frames, mels)

    def backward(*mask: bool) -> Callable[[], object]:
        return lambda: torch.ops.aten.convolution_backward(
            gradient, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, list(mask)
        )

    functions: dict[str, Callable[[], object]] = {
        "forward": lambda: F.conv2d(x, weight, padding=1),
        "dgrad": backward(True, False, False),
        "wgrad": backward(False, True, False),
    }
    flop = 2 * 9 * c_in * c_out * frames * mels * batch
    peak = peak_of("bf16", place.device)
    found: dict[str, Any] = {"peak_tflop_per_s": round(peak / 1e12, 1)}
    before = torch.backends.cudnn.benchmark
    try:
        for benchmark in (False, True):
            torch.backends.cudnn.benchmark = benchmark
            rounds, calls = place.size((5, 10), (1, 1))
            seconds = seconds_of_blocks(functions, place.device, rounds=rounds, calls=calls, warm_up=2)
            for name, values in seconds.items():
                speed = flop / float(np.median(values))
                found[f"{name}{'_benchmark' if benchmark else ''}"] = round(speed / 1e12, 1)
    finally:
        torch.backends.cudnn.benchmark = before
    return found


def _noise(place: Place, *shape: int) -> Tensor:
    noise = torch.randn(shape, device=place.device, dtype=torch.bfloat16)
    return noise.contiguous(memory_format=torch.channels_last)


def step_of(encoder: EncoderName, mode: str, place: Place, batch: int, split: SplitClips) -> stepping:
    """A stepper that has warmed up."""
    config = config_of(encoder, batch_size=batch, precision="bf16", compile=mode)
    step = stepping(config, split)
    for _ in range(place.size(4, 1)):
        step()
    step.check()
    return step


def profile(place: Place, encoder: EncoderName, mode: str, batch: int, split: SplitClips) -> dict[str, Any]:
    """Milliseconds of a step by kernel, the largest first."""
    step, steps = step_of(encoder, mode, place, batch, split), place.size(5, 1)
    on_gpu = place.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if on_gpu else activity.CPU]) as profiler:
        for _ in range(steps):
            step()
        step.check()
    kernels: dict[str, tuple[float, int]] = {}
    for event in profiler.key_averages():
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kernels[event.key[:90]] = (time / 1e3 / steps, event.count // steps)
    largest = sorted(kernels.items(), key=lambda item: -item[1][0])[:KERNELS_NAMED]
    return {
        "ms": round(sum(time for time, _ in kernels.values()), 3),
        "kernels": {name: {"ms": round(time, 3), "calls": calls} for name, (time, calls) in largest},
    }


def captured(place: Place, encoder: EncoderName, batch: int, split: SplitClips) -> dict[str, Any]:
    """Whether `reduce-overhead` takes CUDA graphs of the step, and what it says if not."""
    counters = torch._dynamo.utils.counters
    counters.clear()
    step_of(encoder, "reduce-overhead", place, batch, split)
    return {"skipped": int(counters["inductor"]["cudagraph_skips"])}


def dropout_replayed(place: Place) -> dict[str, Any]:
    """Whether a replayed graph draws by torch's seed: other masks by another, the same by the same."""
    torch.compiler.reset()
    options: dict[str, Any] = {} if place.smoke else {"triton.cudagraphs": True}

    def dropped(x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)

    function = torch.compile(dropped, options=options)
    x = torch.ones(4096, device=place.device)
    found = []
    for seed in (0, 0, 1, 2, 1):  # the first calls warm up and capture
        torch.compiler.cudagraph_mark_step_begin()
        torch.manual_seed(seed)
        found.append(function(x).clone())
    return {
        "another_seed_other_masks": not torch.equal(found[2], found[3]),
        "same_seed_same_masks": torch.equal(found[2], found[4]),
    }
