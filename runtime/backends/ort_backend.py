"""ONNX variants, run by ONNX Runtime on the CPU or on CUDA.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import Float32
from ..bundle import Bundle, Variant
from ..errors import ModelError
from ..frontend import decibels_behind
from .backend_errors import ort_errors
from .cuda_libraries import load_cuda
from .device_memory import (
    Device,
    DeviceQueue,
    QueuedBackend,
    Widening,
    buffer_of,
    check_runs,
    cuda_device,
    queued,
)
from .model_batch import ClipBatch, HostModel, Outputs, Spent, check_fit, takes_sound_only, widened
from .ort_session import MemoryDevice, session_from_bytes
from .silence import parts_by_sound


@dataclass(frozen=True)
class OrtBackend(HostModel):
    """A loaded ONNX variant on the CPU. Several threads can run batches at once, each in its own buffers."""

    variant: Variant
    device: str  # the name of the backend
    session: Any
    silence: float | None = None  # dB, of a model that takes the frames with sound only
    # The buffers of the last shape, and the session's binding to them.
    _of_thread: threading.local = field(default_factory=threading.local, repr=False)

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M] or waveform [B, N] -> scores [B, K], embedding [B, D] or None.

        Adds the time of each step to `spent`. Raises OutOfMemoryError if the batch is too large,
        and ModelError for anything else that ONNX Runtime refuses.
        """
        with ort_errors(f"{self.variant.file} on {self.device}, batch {batch.shape}"):
            if self.silence is not None:
                return self._run_in_parts(widened(batch), self.silence, spent)
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

    def _run_in_parts(self, log_mel: Float32, silence: float, spent: Spent | None) -> Outputs:
        """Clips of about the same length at once, without the silence behind the longest of them."""
        name, wanted = self.session.get_inputs()[0].name, [one.name for one in _outputs(self.session)]
        parts, outputs = parts_by_sound(log_mel, silence), []
        for part in parts:
            begin = time.perf_counter()
            x = log_mel[part.clips, :, : part.frames]
            there = time.perf_counter()
            found = dict(zip(wanted, self.session.run(wanted, {name: x}), strict=True))
            ran = time.perf_counter()
            outputs.append(Outputs(found["scores"], found.get("embedding")))
            if spent:
                spent.add(begin, there, ran, ran)
        return Outputs.joined(outputs).at(np.argsort(np.concatenate([part.clips for part in parts])))

    def _buffers(self, shape: tuple[int, ...]) -> tuple["_Buffers", Any]:
        bound: tuple[_Buffers, Any] | None = getattr(self._of_thread, "buffers", None)
        if bound is None or bound[0].shape != shape:
            self._of_thread.buffers = None  # frees the old buffers before the new ones are made
            self._of_thread.buffers = bound = self._buffers_of(shape)
        return bound

    def _buffers_of(self, shape: tuple[int, ...]) -> tuple["_Buffers", Any]:
        x = buffer_of(shape, np.float32, "cpu")
        binding, outputs = _binding_to(self.session, x, "cpu")
        return _Buffers(shape, x, outputs), binding

    @property
    def embedding_size(self) -> int | None:
        """D; None if the graph gives no embeddings."""
        return _embedding_size(self.session)

    @property
    def skips_silence(self) -> bool:
        """True if the graph's frames are free."""
        return self.silence is not None


@dataclass
class _Buffers:
    """A model's input and outputs in ONNX Runtime's memory of the CPU, for batches of one shape."""

    shape: tuple[int, ...]
    x: Any  # OrtValue
    outputs: dict[str, Any]  # name -> OrtValue

    def fill(self, batch: ClipBatch) -> None:
        """Copies the batch."""
        self.x.update_inplace(widened(batch))

    def fetch(self) -> Outputs:
        """Copies of the outputs."""
        # numpy() is a view of the buffer, which the next batch overwrites.
        found = {name: np.array(value.numpy()) for name, value in self.outputs.items()}
        return Outputs(found["scores"], found.get("embedding"))


