"""TensorRT engines, built by the flavour that is installed.

TensorRT (`tensorrt`, 10.13 and later, 11.x) builds for the GPU of this machine. TensorRT-RTX
(`tensorrt_rtx`) builds ahead of time for a list of GPUs, and needs none. The same calls drive both.
Networks are strongly typed, so that the precision is the one in the ONNX file; TF32 is off. Only
the RTX half has run so far, on a machine without a GPU.
"""

import contextlib
import hashlib
import importlib.util
import json
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING, Any, Final

import torch

from ..runtime.backends.cuda_driver import compute_capability
from ..runtime.backends.engine_stamp import EngineStamp, this_machine
from ..runtime.backends.trt_backend import Flavour, flavour_of, load_problem
from ..runtime.bundle import METADATA_KEY
from ..runtime.bundle.onnx_file import onnx_metadata
from ..runtime.errors import ConfigError, ModelError
from ..runtime.progress import print_above
from ..runtime.system.cache import cache_folder
from ..runtime.text import printable
from .timing_cache import attach_timing_cache, store_timing_cache, timing_cache_file
from .wanted import EngineOptions

if TYPE_CHECKING:
    import tensorrt

# Convolutions that may stay in float32: in int8, the encoder's first one.
_IN_FLOAT32: Final = {"fp32": 0, "fp16": 0, "int8": 1}
_TYPES: Final = {  # as EngineInspector writes them, in small letters
    "half": "fp16",
    "fp16": "fp16",
    "float": "fp32",
    "fp32": "fp32",
    "int8": "int8",
    "bf16": "bf16",
    "bfloat16": "bf16",
}
_UNKNOWN: Final = "unknown"
_TURING: Final = 75  # there TensorRT-RTX was seen to give zeros (pytorch/TensorRT#4643)


def installed_flavour() -> str | None:
    """TensorRT if it is installed and there is a GPU to build on, else TensorRT-RTX, else None.

    One that cannot be loaded counts only where the other is not installed.
    """
    names = ("tensorrt", "tensorrt_rtx") if torch.cuda.is_available() else ("tensorrt_rtx",)
    installed = [name for name in names if _is_installed(name)]
    return next((name for name in installed if not load_problem(name)), next(iter(installed), None))


def _is_installed(module: str) -> bool:
    """True if the module is installed as code; type stubs alone have no origin."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def engine_from_onnx(
    model: bytes,
    flavour: str,
    *,
    precision: str = "fp32",
    options: EngineOptions = EngineOptions(),  # noqa: B008  # frozen
    progress: Callable[[float, str], None] = lambda share, phase: None,
) -> tuple[bytes, EngineStamp]:
    """A serialised engine and its stamp.

    `progress` is called with the share that is done, in [0, 1], and the current phase. Raises
    ModelError with the words of the parser or the builder, and where the layers do not have the
    stated precision; what `check_targets` raises.
    """
    loaded = flavour_of(flavour)
    trt, log = loaded.module, loaded.log
    loaded.forget()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt.OnnxParser(network, log), model, flavour)
    convolutions = convolution_types(network, trt)
    check_precision(convolutions, precision)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for batches in _profiles(options.batch_profile):
        config.add_optimization_profile(_profile(builder, network.get_input(0), batches))
    if flavour == "tensorrt_rtx":
        targets = _with_own_gpu(options.targets, trt)
        check_targets(targets)
        _set_targets(trt, config, targets)
    else:
        targets = (_capability(),)
    plan = _build(loaded, builder, network, config, progress)
    if flavour == "tensorrt":  # whose capability was asked for: there is a GPU
        check_layers(layer_types(_inspection(_loaded(loaded, plan), trt)), precision)
    machine = this_machine()
    stamp = EngineStamp(
        flavour=flavour,
        version=trt.__version__,
        targets=targets,
        gpu=machine.gpu,
        driver=machine.driver,
        onnx_sha256=hashlib.sha256(model).hexdigest(),
        batch_profile=options.batch_profile,
        convolutions=dict(convolutions),
        **_claims(model),
    )
    return plan, stamp


def _claims(model: bytes) -> dict[str, Any]:
    """Labels, their meaning and frontend, as the metadata of the ONNX file has them; {} where it has none."""
    document = json.loads(onnx_metadata(model).get(METADATA_KEY, "{}"))
    return {name: document[name] for name in ("labels", "meaning", "frontend") if name in document}


def _parse(parser: "tensorrt.OnnxParser", model: bytes, flavour: str) -> None:
    if parser.parse(model):
        return
    raise ModelError(
        flavour,
        "; ".join(_problem(parser.get_error(i)) for i in range(parser.num_errors)),
        wanted="an ONNX graph that it can parse",
        fix="export on a machine with another TensorRT",
    )


def _problem(error: "tensorrt.ParserError") -> str:
    """The node and the parser's description, which alone may be the word "false"."""
    where = f"{error.node_operator()} {error.node_name()}".strip()
    return " ".join(f"{where}: {error.desc()}".split()).removeprefix(": ")


