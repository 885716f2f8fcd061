"""TensorRT engines of either flavour, with ONNX Runtime's memory: no torch, no CUDA toolkit.

Not yet run on a GPU. What has run is all but the two calls into an engine: a stand-in for TensorRT,
in tests/runtime/test_trt_backend.py, computes from the addresses that it is given; and the real
TensorRT-RTX refuses here.

B batch, N samples, K labels, D embedding.
"""

import importlib
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from ..arrays import Float32
from ..bundle import Bundle, Variant
from ..errors import ModelError, OutOfMemoryError, UnavailableError
from .backend_errors import is_out_of_memory, ort_errors
from .cuda_driver import CudaStream
from .engine_stamp import Machine, mismatch, this_machine
from .ort_backend import (
    Buffers,
    MemoryDevice,
    ModelBatch,
    Outputs,
    Spent,
    Widening,
    buffer_of,
    load_cuda,
    padded,
)

if TYPE_CHECKING:
    import tensorrt

_LAST_WORDS: Final = 3  # of TensorRT's errors; the first says what happened, the next ones who noticed
_NO_REASON: Final = "refused without a reason"


class Stream(Protocol):
    """Where an engine's kernels are put in order."""

    handle: int

    def synchronise(self) -> None:
        """Returns when all that was put there is done."""


@dataclass(frozen=True)
class TrtBackend:
    """A loaded engine. One batch at a time runs; other threads wait."""

    variant: Variant
    context: "tensorrt.IExecutionContext"
    flavour: "Flavour"
    input: str  # the name of it
    outputs: tuple[str, ...]
    batches: tuple[int, int, int]  # of the engine's profile: smallest, the one that it is tuned for, largest
    stream: Stream
    widening: Widening | None
    memory: MemoryDevice = "cuda"  # "cpu" under the tests' stand-in
    device: Literal["trt"] = "trt"
    _bound: list[Buffers] = field(default_factory=list, repr=False)  # of the last shape
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def run(self, batch: ModelBatch, spent: Spent | None = None) -> Outputs:
        """waveform [B, N] -> scores [B, K] and, where the engine has it, the embedding [B, D]; adds to
        `spent` what it took.

        A batch above the engine's largest is run in parts, one below its smallest is padded. Raises
        OutOfMemoryError where memory is short, ModelError for anything else that TensorRT refuses.
        """
        largest = self.batches[-1]
        with self._lock:
            return Outputs.joined(
                [self._run(batch[i : i + largest], spent) for i in range(0, len(batch), largest)]
            )

    def scores(self, batch: ModelBatch) -> Float32:
        """The same, without the embedding."""
        return self.run(batch).scores

    @property
    def embedding_size(self) -> int | None:
        """D; None where the engine does not give embeddings."""
        return (
            int(self.context.engine.get_tensor_shape("embedding")[-1])
            if "embedding" in self.outputs
            else None
        )

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
            self._bound.clear()  # frees the old ones first
            self._check(self.context.set_input_shape(self.input, shape))
            sizes = {name: tuple(self.context.get_tensor_shape(name)) for name in self.outputs}
            outputs = {name: buffer_of(size, np.float32, self.memory) for name, size in sizes.items()}
            buffers = Buffers(shape, buffer_of(shape, np.float32, self.memory), outputs, self.widening)
            for name, value in {self.input: buffers.x, **outputs}.items():
                self._check(self.context.set_tensor_address(name, value.data_ptr()))
            self._bound.append(buffers)
        return self._bound[0]

    def _check(self, taken: bool) -> None:
        if not taken:  # TensorRT does not raise
            reason = self.flavour.reason or _NO_REASON
            kind = OutOfMemoryError if is_out_of_memory(reason) else ModelError
            raise kind(
                f"{self.variant.file} | {reason} | a batch that the engine takes | use a smaller --batch-size"
            )


def trt_backend_from_bundle(
    bundle: Bundle, variant: Variant, *, machine: Machine | None = None
) -> TrtBackend:
    """Loads an engine that the bundle lists, from the bytes that were hashed, where its stamp fits
    this machine.

    Raises UnavailableError where it does not, or TensorRT does not take it; ModelError for another
    file than the bundle's.
    """
    if variant.kind != "engine":
        raise ModelError(
            f"{bundle.path / variant.file} | {variant.kind} | TensorRT runs engines | rrtn export --trt"
        )
    if reason := mismatch(variant.stamp, machine or this_machine()):
        raise UnavailableError(f"{variant.file} | {reason} | an engine for this machine | rrtn export --trt")
    assert variant.stamp is not None
    flavour = flavour_of(variant.stamp["flavour"])
    engine = _engine_from_plan(flavour, bundle.read(variant), variant.file)
    load_cuda()
    return trt_backend_from_engine(engine, variant, flavour, stream=cuda_stream(), widening=Widening("cuda"))


def trt_backend_from_engine(
    engine: "tensorrt.ICudaEngine",
    variant: Variant,
    flavour: "Flavour",
    *,
    stream: Stream,
    widening: Widening | None,
    memory: MemoryDevice = "cuda",
) -> TrtBackend:
    """An engine with a context to run in. Raises UnavailableError where TensorRT makes none."""
    trt = flavour.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    if strange := [name for name in names if engine.get_tensor_dtype(name) != trt.DataType.FLOAT]:
        raise ModelError(
            f"{variant.file} | {', '.join(strange)} not in float32 | as rrtn builds it | rrtn export --trt"
        )
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
    """TensorRT or TensorRT-RTX, with the one logger that a process can give it: a second would be ignored."""

    module: Any
    log: Any
    errors: deque[str]  # its words since `forget`

    def forget(self) -> None:
        """What was said before belongs to something else."""
        self.errors.clear()

    @property
    def reason(self) -> str:
        """Its last words, on one line; "" where it said nothing."""
        return "; ".join(dict.fromkeys(" ".join(words.split())[:300] for words in self.errors))


@cache
def flavour_of(name: str) -> Flavour:
    """`tensorrt` or `tensorrt_rtx`, imported. Raises UnavailableError where it is not installed."""
    assert name in ("tensorrt", "tensorrt_rtx"), name
    try:
        module = importlib.import_module(name)
        errors: deque[str] = deque(maxlen=_LAST_WORDS)
        return Flavour(module, _collecting_logger(module, errors), errors)
    except (ImportError, OSError, AttributeError) as error:  # its libraries; or type stubs alone
        raise UnavailableError(f"{name} | {error} | its package | rrtn doctor") from error


def _collecting_logger(trt: Any, errors: deque[str]) -> Any:
    """TensorRT's words: errors are kept for the message, warnings are dropped.

    Derived from the flavour's own ILogger.
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
    runtime.engine_host_code_allowed = False  # it is the default; a plan may hold more than kernels
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise UnavailableError(
            f"{name} | {flavour.reason or _NO_REASON} | an engine that loads here | rrtn export --trt, or rrtn doctor"
        )
    return engine


def _context(flavour: Flavour, engine: Any, name: str) -> Any:
    """TensorRT-RTX compiles for this GPU here, and on its own would first run slower kernels: EAGER
    does not.
    """
    trt = flavour.module
    flavour.forget()
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        config.cuda_graph_strategy = (
            trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        )  # same buffers, batch after batch
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise UnavailableError(
            f"{name} | {flavour.reason or _NO_REASON} | memory and kernels for this GPU | rrtn doctor"
        )
    return context


@cache
def cuda_stream() -> Stream:
    """One for all engines of the process."""
    return CudaStream()
