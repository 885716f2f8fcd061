"""TensorRT engines, by whatever flavour is installed.

TensorRT (`tensorrt`, 10.13 and later, 11.x) builds for the GPU of this machine. TensorRT-RTX (`tensorrt_rtx`) builds
ahead of time for a list of GPUs, without one. Both are driven by the same calls: strongly typed networks, so that
precision is what the ONNX file says, and no TF32. Only the RTX half has run so far, on a machine without a GPU.
"""

import hashlib
import importlib
import importlib.util
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from ..runtime.errors import ModelError

RTX_TARGETS: Final = (80, 86, 89, 120)  # compute capabilities
PROFILE: Final = (1, 32, 256)  # batch: smallest, the one that is tuned for, largest
INSTALL_HINT: Final = 'pip install "rrtn[rtx]" (no GPU needed), or on a GPU machine pip install "rrtn[trt]"'


@dataclass(frozen=True, kw_only=True)
class EngineStamp:
    """What an engine may run on; checked against the machine before the engine is loaded."""

    flavour: str  # tensorrt or tensorrt_rtx
    version: str
    targets: tuple[int, ...]  # compute capabilities, times ten
    gpu: str | None  # that it was built on
    driver: str | None
    onnx_sha256: str
    batch_profile: tuple[int, int, int]

    def to_dict(self) -> dict[str, Any]:
        """For bundle.json."""
        return asdict(self)


def installed_flavour() -> str | None:
    """TensorRT where it is installed and there is a GPU to build on, else TensorRT-RTX, else None."""
    if torch.cuda.is_available() and importlib.util.find_spec("tensorrt"):
        return "tensorrt"
    return "tensorrt_rtx" if importlib.util.find_spec("tensorrt_rtx") else None


def engine_from_onnx(model: bytes, flavour: str) -> tuple[bytes, EngineStamp]:
    """A serialised engine and its stamp. Raises ModelError with the parser's or builder's own words."""
    trt = importlib.import_module(flavour)
    log = _CollectingLogger.of(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        problems = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise ModelError(f"{flavour} | {problems} | an ONNX graph that it can parse | export with another flavour")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_profile(builder, network.get_input(0)))
    targets = _set_targets(trt, config) if flavour == "tensorrt_rtx" else (_capability(),)
    plan = builder.build_serialized_network(network, config)
    if plan is None:  # the builder does not raise
        raise ModelError(f"{flavour} | {log.last_error or 'no engine and no reason'} | an engine | see rrtn doctor")
    stamp = EngineStamp(
        flavour=flavour,
        version=trt.__version__,
        targets=targets,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        driver=_driver(),
        onnx_sha256=hashlib.sha256(model).hexdigest(),
        batch_profile=PROFILE,
    )
    return bytes(plan), stamp


def _profile(builder: Any, graph_input: Any) -> Any:
    """The batch is dynamic within PROFILE; the other dimensions are the graph's own."""
    profile = builder.create_optimization_profile()
    clip = tuple(graph_input.shape)[1:]
    profile.set_shape(graph_input.name, *((batch, *clip) for batch in PROFILE))
    return profile


def _set_targets(trt: Any, config: Any) -> tuple[int, ...]:
    config.num_compute_capabilities = len(RTX_TARGETS)
    for i, target in enumerate(RTX_TARGETS):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target}"), i)
    return RTX_TARGETS


def _capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def _driver() -> str | None:
    return torch.cuda.driver_version() if torch.cuda.is_available() and hasattr(torch.cuda, "driver_version") else None


class _CollectingLogger:
    """TensorRT's words: errors are kept for the message, warnings are dropped."""

    @staticmethod
    def of(trt: Any) -> Any:
        """An instance derived from the flavour's own ILogger."""

        class Logger(trt.ILogger):  # type: ignore[misc]
            last_error = ""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    Logger.last_error = message

        return Logger()
