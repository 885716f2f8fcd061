"""ONNX Runtime sessions, on the CPU or on CUDA.

B batch, K labels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from .bundle import Bundle, Variant
from .cpus import usable_cpus
from .errors import ModelError
from .frontend import Float32

Device = Literal["cpu", "cuda"]
_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 would move fp32 scores by more than the parity limit; a fixed batch makes the exhaustive search a single one.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}


@dataclass(frozen=True)
class OrtBackend:
    """A loaded variant. `scores` maps a batch of the variant's input to [B, K]."""

    variant: Variant
    device: Device
    session: Any

    def scores(self, batch: Float32) -> Float32:
        """log_mel [B, 1, T, M] or waveform [B, N] -> scores [B, K]."""
        return np.asarray(self.session.run(["scores"], {self.session.get_inputs()[0].name: batch})[0])


def ort_backend_from_bundle(bundle: Bundle, variant: Variant, *, device: Device, threads: int | None = None) -> OrtBackend:
    """Loads a variant from the very bytes that were hashed. Raises ModelError where the device does not take it."""
    if variant.kind != "onnx":  # Bundle.read has not looked into it
        raise ModelError(f"{bundle.path / variant.file} | {variant.kind} | ONNX Runtime takes ONNX only | export again")
    if device == "cuda":
        _load_cuda_libraries()
    try:
        session = onnxruntime.InferenceSession(
            bundle.read(variant), sess_options=_options(device, threads), providers=_providers(device)
        )
    except Exception as error:  # ORT raises its own tree, one class a status code
        if type(error).__module__.startswith("onnxruntime"):
            reason = str(error).splitlines()[0]
            raise ModelError(f"{variant.file} on {device} | {reason} | a model that runs here | rrtn doctor") from error
        raise
    if session.get_providers()[0] != _PROVIDERS[device]:
        raise ModelError(f"backend cuda | ONNX Runtime fell back to {session.get_providers()[0]} | CUDA | rrtn doctor")
    return OrtBackend(variant=variant, device=device, session=session)


def cuda_missing() -> str:
    """Why ONNX Runtime cannot use CUDA here; "" where it should."""
    if _PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA provider; pip install onnxruntime-gpu"
    return "" if Path("/proc/driver/nvidia/version").exists() else "no NVIDIA driver"


def _providers(device: Device) -> list[Any]:
    return [(_PROVIDERS["cuda"], _CUDA_OPTIONS)] if device == "cuda" else [_PROVIDERS["cpu"]]


def _options(device: Device, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Bytes can be ONNX to the check in Bundle.read and ONNX Runtime's own format to it, which it prefers.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Threads that wait by spinning would take the cores from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _load_cuda_libraries() -> None:
    """CUDA and cuDNN from the nvidia-* wheels, where no system-wide ones are installed."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
