"""ONNX Runtime sessions, on the CPU or on CUDA, with the memory of either.

Inputs and outputs lie in buffers on the device that are made once for a batch size. The CPU takes
the same path, so that what the tests run there differs from a GPU's by the device alone. The CUDA
half has not yet run on a GPU.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

import base64
import contextlib
import ctypes
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from ..arrays import Float32, Int16
from ..bundle import Bundle, Variant
from ..cpus import usable_cpus
from ..errors import ModelError, UnavailableError
from .backend_errors import ort_errors

MemoryDevice = Literal["cpu", "cuda"]
ModelBatch = Float32 | Int16  # log_mel [B, 1, T, M] or waveform [B, N]; a waveform may be of 16-bit samples
_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INSTALL_CUDA: Final = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
# TF32 would move fp32 scores by more than the parity limit; a fixed batch makes the exhaustive
# search a single one.
_CUDA_OPTIONS: Final = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
# Channels last is the layout of the tensor cores, for float16. In float32 cuDNN has no fast kernels
# for it without TF32, and its frontend may take TF32 in spite of use_tf32=0 (onnxruntime#21752).
_HALF_OPTIONS: Final = {**_CUDA_OPTIONS, "prefer_nhwc": "1"}
# pcm int16 [B, N] -> Cast -> Mul by 2**-15 -> waveform float32 [B, N]. test_ort_backend.py makes it
# with onnx.helper.
_WIDENING: Final = base64.b64decode(
    "CAo6ogEKHAoDcGNtEgR3aWRlIgRDYXN0KgkKAnRvGAGgAQIKHAoEd2lkZQoFc2NhbGUSCHdhdmVmb3JtIgNNdWwSCHdpZGVuaW5nKg8QAUIFc2"
    "NhbGVKBAAAADhaIQoDcGNtEhoKGAgFEhQKBxIFYmF0Y2gKCRIHc2FtcGxlc2ImCgh3YXZlZm9ybRIaChgIARIUCgcSBWJhdGNoCgkSB3NhbXBs"
    "ZXNCBAoAEBQ="
)


class Outputs(NamedTuple):
    """What a model gives for a batch."""

    scores: Float32  # [B, K]
    embedding: Float32 | None  # [B, D]; None where the graph does not have it

    def first(self, count: int) -> "Outputs":
        """Without what padding gave."""
        return Outputs(self.scores[:count], None if self.embedding is None else self.embedding[:count])

    @classmethod
    def joined(cls, parts: Sequence["Outputs"]) -> "Outputs":
        """Of a batch that was run in parts."""
        embeddings = [part.embedding for part in parts if part.embedding is not None]
        return cls(
            np.concatenate([part.scores for part in parts]),
            np.concatenate(embeddings) if embeddings else None,
        )


class Widening:
    """int16 samples of the host -> float32 in [-1, 1) in a buffer of the device: only int16 crosses
    the bus.
    """

    def __init__(self, device: MemoryDevice) -> None:
        self._device: MemoryDevice = device
        self._session = session_from_bytes(_WIDENING, "int16 to float32", device)
        self._binding = self._session.io_binding()
        self._samples: Any = None

    def into(self, waveforms: Any, batch: Int16) -> None:
        """Fills the float32 buffer `waveforms` [B, N] with batch [B, N] / 32768, exactly."""
        if self._samples is None or tuple(self._samples.shape()) != batch.shape:
            self._samples = None  # frees it before the next is made
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
    widening: Widening | None  # None: int16 is widened by NumPy

    def fill(self, batch: ModelBatch) -> None:
        """Copies the batch to the device; returns when it is there."""
        if batch.dtype == np.int16 and self.widening:
            self.widening.into(self.x, np.asarray(batch, dtype=np.int16))
        else:
            self.x.update_inplace(widened(batch))

    def fetch(self) -> Outputs:
        """Copies of the outputs, on the host."""
        found = {
            name: np.array(value.numpy()) for name, value in self.outputs.items()
        }  # on the CPU numpy() is a view
        return Outputs(found["scores"], found.get("embedding"))


@dataclass
class Spent:
    """Seconds of runs, summed."""

    to_device: float = 0.0
    model: float = 0.0
    from_device: float = 0.0

    def add(self, begin: float, there: float, ran: float, back: float) -> None:
        """The times at which a run began, its input was there, the model had run, and its outputs
        were back.
        """
        self.to_device += there - begin
        self.model += ran - there
        self.from_device += back - ran


@dataclass(frozen=True)
class OrtBackend:
    """A loaded variant.

    On the CPU several threads may run it at once, each with buffers of its own; on CUDA one at a
    time.
    """

    variant: Variant
    device: MemoryDevice
    session: Any
    widening: Widening | None = None
    _bound: threading.local = field(
        default_factory=threading.local, repr=False
    )  # the last shape's buffers, their binding
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def run(self, batch: ModelBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M] or waveform [B, N] -> scores [B, K] and, where the graph has it, the
        embedding [B, D].

        Adds to `spent` what it took. Raises OutOfMemoryError where the batch is too large,
        ModelError for anything else that ONNX Runtime refuses.
        """
        turn = contextlib.nullcontext() if self.device == "cpu" else self._lock
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
        """The same, without the embedding."""
        return self.run(batch).scores

    def _buffers(self, shape: tuple[int, ...]) -> tuple[Buffers, Any]:
        bound: tuple[Buffers, Any] | None = getattr(self._bound, "buffers", None)
        if bound is None or bound[0].shape != shape:
            self._bound.buffers = None  # frees the old ones first
            self._bound.buffers = bound = self._buffers_of(shape)
        return bound

    def _buffers_of(self, shape: tuple[int, ...]) -> tuple[Buffers, Any]:
        outputs = {
            output.name: buffer_of((shape[0], *_sizes(output)), np.float32, self.device)
            for output in self._outputs
        }
        buffers = Buffers(shape, buffer_of(shape, np.float32, self.device), outputs, self.widening)
        binding = self.session.io_binding()
        binding.bind_ortvalue_input(self.session.get_inputs()[0].name, buffers.x)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return buffers, binding

    @property
    def embedding_size(self) -> int | None:
        """D; None where the graph does not give embeddings."""
        return next((_sizes(output)[0] for output in self._outputs if output.name == "embedding"), None)

    @property
    def _outputs(self) -> list[Any]:
        return [output for output in self.session.get_outputs() if output.name in Outputs._fields]