def _build(
    flavour: Flavour,
    builder: "tensorrt.Builder",
    network: "tensorrt.INetworkDefinition",
    config: "tensorrt.IBuilderConfig",
    progress: Callable[[float, str], None],
) -> bytes:
    """Builds with the timings of earlier builds, where this TensorRT keeps any."""
    name = flavour.module.__name__
    file = (
        timing_cache_file(cache_folder(), flavour.module.__version__, _capability())
        if name == "tensorrt"
        else None
    )
    notes = [attach_timing_cache(config, file)] if file else []
    with _signals_wait() as received:
        config.progress_monitor = monitor = progress_monitor(flavour.module, progress, received)
        plan = builder.build_serialized_network(network, config)
    if monitor.problem:
        raise monitor.problem
    if plan is None:  # the builder does not raise
        raise ModelError(
            name, flavour.reason or "it built no engine and gave no reason", fix="see rrtn doctor"
        )
    if file:
        notes.append(store_timing_cache(config, file))
    for note in filter(None, notes):
        print_above(f"rrtn: note: {printable(note)}")
    return bytes(plan)


@contextlib.contextmanager
def _signals_wait() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM wait until the builder has returned.

    An exception of theirs cannot pass through the builder, and would be lost.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
        yield received
        return
    before = {
        number: signal.signal(number, lambda sent, _: received.append(sent)) for number in (SIGINT, SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for sent in dict.fromkeys(received):
            signal.raise_signal(sent)


def progress_monitor(trt: Any, report: Callable[[float, str], None], stop: Sequence[object] = ()) -> Any:
    """Reports the share of a build that is done, and the phase. The share never decreases.

    The monitor's class derives from the flavour's own. Once `stop` has an element, the build ends
    at its next step.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: list[list[Any]] = []  # [name, steps, steps done], the innermost last
            self.share = 0.0
            self.problem: Exception | None = None  # an exception of `report`

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins inside of another one, or as the first."""
            self.phases.append([phase_name, num_steps, 0])

        def step_complete(self, phase_name: str, step: int) -> bool:
            """False ends the build."""
            for phase in self.phases:
                if phase[0] == phase_name:
                    phase[2] = step + 1
            self.share = max(self.share, self._share())
            try:
                report(self.share, phase_name)
            except Exception as error:
                self.problem = self.problem or error
            return not (stop or self.problem)

        def phase_finish(self, phase_name: str) -> None:
            """Its last step may have gone unsaid."""
            self.phases = [phase for phase in self.phases if phase[0] != phase_name]

        def _share(self) -> float:
            share = 0.0
            for _, steps, done in reversed(self.phases):
                share = min(1.0, (done + share) / max(steps, 1))
            return share

    return Monitor()


def layer_types(inspection: str) -> Counter[str]:
    """The number of layers by the types of their weights and outputs, from EngineInspector's JSON.

    TensorRT writes a type as Half or Float, or within a format: "Channel major FP16 format where
    channel % 8 == 0". A layer that tells no type counts as unknown. So does a region that TensorRT
    has fused into one layer (Myelin, a ForeignNode): it tells the types at its borders alone.
    """
    layers = json.loads(inspection).get("Layers", [])
    found: Counter[str] = Counter()
    for layer in layers:
        types = _types_of(layer) if isinstance(layer, dict) else set()
        fused = isinstance(layer, dict) and layer.get("LayerType") == "Myelin"
        found.update(types)
        found[_UNKNOWN] += fused or not types
    return +found


def _types_of(layer: dict[str, Any]) -> set[str]:
    weights = layer.get("Weights")
    texts = [weights.get("Type") if isinstance(weights, dict) else None]
    texts += [output.get("Format/Datatype") for output in layer.get("Outputs", [])]
    words = re.findall("[a-z0-9]+", " ".join(map(str, texts)).lower())
    return {_TYPES[word] for word in words if word in _TYPES}


def check_layers(types: Counter[str], stated: str) -> None:
    """Raises ModelError where a built engine computes in another precision than its name says.

    In any engine some layers stay in float32. So the check asks only that the stated type is
    there, and no foreign one. A layer that tells nothing may have the stated type.
    """
    foreign = set(types) - {"fp32", stated, _UNKNOWN}
    missing = types and not (types[stated] or types[_UNKNOWN])
    if foreign or missing:
        found = ", ".join(f"{count} in {name}" for name, count in types.items() if name != _UNKNOWN)
        raise ModelError(f"{stated} engine", f"its layers: {found}; it is not published", wanted=stated)


def _loaded(flavour: Flavour, plan: bytes) -> Any:
    """The engine. Needs its GPU."""
    flavour.forget()
    engine = flavour.module.Runtime(flavour.log).deserialize_cuda_engine(plan)
    if engine is None:
        raise ModelError(
            flavour.module.__name__,
            flavour.reason,
            wanted="an engine that loads on the machine that built it",
            fix="see rrtn doctor",
        )
    return engine


def _inspection(engine: Any, trt: Any) -> str:
    """The engine's own list of its layers, as JSON.

    Where the batch is dynamic, an engine tells the types of its tensors only for a context that knows
    the size of the batch. The context gets no memory, as nothing runs in it.
    """
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is not None:
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        name = next(name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
        _, tuned, _ = engine.get_tensor_profile_shape(name, 0)
        context.set_input_shape(name, tuple(tuned))
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def convolution_types(network: Any, trt: Any) -> Counter[str]:
    """The number of convolutions in fp32, fp16 and int8 of a parsed, strongly typed network.

    int8 means that the input is dequantised. This is read before the build, on any machine;
    `layer_types` is read from the built engine.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    dequantised = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    names = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16"}
    found: Counter[str] = Counter()
    for layer in layers:
        if layer.type == trt.LayerType.CONVOLUTION:
            x = layer.get_input(0)
            found["int8" if x.name in dequantised else names.get(x.dtype, str(x.dtype))] += 1
    return found


def check_precision(convolutions: Counter[str], stated: str) -> None:
    """Raises ModelError where an engine would not have the precision that its name says."""
    others = {name: count for name, count in convolutions.items() if name != stated}
    none = stated != "fp32" and not convolutions[stated]
    if none or not others.keys() <= {"fp32"} or sum(others.values()) > _IN_FLOAT32[stated]:
        found = ", ".join(f"{count} in {name}" for name, count in convolutions.items())
        raise ModelError(f"{stated} engine", f"convolutions: {found}; it is not published", wanted=stated)


def _profiles(batches: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Those of an engine: the one for batches first, as other programs take that one; then single clips'.

    Kernels that are tuned for a batch are slow for a single clip.
    """
    return [batches, (1, 1, 1)] if batches[0] == 1 < batches[-1] else [batches]


def _profile(builder: Any, graph_input: Any, batches: tuple[int, int, int]) -> Any:
    """The batch is dynamic within `batches`; the graph sets the other dimensions."""
    profile = builder.create_optimization_profile()
    clip = tuple(graph_input.shape)[1:]
    profile.set_shape(graph_input.name, *((batch, *clip) for batch in batches))
    return profile


def _with_own_gpu(targets: tuple[int, ...], trt: Any) -> tuple[int, ...]:
    """The default targets and this machine's GPU, where TensorRT-RTX knows it; other targets as they are."""
    here = compute_capability()
    if targets != EngineOptions.targets or here is None or here in (_TURING, *targets):
        return targets
    return (*targets, here) if hasattr(trt.ComputeCapability, f"SM{here}") else targets


def check_targets(targets: tuple[int, ...]) -> None:
    """Raises ConfigError for a compute capability that TensorRT-RTX does not know; TensorRT takes none."""
    names = flavour_of("tensorrt_rtx").module.ComputeCapability.__members__
    known = [name.removeprefix("SM") for name in names if name.startswith("SM")]
    if unknown := [str(target) for target in targets if str(target) not in known]:
        raise ConfigError("--targets", ", ".join(unknown), wanted=f"some of {', '.join(known)}")


def _set_targets(trt: Any, config: Any, targets: tuple[int, ...]) -> None:
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target}"), i)


def _capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
