"""A model's inputs and outputs in the memory of a device, and the queue of batches that the device works off.

The memory is ONNX Runtime's (OrtValue), also for TensorRT. A device has two streams. Clips are copied to it
on the one, straight from the memory that decoders write to, while it runs the batch before on the other.
A thread that runs a batch queues its work under a lock and waits for it without, so two threads keep two
batches in flight. The tests run all of it on a stand-in for the device whose memory is the host's, and on
a stub of CUDA.

B batch, N samples, C clips.
"""

import base64
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from ..arrays import Float32
from ..errors import ModelError, OutOfMemoryError, UnavailableError
from ..spec import FrontendSpec
from .backend_errors import ort_errors
from .base import Backend
from .cuda_runtime import DeviceCalls, cuda_runtime
from .model_batch import BatchMemory, ClipBatch, HostBatch, Outputs, Spent, widened
from .ort_session import MemoryDevice, session_from_bytes

# The graph: pcm int16 [B, N] -> Cast -> Mul by 2**-15 -> waveform float32 [B, N].
# test_device_memory.py builds the same one with onnx.helper.
_WIDENING: Final = base64.b64decode(
    "CAo6ogEKHAoDcGNtEgR3aWRlIgRDYXN0KgkKAnRvGAGgAQIKHAoEd2lkZQoFc2NhbGUSCHdhdmVmb3JtIgNNdWwSCHdpZGVu"
    "aW5nKg8QAUIFc2NhbGVKBAAAADhaIQoDcGNtEhoKGAgFEhQKBxIFYmF0Y2gKCRIHc2FtcGxlc2ImCgh3YXZlZm9ybRIaChgI"
    "ARIUCgcSBWJhdGNoCgkSB3NhbXBsZXNCBAoAEBQ="
)


def buffer_of(shape: Sequence[int], dtype: Any, device: MemoryDevice) -> Any:
    """An OrtValue in the memory of the device."""
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)


def queued() -> Any:
    """RunOptions with which a session on CUDA returns when its work is queued, and not when it is done."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


class Device(NamedTuple):
    """A device with its two streams."""

    calls: DeviceCalls
    memory: MemoryDevice  # "cuda"; "cpu" for the stand-in of the tests
    compute: int  # the stream of the models, and of the copies of their outputs
    copies: int  # the stream of clips that come from the host


def device_of(calls: DeviceCalls, memory: MemoryDevice) -> Device:
    """The device with two streams of its own."""
    calls.enter()
    return Device(calls, memory, calls.stream(), calls.stream())


@cache
def cuda_device() -> Device:
    """The first GPU. All models of the process share its two streams."""
    return device_of(cuda_runtime(), "cuda")


@dataclass(frozen=True)
class DeviceClips:
    """Clips in the memory of a device, as a model's batch: all of a DeviceBatch, or a part of it."""

    device: Device
    value: Any  # the OrtValue that they lie in
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]  # [C, ...]
    address: int

    @property
    def clip_bytes(self) -> int:
        """Size of one clip."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> "DeviceClips":
        first, last, _ = part.indices(len(self))
        shape = (last - first, *self.shape[1:])
        return DeviceClips(self.device, self.value, self.dtype, shape, self.address + first * self.clip_bytes)

    def padded(self, size: int) -> "DeviceClips":
        """A copy of `size` clips; those that are missing are zeros."""
        batch = DeviceBatch(self.device, (size, *self.shape[1:]), self.dtype)
        device, clips = self.device, batch.clips
        device.calls.copy(clips.address, self.address, len(self) * self.clip_bytes, device.copies)
        batch.clear(len(self))
        return clips


class DeviceBatch:
    """A BatchMemory on a device."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> None:
        """Raises OutOfMemoryError."""
        with ort_errors(f"a batch {shape}"):
            value = buffer_of(shape, dtype, device.memory)
        self.clips = DeviceClips(device, value, dtype, shape, value.data_ptr())

    def put(self, first: int, clips: npt.NDArray[Any]) -> None:
        """Copies clips [C, ...] from the host; returns when they may be overwritten there."""
        device, source = self.clips.device, np.ascontiguousarray(clips)
        to = self.clips.address + first * self.clips.clip_bytes
        device.calls.enter()
        device.calls.copy(to, source.ctypes.data, source.nbytes, device.copies)
        device.calls.wait_stream(device.copies)

    def clear(self, first: int) -> None:
        """Fills the places from `first` on with zeros."""
        device, rest = self.clips.device, self.clips[first:]
        device.calls.enter()
        device.calls.clear(rest.address, len(rest) * rest.clip_bytes, device.copies)
        device.calls.wait_stream(device.copies)


