"""Engines, run by TensorRT or TensorRT-RTX in ONNX Runtime's memory: no torch, no CUDA toolkit.

This has not run on a GPU yet. In tests/runtime/backends/test_trt_backend.py a stand-in for TensorRT
computes from the addresses that it is given, and the real TensorRT-RTX refuses a file that is no
engine. So all has run except the calls into a real engine.

B batch, N samples, K labels, D embedding.
"""

import importlib
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from ..arrays import Float32
from ..bundle import Bundle, Variant
from ..errors import ModelError, OutOfMemoryError, UnavailableError
from .backend_errors import is_out_of_memory, ort_errors
from .cuda_driver import CudaStream
from .cuda_libraries import load_cuda
from .device_memory import Buffers, Widening, buffer_of
from .engine_stamp import Machine, mismatch, this_machine
from .model_batch import ModelBatch, Outputs, Spent, check_fit, padded
from .ort_session import MemoryDevice

if TYPE_CHECKING:
    import tensorrt

# Errors of TensorRT that are kept: the first says what happened, the others who noticed.
_LAST_WORDS: Final = 3
_LONGEST_WORDS: Final = 300  # characters of each
_BUILD: Final = "run: rrtn export --trt"
_NO_REASON: Final = "TensorRT refused it without a reason"


class Stream(Protocol):
    """The queue in which the GPU runs an engine's kernels."""

    handle: int

    def synchronise(self) -> None:
        """Returns when all work on the stream is done."""


@dataclass(frozen=True)
class TrtBackend:
    """A loaded engine. One batch runs at a time; other threads wait."""

    variant: Variant
    context: "tensorrt.IExecutionContext"
    flavour: "Flavour"
    input: str  # its name
    outputs: tuple[str, ...]  # their names
    batches: tuple[int, int, int]  # its profile: smallest, tuned for, largest
    stream: Stream
    widening: Widening | None
    memory: MemoryDevice = "cuda"  # "cpu" for the stand-in of the tests
    device: str = "trt"  # the name of the backend
    _bound: list[Buffers] = field(default_factory=list, repr=False)  # the buffers of the last shape, if any
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def run(self, batch: ModelBatch, spent: Spent | None = None) -> Outputs:
        """waveform [B, N] -> scores [B, K] and the embedding [B, D], if there is one.

        A batch above the engine's largest runs in parts; one below its smallest is padded. Adds the
        time of each step to `spent`. Raises OutOfMemoryError if memory is short, and ModelError for
        anything else that TensorRT refuses.
        """
        largest = self.batches[-1]
        with self._lock:
            return Outputs.joined(
                [self._run(batch[i : i + largest], spent) for i in range(0, len(batch), largest)]
            )

    def scores(self, batch: ModelBatch) -> Float32:
        """The same batch -> scores [B, K] only."""
        return self.run(batch).scores

    @property
    def embedding_size(self) -> int | None:
        """D; None if the engine gives no embeddings."""
        if "embedding" not in self.outputs:
            return None
        return int(self.context.engine.get_tensor_shape("embedding")[-1])

    def _run(self, batch: ModelBatch, spent: Spent | None) -> Outputs:
        count = len(batch)
        batch = padded(batch, self.batches[0])
        self.flavour.forget()
        with ort_errors(f"{self.variant.file}, batch {batch.shape}"):
            buffers = self._buffers(batch.shape)
            begin = time.perf_counter()
            buffers.fill(batch)
            there = time.perf_counter()
            self._check(self.context.execute_async_v3(self.stream.handle))
            self.stream.synchronise()
            ran = time.perf_counter()
            outputs = buffers.fetch()
            if spent:
                spent.add(begin, there, ran, time.perf_counter())
        return outputs.first(count)

    def _buffers(self, shape: tuple[int, ...]) -> Buffers:
        if not self._bound or self._bound[0].shape != shape:
            self._bound.clear()  # frees the old buffers before the new ones are made
            self._check(self.context.set_input_shape(self.input, shape))
            sizes = {name: tuple(self.context.get_tensor_shape(name)) for name in self.outputs}
            outputs = {name: buffer_of(size, np.float32, self.memory) for name, size in sizes.items()}
            buffers = Buffers(shape, buffer_of(shape, np.float32, self.memory), outputs, self.widening)
            for name, value in {self.input: buffers.x, **outputs}.items():
                self._check(self.context.set_tensor_address(name, value.data_ptr()))
            self._bound.append(buffers)
        return self._bound[0]

    def _check(self, accepted: bool) -> None:
        """Raises what TensorRT logs: its calls return False and do not raise."""
        if not accepted:
            reason = self.flavour.reason or _NO_REASON
            kind = OutOfMemoryError if is_out_of_memory(reason) else ModelError
            wanted, fix = "a batch that the engine accepts", "use a smaller --batch-size"
            raise kind(self.variant.file, reason, wanted=wanted, fix=fix)


