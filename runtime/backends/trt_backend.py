"""Engines, run by TensorRT or TensorRT-RTX in ONNX Runtime's memory: no torch, no CUDA toolkit.

In tests/runtime/backends/test_trt_backend.py stand-ins for TensorRT and for CUDA's runtime compute from the
addresses that they are given, and the real TensorRT-RTX refuses a file that is no engine. So the tests run
all except the calls into a real engine.

B batch, N samples, K labels, D embedding.
"""

import importlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..bundle import Bundle, Variant
from ..errors import ModelError, OutOfMemoryError, UnavailableError
from .backend_errors import is_out_of_memory, ort_errors
from .cuda_libraries import load_cuda
from .device_memory import Device, DeviceQueue, QueuedBackend, Widening, buffer_of, check_runs, cuda_device
from .engine_stamp import Machine, mismatch, this_machine
from .model_batch import ClipBatch, Outputs, Spent, check_fit, padded

if TYPE_CHECKING:
    import tensorrt

# Errors of TensorRT that are kept: the first says what happened, the others who noticed.
_LAST_WORDS: Final = 3
_LONGEST_WORDS: Final = 300  # characters of each
_BUILD: Final = "export its run again with --trt"
_NO_REASON: Final = "TensorRT refused it without a reason"


@dataclass(frozen=True)
class TrtBackend(QueuedBackend):
    """A loaded engine. The batches of all threads stand in a queue."""

    variant: Variant
    batches: tuple[int, int, int]  # its profile: smallest, tuned for, largest
    embedding_size: int | None  # D; None if the engine gives no embeddings
    queue: DeviceQueue
    device: str = "trt"  # the name of the backend

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """waveform [B, N] -> scores [B, K] and the embedding [B, D], if there is one.

        A batch above the engine's largest runs in parts; one below its smallest is padded. Adds the
        time of each step to `spent`. Raises OutOfMemoryError if memory is short, and ModelError for
        anything else that TensorRT refuses.
        """
        largest = self.batches[-1]
        return Outputs.joined(
            [self._run(batch[i : i + largest], spent) for i in range(0, len(batch), largest)]
        )

    def _run(self, batch: ClipBatch, spent: Spent | None) -> Outputs:
        count = len(batch)
        batch = padded(batch, self.batches[0])
        with ort_errors(f"{self.variant.file}, batch {batch.shape}"):
            return self.queue.run(batch, spent).first(count)


@dataclass(frozen=True)
class _QueuedEngine:
    """An engine as a DeviceModel."""

    file: str
    contexts: Sequence["tensorrt.IExecutionContext"]  # one for each profile of the engine
    flavour: "Flavour"
    input: str  # its name
    outputs: tuple[str, ...]  # their names
    device: Device

    def bound_to(self, x: Any) -> "_BoundEngine":
        self.flavour.forget()
        context = self.contexts[-1 if x.shape()[0] == 1 else 0]
        self.check(context.set_input_shape(self.input, tuple(x.shape())))
        sizes = {name: tuple(context.get_tensor_shape(name)) for name in self.outputs}
        outputs = {name: buffer_of(size, np.float32, self.device.memory) for name, size in sizes.items()}
        return _BoundEngine(self, context, x, outputs)

    def check(self, accepted: bool) -> None:
        """Raises what TensorRT logs: its calls return False and do not raise."""
        if not accepted:
            reason = self.flavour.reason or _NO_REASON
            kind = OutOfMemoryError if is_out_of_memory(reason) else ModelError
            wanted, fix = "a batch that the engine accepts", "use a smaller --batch-size"
            raise kind(self.file, reason, wanted=wanted, fix=fix)


@dataclass(frozen=True)
class _BoundEngine:
    """An engine as a BoundModel."""

    engine: _QueuedEngine
    context: "tensorrt.IExecutionContext"
    x: Any
    outputs: dict[str, Any]

    def prepare(self) -> None:
        """Tells the context the size of the batch and the addresses."""
        engine = self.engine
        engine.flavour.forget()
        engine.check(self.context.set_input_shape(engine.input, tuple(self.x.shape())))
        for name, value in {engine.input: self.x, **self.outputs}.items():
            engine.check(self.context.set_tensor_address(name, value.data_ptr()))

    def launch(self) -> None:
        self.engine.flavour.forget()
        self.engine.check(self.context.execute_async_v3(self.engine.device.compute))