class Widening:
    """Converts 16-bit samples to float32 on the device, so only 16 bits a sample cross the bus."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._session = session_from_bytes(
            _WIDENING, "int16 to float32", device.memory, stream=device.compute
        )
        self._queued = queued()

    def into(self, waveforms: Any, address: int) -> None:
        """Queues that waveforms [B, N], an OrtValue, becomes the int16 at `address` / 32768, exactly."""
        binding, shape = self._session.io_binding(), waveforms.shape()
        binding.bind_input("pcm", self._device.memory, 0, np.int16, shape, address)
        binding.bind_ortvalue_output("waveform", waveforms)
        self._session.run_with_iobinding(binding, self._queued)


class DeviceModel(Protocol):
    """A loaded model whose work a DeviceQueue queues. The device is idle when `bound_to` is called."""

    def bound_to(self, x: Any) -> "BoundModel":
        """The model with the input x, an OrtValue, and with memory for the outputs."""


class BoundModel(Protocol):
    """A model with the memory that it reads and writes."""

    @property
    def outputs(self) -> dict[str, Any]:
        """The OrtValues that the outputs will be in, by name."""

    def prepare(self) -> None:
        """Called before a launch unless the launch before was of this memory, too. The device is idle."""

    def launch(self) -> None:
        """Queues one run from the input to the outputs."""


@dataclass
class _Bound:
    """Memory for batches of one shape."""

    shape: tuple[int, ...]
    x: Any
    model: BoundModel
    idle: "list[_Landing]"  # where no outputs are under way
    samples: Any = None  # where 16-bit samples of the host are copied to


class _Landing:
    """Where on the host the outputs of one batch arrive."""

    def __init__(self, device: Device, outputs: Mapping[str, Any]) -> None:
        self._calls, self._compute = device.calls, device.compute
        self.arrays = {name: device.calls.host_array(tuple(one.shape())) for name, one in outputs.items()}
        self._there = device.calls.event()
        weakref.finalize(self, device.calls.free, self._there).atexit = False  # CUDA ends by itself

    def call(self, outputs: Mapping[str, Any]) -> None:
        """Queues the copies behind what the stream has."""
        for name, array in self.arrays.items():
            self._calls.copy(array.ctypes.data, outputs[name].data_ptr(), array.nbytes, self._compute)
        self._calls.record(self._there, self._compute)

    def outputs(self) -> Outputs:
        """Waits for the copies, and gives copies of them."""
        self._calls.wait(self._there)
        found = {name: array.copy() for name, array in self.arrays.items()}
        return Outputs(found["scores"], found.get("embedding"))


class DeviceQueue:
    """Runs the batches of a model, one behind the other, for any number of threads."""

    def __init__(self, device: Device, model: DeviceModel, *, widening: Widening | None) -> None:
        """`widening` is for models of waveforms, whose batches may be of 16-bit samples."""
        self._device, self._model, self._widening = device, model, widening
        self._bound: _Bound | None = None  # that of the last batch
        self._kept: dict[tuple[int, ...], _Bound] = {}
        self._lock = threading.Lock()

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """What the model gives for a batch of the host or of the device.

        With `spent` each step is waited for, and its time is added.
        """
        calls = self._device.calls
        with self._lock, self._forgetting():
            calls.enter()
            bound = self._bound_to(batch.shape)
            begin = time.perf_counter()
            self._fill(bound, batch)
            there = self._reached(spent)
            bound.model.launch()
            ran = self._reached(spent)
            landing = bound.idle.pop() if bound.idle else _Landing(self._device, bound.model.outputs)
            landing.call(bound.model.outputs)
        outputs = landing.outputs()
        bound.idle.append(landing)
        if spent:
            spent.add(begin, there, ran, time.perf_counter())
        return outputs

    def new_batch(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> BatchMemory:
        """Room for a batch on the device; on the host where the device has none, as others fill it."""
        try:
            return DeviceBatch(self._device, shape, dtype)
        except OutOfMemoryError:
            return HostBatch(shape, dtype)

    def pin(self, array: npt.NDArray[Any]) -> Callable[[], None]:
        """Makes copies of the array to the device faster; -> a function that undoes it."""
        self._device.calls.enter()
        return self._device.calls.pin(array)

    def _reached(self, spent: Spent | None) -> float:
        """The time, after a step; with `spent` that of its end on the device."""
        if spent:
            self._device.calls.wait_stream(self._device.compute)
        return time.perf_counter()

    def _bound_to(self, shape: tuple[int, ...]) -> _Bound:
        if self._bound is None or self._bound.shape != shape:
            self._device.calls.wait_stream(self._device.compute)  # for batches that were bound otherwise
            self._bound = None
            bound = self._kept.get(shape) or self._new_for(shape)
            bound.model.prepare()
            self._bound = bound
        return self._bound

    def _new_for(self, shape: tuple[int, ...]) -> _Bound:
        """New memory. That for a power of two of clips is kept, as servers have these, and the last other."""
        self._kept = {kept: bound for kept, bound in self._kept.items() if _is_power_of_two(kept[0])}
        x = buffer_of(shape, np.float32, self._device.memory)
        self._kept[shape] = bound = _Bound(shape, x, self._model.bound_to(x), [])
        return bound

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Gives all memory back where a batch fails, as it may have been short."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(ModelError):
                self._device.calls.wait_stream(self._device.compute)  # a part of the batch may be queued
            self._bound, self._kept = None, {}
            raise

    def _fill(self, bound: _Bound, batch: ClipBatch) -> None:
        """Queues that the input holds the batch."""
        x = bound.x
        if isinstance(batch, DeviceClips) and batch.dtype == np.int16:
            assert self._widening
            self._widening.into(x, batch.address)
        elif isinstance(batch, DeviceClips):
            self._copy(x, batch.address, len(batch) * batch.clip_bytes)
        elif batch.dtype == np.int16 and self._widening:
            if bound.samples is None:
                bound.samples = buffer_of(batch.shape, np.int16, self._device.memory)
            samples = np.ascontiguousarray(batch)
            self._copy(bound.samples, samples.ctypes.data, samples.nbytes)
            self._widening.into(x, bound.samples.data_ptr())
        else:
            waveforms = np.ascontiguousarray(widened(batch))
            self._copy(x, waveforms.ctypes.data, waveforms.nbytes)

    def _copy(self, to: Any, source: int, size: int) -> None:
        self._device.calls.copy(to.data_ptr(), source, size, self._device.compute)


def _is_power_of_two(count: int) -> bool:
    return count & (count - 1) == 0


def check_runs(backend: Backend, spec: FrontendSpec) -> None:
    """Runs a clip of silence on a backend that was loaded.

    A device may load a model that it cannot run: its kernels are missing, or cuDNN is of mixed versions.
    Raises UnavailableError, or OutOfMemoryError where memory is short.
    """
    if backend.variant.input == "waveform":
        clip: ClipBatch = np.zeros((1, spec.clip_samples), np.int16)
    else:
        clip = np.zeros((1, 1, spec.frames, spec.n_mels), np.float32)
    try:
        backend.run(clip)
    except (UnavailableError, OutOfMemoryError):
        raise
    except ModelError as error:
        wanted, fix = "a GPU that runs this model", "run: rrtn doctor"
        raise UnavailableError(error.subject, error.came, wanted=wanted, fix=fix) from error


class QueuedBackend:
    """What backends have in common whose batches stand in the queue of a device."""

    queue: DeviceQueue

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """A batch -> scores [B, K], embedding [B, D] or None."""
        raise NotImplementedError

    def scores(self, batch: ClipBatch) -> Float32:
        """A batch as `run` takes it -> scores [B, K]."""
        return self.run(batch).scores

    @property
    def skips_silence(self) -> bool:
        """Whole clips are computed."""
        return False

    def new_batch(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> BatchMemory:
        """Room for a batch [B, ...] where the model reads it."""
        return self.queue.new_batch(shape, dtype)

    def pin(self, array: npt.NDArray[Any]) -> Callable[[], None]:
        """Makes copies of the array to the device faster; -> a function that undoes it."""
        return self.queue.pin(array)
