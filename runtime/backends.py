"""Which variant runs on what: the choice behind `--backend auto|cpu|cuda`."""

from typing import Final, Literal, get_args

from .bundle import Bundle, Variant
from .errors import ConfigError, ModelError
from .ort_backend import OrtBackend, cuda_missing, ort_backend_from_bundle

BackendName = Literal["auto", "cpu", "cuda"]
# On a GPU the frontend belongs into the graph; on a CPU NumPy's FFT is several times faster than the graph's convolution.
_PREFERRED: Final = {"cpu": ("fp32", "waveform"), "cuda": ("waveform", "fp32")}


def backend_from_bundle(bundle: Bundle, name: BackendName = "auto", *, threads: int | None = None) -> OrtBackend:
    """The backend asked for, or for `auto` CUDA where it works and else the CPU. Never a silent fallback.

    Raises ConfigError for an unknown name, ModelError where the backend asked for cannot run here.
    """
    if name not in get_args(BackendName):
        raise ConfigError(f"--backend | {name!r} | expected one of {', '.join(get_args(BackendName))}")
    if name == "auto":
        name = "cpu" if cuda_missing() else "cuda"
    elif name == "cuda" and (reason := cuda_missing()):
        raise ModelError(f"--backend cuda | {reason} | a CUDA GPU | use --backend cpu, or see rrtn doctor")
    return ort_backend_from_bundle(bundle, _variant_for(bundle, name), device=name, threads=threads)


def _variant_for(bundle: Bundle, device: str) -> Variant:
    for name in _PREFERRED[device]:
        if variant := bundle.variant(name):
            return variant
    raise ModelError(f"{bundle.path} | no ONNX variant | expected one of {_PREFERRED[device]} | export again")
