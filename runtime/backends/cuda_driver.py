"""The NVIDIA driver, asked by its own library: no CUDA toolkit is needed for that."""

import ctypes
from typing import Any, Final

from ..errors import ModelError, OutOfMemoryError
from .backend_errors import is_out_of_memory

_LIBRARY: Final = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def gpu_names() -> list[str] | None:
    """Of the GPUs that the driver can use; None without a driver."""
    if (cuda := _driver()) is None:
        return None
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for ordinal in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), ordinal)
        cuda.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return names


def compute_capability() -> int | None:
    """Of the first GPU, times ten; None without one."""
    if (cuda := _driver()) is None:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else 10 * major.value + minor.value


class CudaStream:
    """A stream of the first GPU, by the driver's own library.

    It is a blocking one: the copies of OrtValue, on the default stream, come before what is put
    here later and after what was put here before. The default stream itself would cost TensorRT a
    cudaDeviceSynchronize each time (its docstring of execute_async_v3), and cannot be captured into
    a CUDA graph. Not yet run on a GPU.
    """

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL(_LIBRARY)
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call(
            "cuDevicePrimaryCtxRetain", ctypes.byref(context), device
        )  # the one that ONNX Runtime and TensorRT use
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self._stream, self.handle = stream, stream.value or 0

    def synchronise(self) -> None:
        """Waits for the GPU."""
        self._call("cuStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._cuda, name)(*arguments):
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            kind = OutOfMemoryError if is_out_of_memory(reason) else ModelError
            raise kind(f"{name} | CUDA error {code}: {reason} | a GPU that works | rrtn doctor")


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
