"""Sessions of ONNX Runtime on the CPU or on CUDA, with the options that rrtn needs."""

from typing import Any, Final, Literal

import onnxruntime

from ..errors import UnavailableError
from ..system.cpus import usable_cpus
from .backend_errors import ort_errors
from .cuda_libraries import CUDA_PROVIDER, load_cuda

MemoryDevice = Literal["cpu", "cuda"]
_PROVIDERS: Final[dict[MemoryDevice, str]] = {"cpu": "CPUExecutionProvider", "cuda": CUDA_PROVIDER}
# TF32 would change fp32 scores by more than the parity limit. The search for the fastest
# convolution runs once for each batch size: one for folders, powers of two for servers.
_CUDA_OPTIONS: Final = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
# Channels last is the layout of the tensor cores for float16. For float32 cuDNN has no fast kernels
# in this layout without TF32, and its frontend may use TF32 in spite of use_tf32=0
# (onnxruntime#21752).
_HALF_OPTIONS: Final = {**_CUDA_OPTIONS, "prefer_nhwc": "1"}


def session_from_bytes(
    model: bytes,
    name: str,
    device: MemoryDevice,
    *,
    threads: int | None = None,
    half: bool = False,
    stream: int = 0,
) -> Any:
    """An InferenceSession that runs the whole model on `device`; errors call the model `name`.

    `half` says that the model computes in float16. `stream` is the CUDA stream of its work. Raises
    ModelError; without CUDA UnavailableError.
    """
    if device == "cuda":
        load_cuda()
    with ort_errors(f"{name} on {device}"):
        session = onnxruntime.InferenceSession(
            model,
            sess_options=_options(device, threads),
            providers=_providers(device, half=half, stream=stream),
            enable_fallback=0,  # or it would print to stdout, try the CPU, and lose the reason
        )
    if (provider := session.get_providers()[0]) != _PROVIDERS[device]:
        raise UnavailableError(
            f"--backend {device}",
            f"ONNX Runtime chose {provider} instead",
            wanted=_PROVIDERS[device],
            fix="run: rrtn doctor",
        )
    return session


def _providers(device: MemoryDevice, *, half: bool, stream: int) -> list[Any]:
    if device == "cpu":
        return [_PROVIDERS[device]]
    options = _HALF_OPTIONS if half else _CUDA_OPTIONS
    return [(_PROVIDERS[device], {**options, "user_compute_stream": str(stream)})]


def _options(device: MemoryDevice, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, so they need not be printed as well
    # The same bytes can be ONNX for the check in Bundle.read and ONNX Runtime's own format for ONNX
    # Runtime, which would prefer its own.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Threads that spin while they wait would take the cores from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options
