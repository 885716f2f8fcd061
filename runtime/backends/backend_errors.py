"""Errors of ONNX Runtime, CUDA and TensorRT as ours: whether memory was short, or the model is
wrong for this machine.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from ..errors import ModelError, OutOfMemoryError, RrtnError

# In whose words memory is short. ONNX Runtime has no code of its own for it (onnxruntime#16307).
_OUT_OF_MEMORY: Final = (
    "failed to allocate memory",  # its arena, on every device: bfc_arena.cc; onnxruntime#16307, #20038
    "is smaller than requested bytes",  # its arena below a limit: bfc_arena.cc
    "out of memory",  # CUDA failure 2: cuda_call.cc; TensorRT's defaultAllocator.cpp, TensorRT#4258
    "outofmemory",  # TensorRT's error code: virtualMemoryBuffer.cpp, TensorRT#4254
    "alloc_failed",  # CUBLAS_STATUS_, CUDNN_STATUS_ and CUFFT_: where a library makes its workspace
    "allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_, cuDNN 9
    "bad_alloc",  # C++
)


def is_out_of_memory(reason: str) -> bool:
    """Whether an error of ONNX Runtime, CUDA or TensorRT says that memory was short."""
    return any(words in reason.lower() for words in _OUT_OF_MEMORY)


@contextlib.contextmanager
def ort_errors(subject: str) -> Iterator[None]:
    """ONNX Runtime's own exceptions, one class a status code, and what its C++ throws, as ours on
    one line.
    """
    try:
        yield
    except RrtnError:
        raise
    except Exception as error:
        if not isinstance(error, RuntimeError | MemoryError) and not type(error).__module__.startswith(
            "onnxruntime"
        ):
            raise
        reason = " ".join(str(error).split())[:400]
        if isinstance(error, MemoryError) or is_out_of_memory(str(error)):
            raise OutOfMemoryError(
                f"{subject} | {reason} | memory for this batch | use a smaller --batch-size"
            ) from error
        raise ModelError(f"{subject} | {reason} | a model that runs here | rrtn doctor") from error
