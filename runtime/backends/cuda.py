"""The backend `cuda`: ONNX Runtime on an NVIDIA GPU."""

from typing import TYPE_CHECKING

from ..errors import UnavailableError
from .base import Backend, BackendKind, Diagnosis

if TYPE_CHECKING:
    from ..bundle import Bundle, Variant


def _load(bundle: "Bundle", variant: "Variant", threads: int | None) -> Backend:
    from .ort_backend import ort_backend_from_bundle

    return ort_backend_from_bundle(bundle, variant, device="cuda", threads=threads)


def _obstacle(variant: "Variant") -> str:
    from .cuda_libraries import cuda_missing

    return f"{variant.name} is made for CPUs" if variant.plan else cuda_missing()


def _diagnose() -> Diagnosis:
    """Loads the libraries, so a missing one is named here and not while files are scored."""
    import onnxruntime

    from .cuda_libraries import load_cuda

    try:
        load_cuda()
    except UnavailableError as error:
        names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
        return Diagnosis("missing", f"{error.came} (providers in the wheel: {', '.join(names)})", error.fix)
    return Diagnosis("note", "provider, driver and libraries are there; tried at scoring")


CUDA = BackendKind(
    name="cuda",
    file_kind="onnx",
    # On a GPU the log-Mel belongs in the graph. fp16 and int8 round more than float32, so they are
    # used only if someone asks for them by name.
    preferred=("waveform", "fp32"),
    needs_gpu=True,
    parallel=False,
    batch_size=256,
    bench_batches=(1, 32, 256),
    wanted="a CUDA GPU",
    fix="use --backend cpu",
    load=_load,
    diagnose=_diagnose,
    obstacle=_obstacle,
)
