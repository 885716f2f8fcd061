"""The calls of CUDA's runtime, by a stand-in for its library, and their errors as ours."""

from typing import Any

import numpy as np
import pytest
from rrtn.runtime.backends.cuda_runtime import CudaRuntime
from rrtn.runtime.errors import OutOfMemoryError, UnavailableError

OUT_OF_MEMORY, ILLEGAL_ADDRESS, NOT_SUPPORTED = 2, 700, 801
TEXTS = {OUT_OF_MEMORY: b"out of memory", ILLEGAL_ADDRESS: b"an illegal memory access was encountered"}


class Libcudart:
    """Notes its calls, and returns a code for those that are to fail."""

    def __init__(self, **codes: int) -> None:
        self.codes, self.calls, self.last = codes, list[str](), 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name == "cudaGetErrorString":
                return TEXTS[arguments[0]]
            if name == "cudaGetLastError":
                found, self.last = self.last, 0
                return found
            self.last = self.codes.get(name, self.last)
            return self.codes.get(name, 0)

        return call


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (OUT_OF_MEMORY, OutOfMemoryError, r"CUDA failure 2: out of memory"),
        (ILLEGAL_ADDRESS, UnavailableError, r"CUDA failure 700: an illegal memory access was encountered"),
    ],
)
def test_what_cuda_refuses_is_one_line(code: int, kind: type[Exception], text: str) -> None:
    cuda = CudaRuntime(Libcudart(cudaEventSynchronize=code))
    with pytest.raises(kind, match=rf"^cudaEventSynchronize \| {text} \| expected a working GPU") as caught:
        cuda.wait(1)
    assert isinstance(caught.value, OutOfMemoryError) == (code == OUT_OF_MEMORY)


def test_memory_that_cannot_be_pinned_is_no_matter() -> None:
    """Copies from it are slower. ONNX Runtime must not find the error after a call of its own."""
    library = Libcudart(cudaHostRegister=NOT_SUPPORTED)
    CudaRuntime(library).pin(np.zeros(4))()
    assert library.last == 0
    assert "cudaHostUnregister" not in library.calls


def test_memory_that_was_pinned_is_given_back() -> None:
    library = Libcudart()
    unpin = CudaRuntime(library).pin(np.zeros(4))
    assert library.calls[-1] == "cudaHostRegister"
    unpin()
    assert library.calls[-1] == "cudaHostUnregister"
