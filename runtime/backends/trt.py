"""The backend `trt`: engines of TensorRT or TensorRT-RTX."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..errors import install_command
from .base import Backend, BackendKind, Diagnosis

if TYPE_CHECKING:
    from ..bundle import Bundle, Variant
    from .engine_stamp import Machine

_RTX_CAPABILITIES: Final = (75, 80, 86, 89, 120, 121)  # the GPUs of TensorRT-RTX 1.7; it refuses all others


def _load(bundle: "Bundle", variant: "Variant", threads: int | None) -> Backend:
    from .trt_backend import trt_backend_from_bundle

    return trt_backend_from_bundle(bundle, variant)


def _obstacle(variant: "Variant") -> str:
    from .cuda_libraries import cuda_missing
    from .engine_stamp import mismatch, this_machine

    return mismatch(variant.stamp, this_machine()) or cuda_missing()  # engines use ONNX Runtime's memory


def _unproven(variant: "Variant") -> str:
    if variant.passed_gate:
        return ""
    return (
        "not compared with PyTorch: run rrtn tune, or export its run here with --trt; "
        "--backend trt takes it as it is"
    )


def _remark(variant: "Variant") -> str:
    return "" if variant.passed_gate else "not compared with PyTorch: rrtn parity does it"


def _diagnose() -> Diagnosis:
    from .cuda_libraries import cuda_missing, missing_library
    from .engine_stamp import this_machine
    from .trt_backend import load_problem

    machine = this_machine()
    broken = {name: reason for name in machine.versions if (reason := load_problem(name))}
    return diagnosis_of_machine(machine, cuda_missing() or missing_library(), broken)


def diagnosis_of_machine(machine: "Machine", without_cuda: str, broken: Mapping[str, str]) -> Diagnosis:
    """Whether engines can run on a machine.

    `without_cuda` says why ONNX Runtime's CUDA memory, which engines use, is missing; or is "". `broken` says
    of an installed flavour why it cannot be loaded.
    """
    works = {name: version for name, version in machine.versions.items() if name not in broken}
    found = _of_flavours(replace(machine, versions=works), without_cuda)
    if not broken:
        return found
    names = (f"{name} {machine.versions[name]} cannot be loaded: {why}" for name, why in broken.items())
    details = [*names, *([found.detail] if works else [])]
    return Diagnosis(found.state, "; ".join(details), found.fix or install_command("trt"))


def _of_flavours(machine: "Machine", without_cuda: str) -> Diagnosis:
    found = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    if not found:
        return Diagnosis("missing", "no TensorRT", install_command("trt"))
    if machine.capability is None:
        build = "build engines for other machines: rrtn export --trt"
        return Diagnosis("missing", f"{found}, but no GPU to run an engine on", build)
    if "tensorrt" not in machine.versions and machine.capability not in _RTX_CAPABILITIES:
        detail = f"{found} has no engines for SM{machine.capability}"
        return Diagnosis("missing", detail, install_command("trt"))
    if without_cuda:
        detail = f"{found}, but not the CUDA memory of ONNX Runtime"
        return Diagnosis("missing", detail, "as for --backend cuda")
    return Diagnosis("note", f"{found}, for SM{machine.capability}; tried at scoring")


TRT = BackendKind(
    name="trt",
    file_kind="engine",
    preferred=("trt-fp16", "trt"),  # who builds an fp16 engine has asked for its rounding
    needs_gpu=True,
    survives_fork=False,
    parallel=False,
    batch_size=256,
    bench_batches=(1, 32, 256),
    wanted="an engine for this machine",
    export_flags="--trt",
    load=_load,
    diagnose=_diagnose,
    obstacle=_obstacle,
    unproven=_unproven,
    remark=_remark,
)
