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

    for_cpus = variant.plan or variant.input == "samples"
    return f"{variant.name} is made for CPUs" if for_cpus else cuda_missing()


def _may_choose(variant: "Variant") -> bool:
    return variant.precision == "fp32" or variant.passed_gate


def _remark(variant: "Variant") -> str:
    if variant.precision == "fp32":
        return "float32 without TF32 uses no tensor cores; what rrtn export --fp16 makes does"
    return f"{variant.precision}, which passed its gate; --variant fp32 gives float32"


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
    # On a GPU the log-Mel belongs in the graph. Float32 without TF32 uses no tensor cores. int8 is for
    # those who ask for it by name: its gate has no limit of a score.
    preferred=("waveform-fp16", "waveform", "fp16", "fp32"),
    may_choose=_may_choose,
    needs_gpu=True,
    survives_fork=False,
    parallel=False,
    batch_size=256,
    bench_batches=(1, 32, 256),
    wanted="a CUDA GPU",
    fix="use --backend cpu",
    load=_load,
    diagnose=_diagnose,
    obstacle=_obstacle,
    remark=_remark,
)
