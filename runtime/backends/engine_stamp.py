"""Whether a TensorRT engine may be loaded on this machine.

An engine is executable code for one version of TensorRT and for certain GPUs. Another version may
crash while it loads the engine, or worse. So the engine's stamp in bundle.json is compared with
this machine before TensorRT sees the file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from ..system.packages import installed_version
from .cuda_driver import compute_capability, gpu_names

TENSORRT_PACKAGES: Final = {  # flavour -> packages that bring it
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
_OPTIONAL: Final = ("labels", "meaning", "frontend")
_DRIVER: Final = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class EngineStamp:
    """What built an engine, and where it may run."""

    flavour: str  # tensorrt or tensorrt_rtx
    version: str
    targets: tuple[int, ...]  # compute capabilities, times ten
    gpu: str | None  # the GPU that it was built on
    driver: str | None
    onnx_sha256: str
    batch_profile: tuple[int, int, int]
    convolutions: dict[str, int]  # precision -> number of convolutions in the builder's network
    # What the engine itself cannot say; bundle.json must agree. A stamp may lack it.
    labels: tuple[str, ...] = ()
    meaning: dict[str, Any] | None = None  # where scores have a scale or are classes
    frontend: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For bundle.json."""
        return {name: value for name, value in asdict(self).items() if value or name not in _OPTIONAL}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What an engine finds on a machine."""

    versions: Mapping[str, str]  # installed flavour -> its version
    capability: int | None  # compute capability of the first GPU, times ten; None without a GPU
    driver: str | None
    gpu: str | None = None  # the name of the first GPU


def this_machine() -> Machine:
    """Reads the installed packages and asks the driver; does not load TensorRT."""
    found = {flavour: installed_version(*names) for flavour, names in TENSORRT_PACKAGES.items()}
    versions = {flavour: version for flavour, version in found.items() if version}
    gpu = next(iter(gpu_names() or ()), None)
    return Machine(versions=versions, capability=compute_capability(), driver=driver_version(), gpu=gpu)


def mismatch(stamp: Mapping[str, Any] | None, machine: Machine) -> str:
    """Why an engine with this stamp must not be loaded on this machine, or "" if it may.

    The version of TensorRT must be the same. An engine of TensorRT is made for the very model of GPU that
    it was built on, a part of a GPU (MIG) included; one of TensorRT-RTX is compiled for the GPU that it
    meets. The driver must not be older than the one that the engine was built with.
    """
    fields = stamp if isinstance(stamp, dict) else {}  # a file can hold anything
    flavour, version, targets = (fields.get(name) for name in ("flavour", "version", "targets"))
    if not isinstance(flavour, str) or not isinstance(version, str) or not _are_capabilities(targets):
        return "no stamp that says what built it, and for which GPUs"
    return (
        _of_version(flavour, version, machine.versions.get(flavour))
        or _of_gpu(targets, machine.capability)
        or (_of_model(fields.get("gpu"), machine.gpu) if flavour == "tensorrt" else "")
        or _of_driver(fields.get("driver"), machine.driver)
    )


def driver_version() -> str | None:
    """The version of the NVIDIA driver, such as 580.65.06; None without a driver."""
    try:
        found = re.search(r"\d+\.\d+(\.\d+)?", _DRIVER.read_text(encoding="utf-8").partition("\n")[0])
    except OSError:
        return None
    return found[0] if found else None


def _are_capabilities(targets: object) -> TypeGuard[Sequence[int]]:
    return (
        isinstance(targets, list | tuple)
        and bool(targets)
        and all(isinstance(target, int) for target in targets)
    )


def _of_version(flavour: str, version: str, here: str | None) -> str:
    if here is None:
        return f"built by {flavour} {version}, which is not installed here"
    return "" if here == version else f"built by {flavour} {version}, here is {here}"


def _of_gpu(targets: Sequence[int], here: int | None) -> str:
    names = ", ".join(f"SM{target}" for target in targets)
    if here is None:
        return f"built for {names}, here is no GPU"
    return "" if here in targets else f"built for {names}, here is SM{here}"


def _of_model(gpu: object, here: str | None) -> str:
    differs = isinstance(gpu, str) and here is not None and gpu != here
    return f"built on {gpu}, here is {here}" if differs else ""


def _of_driver(driver: object, here: str | None) -> str:
    older = isinstance(driver, str) and here is not None and _numbers(here) < _numbers(driver)
    return f"built with driver {driver}, here is the older {here}" if older else ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", version)]
