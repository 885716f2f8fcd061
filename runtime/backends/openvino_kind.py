"""The backends `openvino` and `openvino-bf16`: OpenVINO on the processor, in float32 and int8 or in bfloat16.

`auto` takes them where `rrtn tune` has measured them. Where the processor multiplies matrices of bfloat16,
that is several times as fast as float32, and nearer to it than int8.
"""

import importlib.util
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from ..errors import install_command
from ..system.cpus import has_bf16
from ..system.packages import installed_version
from .base import Backend, BackendKind, Diagnosis

if TYPE_CHECKING:
    from ..bundle import Bundle, Variant

_NO_BF16: Final = "the processor has neither AVX-512 BF16 nor AMX"


def _load(
    bundle: "Bundle",
    variant: "Variant",
    threads: int | None,
    *,
    name: str = "openvino",
    precision: Literal["f32", "bf16"] = "f32",
) -> Backend:
    from .openvino_backend import openvino_backend_from_bundle

    return openvino_backend_from_bundle(bundle, variant, name, threads=threads, precision=precision)


def _missing() -> str:
    return "" if importlib.util.find_spec("openvino") else "OpenVINO is not installed"


def _obstacle(variant: "Variant") -> str:
    if variant.plan and variant.precision == "int8":
        return f"{variant.name} holds operators of ONNX Runtime's own"
    return _missing()


def _obstacle_bf16(variant: "Variant") -> str:
    if variant.precision != "fp32":
        return f"{variant.name} is {variant.precision}, and only what is fp32 is computed in bf16"
    return _missing() or _NO_BF16 * (not has_bf16())


def _diagnose() -> Diagnosis:
    if missing := _missing():
        return Diagnosis("missing", missing, install_command(OPENVINO.extra))
    return Diagnosis("note", f"OpenVINO {installed_version('openvino')}; for: rrtn tune")


def _diagnose_bf16() -> Diagnosis:
    if _missing() or has_bf16():
        found = _diagnose()
        return found._replace(detail=f"{found.detail} --allow bf16") if found.state == "note" else found
    return Diagnosis("note", _NO_BF16)


OPENVINO = BackendKind(
    name="openvino",
    file_kind="onnx",
    preferred=("cpu", "fp32", "waveform"),
    chosen_by_auto=False,
    needs_gpu=False,
    parallel=True,
    survives_fork=False,  # its threads, and the locks of those that were in it, are not in the child
    batch_size=16,
    bench_batches=(1, 4, 16),
    wanted="OpenVINO",
    extra="openvino",
    load=_load,
    diagnose=_diagnose,
    obstacle=_obstacle,
)

OPENVINO_BF16 = replace(
    OPENVINO,
    name="openvino-bf16",
    precision="bf16",
    preferred=("fp32", "waveform"),  # the variant `cpu` rounds a little more, and is faster where AMX is not
    wanted="OpenVINO, and a processor with AVX-512 BF16 or AMX",
    load=partial(_load, name="openvino-bf16", precision="bf16"),
    diagnose=_diagnose_bf16,
    obstacle=_obstacle_bf16,
)
