"""A model's inputs and outputs in the memory of a device, made once for each batch size.

The memory is ONNX Runtime's (OrtValue), also for TensorRT. The CPU takes the same path as CUDA, so
the tests on a CPU cover all of it except the device. The CUDA half has not run on a GPU yet.

B batch, N samples.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime

from ..arrays import Int16
from .model_batch import ModelBatch, Outputs, widened
from .ort_session import MemoryDevice, session_from_bytes

# The graph: pcm int16 [B, N] -> Cast -> Mul by 2**-15 -> waveform float32 [B, N].
# test_device_memory.py builds the same one with onnx.helper.
_WIDENING: Final = base64.b64decode(
    "CAo6ogEKHAoDcGNtEgR3aWRlIgRDYXN0KgkKAnRvGAGgAQIKHAoEd2lkZQoFc2NhbGUSCHdhdmVmb3JtIgNNdWwSCHdpZGVu"
    "aW5nKg8QAUIFc2NhbGVKBAAAADhaIQoDcGNtEhoKGAgFEhQKBxIFYmF0Y2gKCRIHc2FtcGxlc2ImCgh3YXZlZm9ybRIaChgI"
    "ARIUCgcSBWJhdGNoCgkSB3NhbXBsZXNCBAoAEBQ="
)


def buffer_of(shape: Sequence[int], dtype: Any, device: MemoryDevice) -> Any:
    """An OrtValue in the memory of the device.

    Its `numpy()` and `update_inplace()` copy, and return when the copy is complete. On CUDA both
    are cudaMemcpy on the default stream, and cudaStreamSynchronize follows the one to the device
    (ProviderInfo_CUDA in cuda_provider_factory.cc).
    """
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)


class Widening:
    """Converts 16-bit samples to float32 on the device, so only 16 bits a sample cross the bus."""

    def __init__(self, device: MemoryDevice) -> None:
        self._device: MemoryDevice = device
        self._session = session_from_bytes(_WIDENING, "int16 to float32", device)
        self._binding = self._session.io_binding()
        self._samples: Any = None

    def into(self, waveforms: Any, batch: Int16) -> None:
        """Fills the float32 buffer `waveforms` [B, N] with batch [B, N] / 32768, exactly."""
        if self._samples is None or tuple(self._samples.shape()) != batch.shape:
            self._samples = None  # frees the old buffer before the new one is made
            self._samples = buffer_of(batch.shape, np.int16, self._device)
            self._binding.bind_ortvalue_input("pcm", self._samples)
        self._samples.update_inplace(batch)
        self._binding.bind_ortvalue_output("waveform", waveforms)
        self._session.run_with_iobinding(self._binding)  # returns when the device is done


@dataclass
class Buffers:
    """A model's input and outputs on a device, for batches of one shape."""

    shape: tuple[int, ...]
    x: Any  # OrtValue
    outputs: dict[str, Any]  # name -> OrtValue
    widening: Widening | None  # None: NumPy widens 16-bit samples

    def fill(self, batch: ModelBatch) -> None:
        """Copies the batch to the device; returns when the copy is complete."""
        if batch.dtype == np.int16 and self.widening:
            self.widening.into(self.x, np.asarray(batch, dtype=np.int16))
        else:
            self.x.update_inplace(widened(batch))

    def fetch(self) -> Outputs:
        """Copies of the outputs on the host."""
        # On the CPU numpy() is a view of the buffer, which the next batch overwrites.
        found = {name: np.array(value.numpy()) for name, value in self.outputs.items()}
        return Outputs(found["scores"], found.get("embedding"))
