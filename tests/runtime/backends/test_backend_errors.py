"""Which words of the runtimes mean that memory was short, and which exceptions become ours."""

import pytest
from rrtn.runtime.backends.backend_errors import is_out_of_memory, ort_errors
from rrtn.runtime.errors import ModelError, OutOfMemoryError, UnavailableError


@pytest.mark.parametrize(
    "words",
    [
        "BFCArena::AllocateRawInternal(size_t, bool, Stream*) "
        "Failed to allocate memory for requested buffer of size 939524096",
        "Available memory of 12 is smaller than requested bytes of 4096",
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&cublas_handle_);",
        "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "[virtualMemoryBuffer.cpp::resizePhysical::154] "
        "Error Code 2: OutOfMemory (Requested size was 16581132288 bytes.)",
        "std::bad_alloc",
    ],
)
def test_words_for_memory_that_is_short(words: str) -> None:
    assert is_out_of_memory(words)
    with pytest.raises(OutOfMemoryError), ort_errors("model"):
        raise RuntimeError(words)


def test_other_words_are_a_refused_model_and_other_errors_are_bugs() -> None:
    with (
        pytest.raises(ModelError, match=r"^model \| CUDA failure 700: an illegal memory access \|") as caught,
        ort_errors("model"),
    ):
        raise RuntimeError("CUDA failure 700:\n an illegal memory access")
    assert not isinstance(caught.value, OutOfMemoryError)
    with pytest.raises(OutOfMemoryError), ort_errors("model"):
        raise MemoryError
    with pytest.raises(KeyError), ort_errors("model"):
        raise KeyError("a bug")
    with pytest.raises(UnavailableError, match=r"^as it was$"), ort_errors("model"):
        raise UnavailableError("as it was")
