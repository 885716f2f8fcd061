"""What this machine can do, what is missing, and the command that fixes it. Without torch."""

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import soundfile

from .backends.cuda_driver import gpu_names
from .backends.registry import BACKENDS
from .backends.tuning_file import newest_tuning
from .errors import ConfigError, install_command
from .system.cache import cache_folder
from .system.cpus import usable_cpus
from .system.host import total_memory
from .system.packages import installed_version
from .text import counted

FindingState = Literal["ok", "missing", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    subject: str
    state: FindingState
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Everything that decides what rrtn can do here."""
    return [
        *(_python(), _cpu(), _memory(), _disk(), _cache(), _gpu()),
        *(*_packages(), *_backends(), _tune(), _formats()),
    ]


_PACKAGES: Final = {  # name -> its purpose, and the extra that installs it
    "onnxruntime-gpu": ("scoring", ""),
    "av": ("audio that libsndfile cannot read: m4a, 3gp, webm, ...", "formats"),
    "torch": ("training and export", "train"),
    "torchaudio": ("training", "train"),
    "onnx": ("export", "train"),
    "onnxscript": ("export", "train"),
    "tensorrt-rtx-cu13": ("engines, built without a GPU", "rtx"),
    "tensorrt-cu13": ("engines, on a GPU machine", "trt"),
}


def _python() -> Finding:
    version, system = platform.python_version(), platform.platform(terse=True)
    return Finding("python", "ok", f"{version} on {system}, {sys.prefix}")


def _cpu() -> Finding:
    return Finding("cpu", "ok", f"{counted(usable_cpus(), 'usable core')}, {platform.machine()}")


def _memory() -> Finding:
    total = total_memory()
    return Finding("memory", "ok", f"{total / 2**30:.1f} GiB" if total else "the system does not say")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 2**30
    detail = f"{free:.1f} GiB free in the current folder"
    return (
        Finding("disk", "ok", detail) if free > 1 else Finding("disk", "missing", detail, "free some space")
    )


def _cache() -> Finding:
    """Nothing in it is ever removed by rrtn: clips that were decoded before the data changed stay."""
    try:
        folder = cache_folder()
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    except ConfigError as error:
        return Finding("cache", "missing", f"{error.subject}: {error.came}", error.fix)
    except OSError as error:  # another process is at work in it
        return Finding("cache", "note", f"{folder}: {error.strerror}")
    what = "clips that were decoded, tunings"
    return Finding(
        "cache", "ok", f"{size / 2**30:.1f} GiB in {folder} ({what}): it may be deleted at any time"
    )


def _gpu() -> Finding:
    names = gpu_names()
    if names is None:
        return Finding("gpu", "missing", "no NVIDIA driver", "training and scoring run on the CPU")
    if not names:
        return Finding("gpu", "missing", "the driver is there, but no GPU that it can use", "run: nvidia-smi")
    return Finding("gpu", "ok", f"{len(names)} x {names[0]}")


def _packages() -> Iterator[Finding]:
    for package, (purpose, extra) in _PACKAGES.items():
        version, other = installed_version(package), installed_version("onnxruntime")
        if package == "onnxruntime-gpu" and version and other:
            from .backends.cuda_libraries import INSTALL_AGAIN  # which imports onnxruntime

            detail = f"{version} and onnxruntime {other}, of which one has overwritten the other"
            yield Finding(package, "missing", detail, INSTALL_AGAIN)
        elif version:
            yield Finding(package, "ok", f"{version}, for {purpose}")
        elif package == "onnxruntime-gpu" and other:
            yield Finding("onnxruntime", "ok", f"{other}, for {purpose} on the CPU")
        else:
            fix = install_command(extra) if extra else f'pip install "{package}"'
            yield Finding(package, "missing", f"not installed, for {purpose}", fix)


def _backends() -> Iterator[Finding]:
    """Every backend, the fastest last. Each says by itself whether it can run here."""
    for kind in reversed(BACKENDS):
        yield Finding(f"score --backend {kind.name}", *kind.diagnose())


def _tune() -> Finding:
    """What `rrtn tune` has found last: `--backend auto` follows it for that bundle."""
    tuning = newest_tuning()
    if tuning is None:
        return Finding("tune", "note", "nothing was measured on this machine", "rrtn tune BUNDLE")
    return Finding("tune", "ok", f"{tuning.made[:10]}, {tuning.bundle}: {tuning.summary}")


def _formats() -> Finding:
    formats = ", ".join(sorted(soundfile.available_formats()))
    return Finding("audio formats", "ok", f"libsndfile {soundfile.__libsndfile_version__}: {formats}")
