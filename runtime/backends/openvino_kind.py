"""The backend `openvino`: OpenVINO on the processor. `auto` takes it where `rrtn tune` has measured it."""

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Final

from .base import Backend, BackendKind, Diagnosis

if TYPE_CHECKING:
    from ..bundle import Bundle, Variant

_INSTALL: Final = 'pip install "rrtn[openvino]"'


def _load(bundle: "Bundle", variant: "Variant", threads: int | None) -> Backend:
    from .openvino_backend import openvino_backend_from_bundle

    return openvino_backend_from_bundle(bundle, variant, threads=threads)


def _missing() -> str:
    return "" if importlib.util.find_spec("openvino") else "OpenVINO is not installed"


def _obstacle(variant: "Variant") -> str:
    if variant.plan and variant.precision == "int8":
        return f"{variant.name} holds operators of ONNX Runtime's own"
    return _missing()


def _may_choose(variant: "Variant") -> bool:
    """The variant `cpu` is made for ONNX Runtime."""
    return not variant.plan


def _diagnose() -> Diagnosis:
    if missing := _missing():
        return Diagnosis("missing", missing, _INSTALL)
    return Diagnosis("note", f"OpenVINO {importlib.metadata.version('openvino')}; for: rrtn tune")


OPENVINO = BackendKind(
    name="openvino",
    file_kind="onnx",
    preferred=("fp32", "waveform"),
    may_choose=_may_choose,
    chosen_by_auto=False,
    needs_gpu=False,
    parallel=True,
    survives_fork=False,  # its threads, and the locks of those that were in it, are not in the child
    batch_size=16,
    bench_batches=(1, 4, 16),
    wanted="OpenVINO",
    fix=_INSTALL,
    load=_load,
    diagnose=_diagnose,
    obstacle=_obstacle,
)
