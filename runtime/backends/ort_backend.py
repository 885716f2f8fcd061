"""ONNX variants, run by ONNX Runtime on the CPU or on CUDA.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import Float32
from ..bundle import Bundle, Variant
from ..errors import ModelError
from .backend_errors import ort_errors
from .device_memory import Buffers, Widening, buffer_of
from .model_batch import ModelBatch, Outputs, Spent, check_fit
from .ort_session import MemoryDevice, session_from_bytes


@dataclass(frozen=True)
class OrtBackend:
    """A loaded ONNX variant.

    On the CPU several threads can run batches at the same time, each with its own buffers. On CUDA
    one batch runs at a time.
    """

    variant: Variant
    device: str  # the name of the backend
    memory: MemoryDevice
    session: Any
    widening: Widening | None = None
    # The buffers of the last shape, and the session's binding to them.
    _bound: threading.local = field(default_factory=threading.local, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def run(self, batch: ModelBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M] or waveform [B, N] -> scores [B, K], embedding [B, D] or None.

        Adds the time of each step to `spent`. Raises OutOfMemoryError if the batch is too large,
        and ModelError for anything else that ONNX Runtime refuses.
        """
        turn = contextlib.nullcontext() if self.memory == "cpu" else self._lock
        with turn, ort_errors(f"{self.variant.file} on {self.device}, batch {batch.shape}"):
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

    def scores(self, batch: ModelBatch) -> Float32:
        """The same batch -> scores [B, K] only."""
        return self.run(batch).scores

    def _buffers(self, shape: tuple[int, ...]) -> tuple[Buffers, Any]:
        bound: tuple[Buffers, Any] | None = getattr(self._bound, "buffers", None)
        if bound is None or bound[0].shape != shape:
            self._bound.buffers = None  # frees the old buffers before the new ones are made
            self._bound.buffers = bound = self._buffers_of(shape)
        return bound

    def _buffers_of(self, shape: tuple[int, ...]) -> tuple[Buffers, Any]:
        outputs = {
            output.name: buffer_of((shape[0], *_sizes(output)), np.float32, self.memory)
            for output in self._outputs
        }
        buffers = Buffers(shape, buffer_of(shape, np.float32, self.memory), outputs, self.widening)
        binding = self.session.io_binding()
        binding.bind_ortvalue_input(self.session.get_inputs()[0].name, buffers.x)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return buffers, binding

    @property
    def embedding_size(self) -> int | None:
        """D; None if the graph gives no embeddings."""
        return next((_sizes(output)[0] for output in self._outputs if output.name == "embedding"), None)

    @property
    def _outputs(self) -> list[Any]:
        return [output for output in self.session.get_outputs() if output.name in Outputs._fields]


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
    half = variant.precision == "fp16"
    session = session_from_bytes(bundle.read(variant), variant.file, device, threads=threads, half=half)
    check_fit(bundle, variant, _shapes(session.get_inputs()), _shapes(session.get_outputs()))
    widening = Widening(device) if device == "cuda" and variant.input == "waveform" else None
    return OrtBackend(variant, device, device, session, widening)


def _shapes(tensors: Sequence[Any]) -> dict[str, list[Any]]:
    """Name -> shape. What is not in float32 has none."""
    return {tensor.name: tensor.shape if tensor.type == "tensor(float)" else [] for tensor in tensors}


def _sizes(output: Any) -> list[int]:
    """The sizes of an output after its batch dimension; `check_fit` has seen that they are known."""
    return list(output.shape[1:])