def ort_backend_from_bundle(
    bundle: Bundle, variant: Variant, *, device: MemoryDevice, threads: int | None = None
) -> OrtBackend:
    """Loads a variant from the very bytes that were hashed.

    Raises ModelError where the device does not take it.
    """
    if variant.kind != "onnx":  # Bundle.read has not looked into it
        raise ModelError(
            f"{bundle.path / variant.file} | {variant.kind} | ONNX Runtime takes ONNX only | export again"
        )
    half = variant.precision == "fp16"
    session = session_from_bytes(bundle.read(variant), variant.file, device, threads=threads, half=half)
    widening = Widening(device) if device == "cuda" and variant.input == "waveform" else None
    return OrtBackend(variant=variant, device=device, session=session, widening=widening)


def session_from_bytes(
    model: bytes, name: str, device: MemoryDevice, *, threads: int | None = None, half: bool = False
) -> Any:
    """An InferenceSession that runs all of the model on `device`.

    Raises ModelError, or UnavailableError without CUDA.
    """
    if device == "cuda":
        load_cuda()
    with ort_errors(f"{name} on {device}"):
        session = onnxruntime.InferenceSession(
            model, sess_options=_options(device, threads), providers=_providers(device, half=half)
        )
    if session.get_providers()[0] != _PROVIDERS[device]:
        raise UnavailableError(
            f"backend cuda | ONNX Runtime fell back to {session.get_providers()[0]} | CUDA | rrtn doctor"
        )
    return session


def buffer_of(shape: Sequence[int], dtype: Any, device: MemoryDevice) -> Any:
    """An OrtValue: memory on the device, whose `numpy()` and `update_inplace()` copy, and return when
    that is done.

    (On CUDA both are cudaMemcpy on the default stream, the one to the device followed by
    cudaStreamSynchronize: ProviderInfo_CUDA in cuda_provider_factory.cc.)
    """
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)


def padded(batch: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """A batch with zeros behind it where it has fewer than `size`."""
    missing = size - len(batch)
    return (
        np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing > 0 else batch
    )


def widened(batch: ModelBatch) -> Float32:
    """A batch as float32; int16 samples divided by 32768."""
    if batch.dtype == np.int16:
        return batch.astype(np.float32) * np.float32(2**-15)
    assert batch.dtype == np.float32, batch.dtype
    return np.asarray(batch, dtype=np.float32)


def cuda_missing() -> str:
    """Why ONNX Runtime cannot use CUDA here; "" where it should. Loads nothing."""
    if _PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA provider; pip install onnxruntime-gpu"
    return "" if Path("/proc/driver/nvidia/version").exists() else "no NVIDIA driver"


def load_cuda() -> None:
    """Loads CUDA and cuDNN for ONNX Runtime. Raises UnavailableError with the library that is missing."""
    if reason := cuda_missing() or missing_library():
        raise UnavailableError(
            f"--backend cuda | {reason} | a CUDA GPU | use --backend cpu, or see rrtn doctor"
        )


def missing_library() -> str:
    """What keeps ONNX Runtime's CUDA provider from being loaded; "" where nothing does. Takes a second.

    ONNX Runtime itself would only log this, and go on without CUDA.
    """
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(None):  # its own words, on what may be a table or JSON
            onnxruntime.preload_dlls()  # from the nvidia-* wheels, where no system-wide ones are installed
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
        # It loads without cuDNN, too, and then lacks convolutions or has slow ones (onnxruntime#29252).
        ctypes.CDLL("libcudnn.so.9")
    except OSError as error:
        return f"{str(error).partition(':')[0]} cannot be loaded; {_INSTALL_CUDA}"
    return ""


def _sizes(output: Any) -> list[int]:
    """Of an output behind its batch dimension."""
    sizes = output.shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise ModelError(f"output {output.name} | shape {output.shape} | sizes that are known | export again")
    return list(sizes)


def _providers(device: MemoryDevice, *, half: bool) -> list[Any]:
    return (
        [(_PROVIDERS["cuda"], _HALF_OPTIONS if half else _CUDA_OPTIONS)]
        if device == "cuda"
        else [_PROVIDERS["cpu"]]
    )


def _options(device: MemoryDevice, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised, and need not be printed as well
    # Bytes can be ONNX to the check in Bundle.read and ONNX Runtime's own format to it, which it prefers.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Threads that wait by spinning would take the cores from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options
