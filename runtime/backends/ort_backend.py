"""ONNX variants, run by ONNX Runtime on the CPU or on CUDA.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Float32
from ..bundle import Bundle, Variant
from ..errors import ModelError
from .backend_errors import ort_errors
from .cuda_libraries import load_cuda
from .device_memory import Buffers, Device, DeviceQueue, Widening, buffer_of, cuda_device, queued
from .model_batch import BatchMemory, ClipBatch, HostBatch, Outputs, Spent, check_fit
from .ort_session import MemoryDevice, session_from_bytes


@dataclass(frozen=True)
class OrtBackend:
    """A loaded ONNX variant.

    On the CPU several threads can run batches at the same time, each with its own buffers. On CUDA
    their batches stand in a queue.
    """

    variant: Variant
    device: str  # the name of the backend
    session: Any
    queue: DeviceQueue | None = None  # None: the CPU
    # The buffers of the last shape, and the session's binding to them.
    _bound: threading.local = field(default_factory=threading.local, repr=False)

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M] or waveform [B, N] -> scores [B, K], embedding [B, D] or None.

        Adds the time of each step to `spent`. Raises OutOfMemoryError if the batch is too large,
        and ModelError for anything else that ONNX Runtime refuses.
        """
        with ort_errors(f"{self.variant.file} on {self.device}, batch {batch.shape}"):
            if self.queue:
                return self.queue.run(batch, spent)
            buffers, binding = self._buffers(batch.shape)
            begin = time.perf_counter()
            buffers.fill(batch)
            there = time.perf_counter()
            self.session.run_with_iobinding(binding)
            ran = time.perf_counter()
            outputs = buffers.fetch()
            if spent:
                spent.add(begin, there, ran, time.perf_counter())
            return outputs

    def scores(self, batch: ClipBatch) -> Float32:
        """The same batch -> scores [B, K] only."""
        return self.run(batch).scores

    def new_batch(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> BatchMemory:
        """Room for a batch [B, ...] where the model reads it."""
        return self.queue.new_batch(shape, dtype) if self.queue else HostBatch(shape, dtype)

    def pin(self, array: npt.NDArray[Any]) -> Callable[[], None]:
        """Makes copies of the array to the device faster; -> a function that undoes it."""
        return self.queue.pin(array) if self.queue else lambda: None

    def _buffers(self, shape: tuple[int, ...]) -> tuple[Buffers, Any]:
        bound: tuple[Buffers, Any] | None = getattr(self._bound, "buffers", None)
        if bound is None or bound[0].shape != shape:
            self._bound.buffers = None  # frees the old buffers before the new ones are made
            self._bound.buffers = bound = self._buffers_of(shape)
        return bound

    def _buffers_of(self, shape: tuple[int, ...]) -> tuple[Buffers, Any]:
        x = buffer_of(shape, np.float32, "cpu")
        binding, outputs = _bound(self.session, x, "cpu")
        return Buffers(shape, x, outputs), binding

    @property
    def embedding_size(self) -> int | None:
        """D; None if the graph gives no embeddings."""
        found = (_sizes(output)[0] for output in _outputs(self.session) if output.name == "embedding")
        return next(found, None)


class _QueuedSession:
    """A session as a DeviceModel."""

    def __init__(self, session: Any, memory: MemoryDevice) -> None:
        self._session, self._memory, self._queued = session, memory, queued()
        self._binding: Any = None

    def bind(self, x: Any) -> dict[str, Any]:
        self._binding, outputs = _bound(self._session, x, self._memory)
        return outputs

    def unbind(self) -> None:
        self._binding = None

    def launch(self) -> None:
        self._session.run_with_iobinding(self._binding, self._queued)


def _bound(session: Any, x: Any, memory: MemoryDevice) -> tuple[Any, dict[str, Any]]:
    """A binding of the session to the input x and to new outputs, and these."""
    outputs = {
        output.name: buffer_of((x.shape()[0], *_sizes(output)), np.float32, memory)
        for output in _outputs(session)
    }
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, x)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding, outputs


def ort_backend_from_bundle(
    bundle: Bundle, variant: Variant, *, device: MemoryDevice, threads: int | None = None
) -> OrtBackend:
    """Loads an ONNX variant from the same bytes that were hashed.

    Raises ModelError if ONNX Runtime refuses the model, and UnavailableError without CUDA.
    """
    if variant.kind != "onnx":  # Bundle.read checks only ONNX
        raise ModelError(
            str(bundle.path / variant.file),
            f"kind {variant.kind}",
            wanted="ONNX, the only format of ONNX Runtime",
            fix="run: rrtn export",
        )
    model = bundle.read(variant)
    if device == "cuda":
        load_cuda()
        return ort_backend_on_device(bundle, variant, model, cuda_device())
    session = session_from_bytes(model, variant.file, device, threads=threads)
    check_fit(bundle, variant, _shapes(session.get_inputs()), _shapes(session.get_outputs()))
    return OrtBackend(variant, device, session)


def ort_backend_on_device(bundle: Bundle, variant: Variant, model: bytes, device: Device) -> OrtBackend:
    """Loads an ONNX variant, of which `model` is the content, onto a device."""
    half = variant.precision == "fp16"
    session = session_from_bytes(model, variant.file, device.memory, half=half, stream=device.compute)
    check_fit(bundle, variant, _shapes(session.get_inputs()), _shapes(session.get_outputs()))
    widening = Widening(device) if variant.input == "waveform" else None
    queue = DeviceQueue(device, _QueuedSession(session, device.memory), widening=widening)
    return OrtBackend(variant, "cuda", session, queue)


def _outputs(session: Any) -> list[Any]:
    return [output for output in session.get_outputs() if output.name in Outputs._fields]


def _shapes(tensors: Sequence[Any]) -> dict[str, list[Any]]:
    """Name -> shape. What is not in float32 has none."""
    return {tensor.name: tensor.shape if tensor.type == "tensor(float)" else [] for tensor in tensors}


def _sizes(output: Any) -> list[int]:
    """The sizes of an output after its batch dimension; `check_fit` has seen that they are known."""
    return list(output.shape[1:])
