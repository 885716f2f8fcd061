"""CUDA's own calls for what ONNX Runtime's Python has no call for: queues of work, copies that do not wait.

The library is the libcudart that ONNX Runtime's provider uses, so both share one context. The tests
run it on a stub of CUDA whose memory is the host's (tests/cuda_stub).
"""

import ctypes
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import OutOfMemoryError, UnavailableError
from .backend_errors import is_out_of_memory

_ANY_DIRECTION: Final = 4  # cudaMemcpyDefault: the addresses tell
_NON_BLOCKING: Final = 1  # cudaStreamNonBlocking: it does not wait for the default stream
_NO_TIMING: Final = 2  # cudaEventDisableTiming


class DeviceCalls(Protocol):
    """What a queue of batches needs of a device. Addresses, streams and events are numbers."""

    def enter(self) -> None:
        """Makes the device's context the current one of the calling thread."""

    def stream(self) -> int:
        """A new queue of work. Its work is done in order."""

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Queues a copy of `size` bytes between any two addresses, of the host or of the device."""

    def clear(self, to: int, size: int, stream: int) -> None:
        """Queues the writing of zeros on the device."""

    def event(self) -> int:
        """A new mark for a place in a stream."""

    def free(self, event: int) -> None:
        """Gives a mark back. Raises nothing: it is called where objects end."""

    def record(self, event: int, stream: int) -> None:
        """Puts the mark behind all work that the stream has now."""

    def wait(self, event: int) -> None:
        """Returns when the work before the mark is done. Raises what went wrong with it."""

    def wait_stream(self, stream: int) -> None:
        """Returns when all work of the stream is done."""

    def host_array(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """An array that the device copies to without the processor's help."""

    def pin(self, array: npt.NDArray[Any]) -> Callable[[], None]:
        """Lets the device read the array without the processor's help; -> a function that undoes it."""


class CudaRuntime:
    """The first GPU, by the library of CUDA's runtime."""

    def __init__(self, library: Any) -> None:
        self._cuda = library
        self._cuda.cudaGetErrorString.restype = ctypes.c_char_p

    def enter(self) -> None:
        """Makes the GPU's primary context, which ONNX Runtime and TensorRT use, that of this thread."""
        self._call("cudaSetDevice", 0)

    def stream(self) -> int:
        """A stream that does not wait for the default one.

        On the default stream TensorRT would add a cudaDeviceSynchronize to each run (docstring of
        execute_async_v3), and a CUDA graph cannot capture it.
        """
        return self._made("cudaStreamCreateWithFlags", _NON_BLOCKING)

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """cudaMemcpyAsync. Of memory that is not pinned it waits for the host's part of the copy."""
        self._call(
            "cudaMemcpyAsync", _at(to), _at(source), ctypes.c_size_t(size), _ANY_DIRECTION, _at(stream)
        )

    def clear(self, to: int, size: int, stream: int) -> None:
        """cudaMemsetAsync."""
        self._call("cudaMemsetAsync", _at(to), 0, ctypes.c_size_t(size), _at(stream))

    def event(self) -> int:
        """An event without timing."""
        return self._made("cudaEventCreateWithFlags", _NO_TIMING)

    def free(self, event: int) -> None:
        """cudaEventDestroy, which returns at once also where the event is under way."""
        self._cuda.cudaEventDestroy(_at(event))

    def record(self, event: int, stream: int) -> None:
        """cudaEventRecord."""
        self._call("cudaEventRecord", _at(event), _at(stream))

    def wait(self, event: int) -> None:
        """cudaEventSynchronize, without Python's lock."""
        self._call("cudaEventSynchronize", _at(event))

    def wait_stream(self, stream: int) -> None:
        """cudaStreamSynchronize, without Python's lock."""
        self._call("cudaStreamSynchronize", _at(stream))

    def host_array(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Pinned memory; it is given back with the array."""
        size = 4 * int(np.prod(shape))
        pointer = ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), 0)
        memory: Any = (ctypes.c_char * size).from_address(pointer.value or 0)
        weakref.finalize(memory, self._cuda.cudaFreeHost, pointer)
        return np.frombuffer(memory, np.float32).reshape(shape)

    def pin(self, array: npt.NDArray[Any]) -> Callable[[], None]:
        """cudaHostRegister. Where the system refuses, copies are slower and nothing else changes."""
        address = array.ctypes.data
        if self._cuda.cudaHostRegister(_at(address), ctypes.c_size_t(array.nbytes), 0):
            self._cuda.cudaGetLastError()  # or ONNX Runtime would find it after its next call
            return lambda: None
        return lambda: self._cuda.cudaHostUnregister(_at(address))

    def _made(self, name: str, flags: int) -> int:
        handle = ctypes.c_void_p()
        self._call(name, ctypes.byref(handle), flags)
        return handle.value or 0

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._cuda, name)(*arguments):
            self._cuda.cudaGetLastError()
            reason = self._cuda.cudaGetErrorString(code).decode()
            kind = OutOfMemoryError if is_out_of_memory(reason) else UnavailableError
            raise kind(name, f"CUDA failure {code}: {reason}", wanted="a working GPU", fix="run: rrtn doctor")


@cache
def cuda_runtime() -> CudaRuntime:
    """The runtime of this process. `cuda_libraries.load_cuda` has loaded its library."""
    import onnxruntime

    return CudaRuntime(ctypes.CDLL(f"libcudart.so.{onnxruntime.cuda_version.partition('.')[0]}"))


def _at(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)
