"""Turns errors of ONNX Runtime, CUDA and TensorRT into ours.

Either memory was short, or the model cannot run here.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from ..errors import ModelError, OutOfMemoryError, RrtnError, UnavailableError

# The words for a lack of memory. ONNX Runtime has no status code for it (onnxruntime#16307).
_OUT_OF_MEMORY: Final = (
    "failed to allocate memory",  # its arena, on every device: bfc_arena.cc; onnxruntime#16307, #20038
    "is smaller than requested bytes",  # its arena below a limit: bfc_arena.cc
    "out of memory",  # CUDA failure 2: cuda_call.cc; TensorRT's defaultAllocator.cpp, TensorRT#4258
    "outofmemory",  # TensorRT's error code: virtualMemoryBuffer.cpp, TensorRT#4254
    "alloc_failed",  # CUBLAS_STATUS_, CUDNN_STATUS_ and CUFFT_: a library allocates its workspace
    "allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_, cuDNN 9
    "bad_alloc",  # C++
)
# What CUDA and its libraries said; before and behind it ONNX Runtime names its own source and machine.
_CUDA_FAILURE: Final = re.compile(
    r"(?:CUDA|CUDNN|CUBLAS|CUFFT) failure \d+: [^;]*[^; ]"  # cuda_call.cc
    r"|CUDA error \w+:[^;]*[^; ]"  # cuda_common.h, of a kernel that was not launched
    r"|Failed to initialize CUDNN Frontend.*?(?= with the cudnn frontend json)"  # conv.cc
)
_NO_MEMORY: Final = re.compile(r"Failed to allocate memory for requested buffer of size \d+")  # bfc_arena.cc
_LONGEST_REASON: Final = 400  # characters


def is_out_of_memory(reason: str) -> bool:
    """True if an error of ONNX Runtime, CUDA or TensorRT says that memory was short."""
    return any(words in reason.lower() for words in _OUT_OF_MEMORY)


@contextlib.contextmanager
def ort_errors(subject: str) -> Iterator[None]:
    """Raises the errors of ONNX Runtime as ours, on one line.

    ONNX Runtime has one exception class for each status code; exceptions of its C++ code arrive as
    RuntimeError. What CUDA or a library of it refuses is an UnavailableError. Anything else is a bug and
    passes through unchanged.
    """
    try:
        yield
    except RrtnError:
        raise
    except Exception as error:
        if not _is_of_onnx_runtime(error):
            raise
        text = " ".join(str(error).split())
        failure = _CUDA_FAILURE.search(text)
        said = failure or _NO_MEMORY.search(text)
        reason = said[0] if said else text[:_LONGEST_REASON]
        if isinstance(error, MemoryError) or is_out_of_memory(text):
            raise OutOfMemoryError(
                subject, reason, wanted="enough memory for this batch", fix="use a smaller --batch-size"
            ) from error
        kind, wanted = (
            (UnavailableError, "a working GPU") if failure else (ModelError, "a model that runs here")
        )
        raise kind(subject, reason, wanted=wanted, fix="run: rrtn doctor") from error


def _is_of_onnx_runtime(error: Exception) -> bool:
    module = type(error).__module__
    return isinstance(error, RuntimeError | MemoryError) or module.startswith("onnxruntime")