def trt_backend_from_bundle(
    bundle: Bundle, variant: Variant, *, machine: Machine | None = None
) -> TrtBackend:
    """Loads an engine of the bundle from the same bytes that were hashed.

    Raises UnavailableError if its stamp does not fit this machine or TensorRT refuses it, and
    ModelError if the file is not the bundle's.
    """
    if variant.kind != "engine":
        path = str(bundle.path / variant.file)
        raise ModelError(path, f"kind {variant.kind}", wanted="an engine", fix=_BUILD)
    if reason := mismatch(variant.stamp, machine or this_machine()):
        raise UnavailableError(variant.file, reason, wanted="an engine for this machine", fix=_BUILD)
    assert variant.stamp is not None
    flavour = flavour_of(variant.stamp["flavour"])
    engine = _engine_from_plan(flavour, bundle.read(variant), variant.file)
    check_fit(bundle, variant, *_shapes(engine, flavour.module))
    load_cuda()
    return trt_backend_from_engine(engine, variant, flavour, stream=cuda_stream(), widening=Widening("cuda"))


def _shapes(engine: Any, trt: Any) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The shapes of an engine's inputs and of its outputs, by name. The batch is free within the profile."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    shapes = {name: [-1, *list(engine.get_tensor_shape(name))[1:]] for name in names}
    inputs = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
    return (
        {name: shape for name, shape in shapes.items() if name in inputs},
        {name: shape for name, shape in shapes.items() if name not in inputs},
    )


def trt_backend_from_engine(
    engine: "tensorrt.ICudaEngine",
    variant: Variant,
    flavour: "Flavour",
    *,
    stream: Stream,
    widening: Widening | None,
    memory: MemoryDevice = "cuda",
) -> TrtBackend:
    """Gives an engine a context to run in. Raises UnavailableError if TensorRT cannot make one."""
    trt = flavour.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    if strange := [name for name in names if engine.get_tensor_dtype(name) != trt.DataType.FLOAT]:
        came = f"{', '.join(strange)} not in float32"
        raise ModelError(variant.file, came, wanted="float32, as rrtn builds it", fix=_BUILD)
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    smallest, tuned, largest = (int(shape[0]) for shape in engine.get_tensor_profile_shape(inputs[0], 0))
    return TrtBackend(
        variant=variant,
        context=_context(flavour, engine, variant.file),
        flavour=flavour,
        input=inputs[0],
        outputs=tuple(name for name in names if name not in inputs),
        batches=(smallest, tuned, largest),
        stream=stream,
        widening=widening,
        memory=memory,
    )


@dataclass(frozen=True)
class Flavour:
    """TensorRT or TensorRT-RTX, with its logger. TensorRT ignores a second one in a process."""

    module: Any
    log: Any
    errors: deque[str]  # what it logged since `forget`

    def forget(self) -> None:
        """Drops earlier errors, which belong to another call."""
        self.errors.clear()

    @property
    def reason(self) -> str:
        """The last errors on one line; "" if there are none."""
        return "; ".join(dict.fromkeys(" ".join(words.split())[:_LONGEST_WORDS] for words in self.errors))


@cache
def flavour_of(name: str) -> Flavour:
    """Imports `tensorrt` or `tensorrt_rtx`. Raises UnavailableError if it is not installed."""
    assert name in ("tensorrt", "tensorrt_rtx"), name
    try:
        module = importlib.import_module(name)
        errors: deque[str] = deque(maxlen=_LAST_WORDS)
        return Flavour(module, _collecting_logger(module, errors), errors)
    # OSError: its libraries are missing. AttributeError: only its type stubs are installed.
    except (ImportError, OSError, AttributeError) as error:
        wanted, fix = f"the package of {name}", "run: rrtn doctor"
        raise UnavailableError(name, str(error), wanted=wanted, fix=fix) from error


def _collecting_logger(trt: Any, errors: deque[str]) -> Any:
    """A logger that keeps TensorRT's errors for our messages and drops its warnings.

    The class is made here because it derives from the flavour's own ILogger.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message)

    return Logger()


def _engine_from_plan(flavour: Flavour, plan: bytes, name: str) -> Any:
    flavour.forget()
    runtime = flavour.module.Runtime(flavour.log)
    runtime.engine_host_code_allowed = False  # the default, but a plan may hold more than kernels
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        wanted, fix = "an engine that loads here", f"{_BUILD}, or see: rrtn doctor"
        raise UnavailableError(name, flavour.reason or _NO_REASON, wanted=wanted, fix=fix)
    return engine


def _context(flavour: Flavour, engine: Any, name: str) -> Any:
    """The state in which an engine runs.

    TensorRT-RTX compiles the kernels for this GPU here. By default it would run slower kernels at
    first; with EAGER it compiles all of them before the first batch.
    """
    trt = flavour.module
    flavour.forget()
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        # Every batch uses the same buffers, so one CUDA graph serves all.
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        wanted, fix = "memory and kernels for this GPU", "run: rrtn doctor"
        raise UnavailableError(name, flavour.reason or _NO_REASON, wanted=wanted, fix=fix)
    return context


@cache
def cuda_stream() -> Stream:
    """The stream of all engines of the process."""
    return CudaStream()