def trt_backend_from_bundle(
    bundle: Bundle, variant: Variant, *, machine: Machine | None = None
) -> TrtBackend:
    """Loads an engine of the bundle from the same bytes that were hashed, and runs one clip.

    Raises UnavailableError if its stamp does not fit this machine, or TensorRT refuses it or does not run it,
    and ModelError if the file is not the bundle's.
    """
    if variant.kind != "engine":
        path = str(bundle.path / variant.file)
        raise ModelError(path, f"kind {variant.kind}", wanted="an engine", fix=bundle.export_again("--trt"))
    if reason := mismatch(variant.stamp, machine or this_machine()):
        fix = bundle.export_again("--trt")
        raise UnavailableError(variant.file, reason, wanted="an engine for this machine", fix=fix)
    assert variant.stamp is not None
    flavour = flavour_of(variant.stamp["flavour"])
    engine = _engine_from_plan(flavour, bundle.read(variant), variant.file)
    check_fit(bundle, variant, *_shapes(engine, flavour.module))
    load_cuda()
    backend = trt_backend_from_engine(engine, variant, flavour, device=cuda_device())
    check_runs(backend, bundle.spec)
    return backend


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
    device: Device,
) -> TrtBackend:
    """Gives an engine a context to run in. Raises UnavailableError if TensorRT cannot make one."""
    trt = flavour.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    if strange := [name for name in names if engine.get_tensor_dtype(name) != trt.DataType.FLOAT]:
        came = f"{', '.join(strange)} not in float32"
        raise ModelError(variant.file, came, wanted="float32, as rrtn builds it", fix=_BUILD)
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    smallest, tuned, largest = (int(shape[0]) for shape in engine.get_tensor_profile_shape(inputs[0], 0))
    outputs = tuple(name for name in names if name not in inputs)
    contexts = _contexts(flavour, engine, variant.file, device)
    model = _QueuedEngine(variant.file, contexts, flavour, inputs[0], outputs, device)
    return TrtBackend(
        variant=variant,
        batches=(smallest, tuned, largest),
        embedding_size=int(engine.get_tensor_shape("embedding")[-1]) if "embedding" in outputs else None,
        queue=DeviceQueue(device, model, widening=Widening(device)),
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


def load_problem(flavour: str) -> str:
    """Why `tensorrt` or `tensorrt_rtx` cannot be imported; "" if it can."""
    try:
        flavour_of(flavour)
    except UnavailableError as error:
        return error.came
    return ""


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


def _contexts(flavour: Flavour, engine: Any, name: str, device: Device) -> list[Any]:
    """A context for batches of any size, and one for single clips where the engine has a profile for them."""
    device.calls.enter()
    contexts = [_context(flavour, engine, name)]
    if engine.num_optimization_profiles > 1:
        contexts.append(_context(flavour, engine, name, profile=1))
        if not contexts[1].set_optimization_profile_async(1, device.compute):
            raise UnavailableError(
                name, flavour.reason or _NO_REASON, wanted="its second profile", fix=_BUILD
            )
        device.calls.wait_stream(device.compute)
    return contexts


def _context(flavour: Flavour, engine: Any, name: str, *, profile: int = 0) -> Any:
    """The state in which an engine runs. That of another profile than the first takes memory for it alone.

    TensorRT-RTX compiles the kernels for this GPU here. By default it would run slower kernels at
    first; with EAGER it compiles all of them before the first batch.
    """
    trt = flavour.module
    flavour.forget()
    strategy = [trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE] if profile else []
    if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        # Every batch uses the same buffers, so one CUDA graph serves all.
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if strategy:
            config.set_execution_context_allocation_strategy(*strategy)
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context(*strategy)
    if context is None:
        wanted, fix = "memory and kernels for this GPU", "run: rrtn doctor"
        raise UnavailableError(name, flavour.reason or _NO_REASON, wanted=wanted, fix=fix)
    return context
