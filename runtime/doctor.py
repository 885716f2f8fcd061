"""What this machine can do, what is missing, and the command that mends it. Without torch."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnxruntime
import soundfile

from .backends.cuda_driver import gpu_names
from .backends.engine_stamp import Machine, this_machine
from .backends.ort_backend import cuda_missing, missing_library
from .cpus import usable_cpus

State = Literal["ok", "missing", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    subject: str
    state: State
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Everything that decides what rrtn can do here."""
    return [_python(), _cpu(), _memory(), _disk(), _gpu(), *_packages(), *_backends(), _formats()]


_PACKAGES = {  # name -> what for, and the extra that brings it
    "onnxruntime-gpu": ("scoring", ""),
    "torch": ("training and export", "train"),
    "torchaudio": ("training", "train"),
    "onnx": ("export", "train"),
    "onnxscript": ("export", "train"),
    "tensorrt-rtx-cu13": ("engines, built without a GPU", "rtx"),
    "tensorrt-cu13": ("engines, on a GPU machine", "trt"),
}


def _python() -> Finding:
    return Finding(
        "python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}, {sys.prefix}"
    )


def _cpu() -> Finding:
    return Finding("cpu", "ok", f"{usable_cpus()} usable cores, {platform.machine()}")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", "ok", f"{total / 2**30:.1f} GiB")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 2**30
    state: State = "ok" if free > 1 else "missing"
    return Finding(
        "disk", state, f"{free:.1f} GiB free in the current folder", "" if free > 1 else "free some space"
    )


def _gpu() -> Finding:
    names = gpu_names()
    if names is None:
        return Finding("gpu", "missing", "no NVIDIA driver", "training and scoring run on the CPU")
    if not names:
        return Finding("gpu", "missing", "the driver is there, but no GPU that it can use", "nvidia-smi")
    return Finding("gpu", "ok", f"{len(names)} x {names[0]}")


def _packages() -> Iterator[Finding]:
    for package, (purpose, extra) in _PACKAGES.items():
        if version := _version(package):
            yield Finding(package, "ok", f"{version}, for {purpose}")
        elif package == "onnxruntime-gpu" and (version := _version("onnxruntime")):
            yield Finding("onnxruntime", "ok", f"{version}, for {purpose} on the CPU")
        else:
            wanted = f"rrtn[{extra}]" if extra else package
            yield Finding(package, "missing", f"not installed, for {purpose}", f'pip install "{wanted}"')


_RTX_CAPABILITIES = (75, 80, 86, 89, 120, 121)  # of TensorRT-RTX 1.7, whose others are refused


def _backends() -> Iterator[Finding]:
    """Libraries are loaded for this, so that one that is missing is named here and not in the
    middle of the work.
    """
    reason, _, fix = (cuda_missing() or missing_library()).partition("; ")
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()
    )
    if reason:
        yield Finding(
            "score --backend cuda", "missing", f"{reason} (providers in the wheel: {providers})", fix
        )
    else:
        yield Finding(
            "score --backend cuda", "note", "provider, driver and libraries are there; tried at scoring"
        )
    yield _engines(this_machine(), reason)


def _engines(machine: Machine, without_cuda: str) -> Finding:
    """Whether engines can run.

    `without_cuda`: why ONNX Runtime's CUDA memory, which they use, is not there.
    """
    subject, found = (
        "score --backend trt",
        ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
    )
    if not found:
        return Finding(subject, "missing", "no TensorRT", 'pip install "rrtn[trt]"')
    if machine.capability is None:
        return Finding(
            subject,
            "missing",
            f"{found}, but no GPU to run an engine on",
            "engines for other machines: rrtn export --trt",
        )
    if "tensorrt" not in machine.versions and machine.capability not in _RTX_CAPABILITIES:
        return Finding(
            subject,
            "missing",
            f"{found} has no engines for SM{machine.capability}",
            'pip install "rrtn[trt]"',
        )
    if without_cuda:
        return Finding(
            subject, "missing", f"{found}, but not the CUDA memory of ONNX Runtime", "as for --backend cuda"
        )
    return Finding(subject, "note", f"{found}, for SM{machine.capability}; tried at scoring")


def _formats() -> Finding:
    formats = ", ".join(sorted(soundfile.available_formats()))
    return Finding("audio formats", "ok", f"libsndfile {soundfile.__libsndfile_version__}: {formats}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
