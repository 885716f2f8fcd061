"""The backend `cpu`: ONNX Runtime on the processor."""

from typing import TYPE_CHECKING

from .base import Backend, BackendKind, Diagnosis

if TYPE_CHECKING:
    from ..bundle import Bundle, Variant


def _load(bundle: "Bundle", variant: "Variant", threads: int | None) -> Backend:
    from .ort_backend import ort_backend_from_bundle

    return ort_backend_from_bundle(bundle, variant, device="cpu", threads=threads)


def _drawback(variant: "Variant", single: bool) -> str:
    """A variant with a plan was faster than the one it is made from, in batches, where it was made."""
    from ..system.cpus import vector_extension

    if not variant.plan:
        return ""
    if single:  # too few rows in its products then: CNN14 by `cpu` takes 1.6 times as long as by fp32
        return "made for batches, and slower for single clips"
    made_for, here = variant.plan["vector_extension"], vector_extension()
    return "" if made_for == here else f"made for a processor with {made_for}, this one has {here}"


def _diagnose() -> Diagnosis:
    import onnxruntime

    from ..system.cpus import vector_extension

    return Diagnosis("ok", f"ONNX Runtime {onnxruntime.__version__}, {vector_extension()}")


CPU = BackendKind(
    name="cpu",
    file_kind="onnx",
    # NumPy's FFT is several times as fast as the convolution that computes the log-Mel in a graph.
    preferred=("cpu", "fp32", "waveform"),
    needs_gpu=False,
    survives_fork=True,
    parallel=True,
    batch_size=16,
    bench_batches=(1, 4, 16),
    wanted="an ONNX file",
    export_flags="",
    load=_load,
    diagnose=_diagnose,
    drawback=_drawback,
)