@dataclass(frozen=True)
class CudaBackend(QueuedBackend):
    """A loaded ONNX variant on CUDA. The batches of all threads stand in a queue."""

    variant: Variant
    session: Any
    queue: DeviceQueue
    device: str = "cuda"  # the name of the backend

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """As `OrtBackend.run`."""
        with ort_errors(f"{self.variant.file} on {self.device}, batch {batch.shape}"):
            return self.queue.run(batch, spent)

    @property
    def embedding_size(self) -> int | None:
        """D; None if the graph gives no embeddings."""
        return _embedding_size(self.session)


class _QueuedSession:
    """A session as a DeviceModel."""

    def __init__(self, session: Any, memory: MemoryDevice) -> None:
        self._session, self._memory, self._queued = session, memory, queued()

    def bound_to(self, x: Any) -> "_BoundSession":
        binding, outputs = _binding_to(self._session, x, self._memory)
        return _BoundSession(self._session, binding, outputs, self._queued)


@dataclass(frozen=True)
class _BoundSession:
    """A session as a BoundModel."""

    session: Any
    binding: Any
    outputs: dict[str, Any]
    queued: Any  # RunOptions

    def prepare(self) -> None:
        """The binding has all."""

    def launch(self) -> None:
        self.session.run_with_iobinding(self.binding, self.queued)


def _binding_to(session: Any, x: Any, memory: MemoryDevice) -> tuple[Any, dict[str, Any]]:
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
) -> OrtBackend | CudaBackend:
    """Loads an ONNX variant from the same bytes that were hashed; on CUDA it also runs one clip.

    Raises ModelError if ONNX Runtime refuses the model, and UnavailableError where CUDA does not run it.
    """
    if variant.kind != "onnx":  # Bundle.read checks only ONNX
        raise ModelError(
            str(bundle.path / variant.file),
            f"kind {variant.kind}",
            wanted="ONNX, the only format of ONNX Runtime",
            fix=bundle.export_again(),
        )
    model = bundle.read(variant)
    if device == "cuda":
        load_cuda()
        backend = ort_backend_on_device(bundle, variant, model, cuda_device())
        check_runs(backend, bundle.spec)
        return backend
    session = session_from_bytes(model, variant.file, device, threads=threads)
    inputs = _shapes(session.get_inputs())
    check_fit(bundle, variant, inputs, _shapes(session.get_outputs()))
    silence = decibels_behind(bundle.spec) if takes_sound_only(*inputs.values()) else None
    return OrtBackend(variant, device, session, silence)


def ort_backend_on_device(bundle: Bundle, variant: Variant, model: bytes, device: Device) -> CudaBackend:
    """Loads an ONNX variant, of which `model` is the content, onto a device."""
    half = variant.precision == "fp16"
    session = session_from_bytes(model, variant.file, device.memory, half=half, stream=device.compute)
    check_fit(bundle, variant, _shapes(session.get_inputs()), _shapes(session.get_outputs()))
    widening = Widening(device) if variant.input == "waveform" else None
    queue = DeviceQueue(device, _QueuedSession(session, device.memory), widening=widening)
    return CudaBackend(variant, session, queue)


def _outputs(session: Any) -> list[Any]:
    return [output for output in session.get_outputs() if output.name in Outputs._fields]


def _embedding_size(session: Any) -> int | None:
    found = (_sizes(output)[0] for output in _outputs(session) if output.name == "embedding")
    return next(found, None)


def _shapes(tensors: Sequence[Any]) -> dict[str, list[Any]]:
    """Name -> shape. What is not in float32 has none."""
    return {tensor.name: tensor.shape if tensor.type == "tensor(float)" else [] for tensor in tensors}


def _sizes(output: Any) -> list[int]:
    """The sizes of an output after its batch dimension; `check_fit` has seen that they are known."""
    return list(output.shape[1:])
