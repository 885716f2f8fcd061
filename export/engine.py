"""TensorRT engines, by whatever flavour is installed.

TensorRT (`tensorrt`, 10.13 and later, 11.x) builds for the GPU of this machine. TensorRT-RTX (`tensorrt_rtx`) builds
ahead of time for a list of GPUs, without one. Both are driven by the same calls: strongly typed networks, so that
precision is what the ONNX file says, and no TF32. Only the RTX half has run so far, on a machine without a GPU.
"""

import hashlib
import importlib
import importlib.util
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from ..runtime.engine_stamp import EngineStamp, driver_version
from ..runtime.errors import ConfigError, ModelError
from .graph import MAX_BATCH

INSTALL_HINT: Final = 'pip install "rrtn[rtx]" (no GPU needed), or on a GPU machine pip install "rrtn[trt]"'
_SMALLEST_SHARE: Final = 0.8  # of the convolutions that must be of the stated precision; the frontend's and the first may not


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What an engine is built for."""

    batch_profile: tuple[int, int, int] = (1, 32, 256)  # smallest, the one that is tuned for, largest
    targets: tuple[int, ...] = (80, 86, 89, 120)  # compute capabilities times ten, for TensorRT-RTX

    def __post_init__(self) -> None:
        smallest, tuned, largest = self.batch_profile
        if not 1 <= smallest <= tuned <= largest <= MAX_BATCH:
            raise ConfigError(
                f"--batch-profile | {self.batch_profile} | expected 1 <= smallest <= tuned <= largest <= {MAX_BATCH}"
            )


def installed_flavour() -> str | None:
    """TensorRT where it is installed and there is a GPU to build on, else TensorRT-RTX, else None."""
    if torch.cuda.is_available() and _is_installed("tensorrt"):
        return "tensorrt"
    return "tensorrt_rtx" if _is_installed("tensorrt_rtx") else None


def _is_installed(module: str) -> bool:
    """As code: type stubs alone are a module without an origin."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def engine_from_onnx(
    model: bytes,
    flavour: str,
    *,
    precision: str = "fp32",
    options: EngineOptions = EngineOptions(),
) -> tuple[bytes, EngineStamp]:
    """A serialised engine and its stamp.

    Raises ModelError with the parser's or builder's own words, and where the layers are not of the stated precision.
    """
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = importlib.import_module(flavour)
    log = _collecting_logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        problems = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise ModelError(f"{flavour} | {problems} | an ONNX graph that it can parse | export with another flavour")
    convolutions = convolution_types(network, trt)
    check_precision(convolutions, precision)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_profile(builder, network.get_input(0), options.batch_profile))
    targets = _set_targets(trt, config, options.targets) if flavour == "tensorrt_rtx" else (_capability(),)
    plan = builder.build_serialized_network(network, config)
    if plan is None:  # the builder does not raise
        raise ModelError(f"{flavour} | {log.last_error or 'no engine and no reason'} | an engine | see rrtn doctor")
    stamp = EngineStamp(
        flavour=flavour,
        version=trt.__version__,
        targets=targets,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        driver=driver_version(),
        onnx_sha256=hashlib.sha256(model).hexdigest(),
        batch_profile=options.batch_profile,
        convolutions=dict(convolutions),
    )
    return bytes(plan), stamp


def convolution_types(network: Any, trt: Any) -> Counter[str]:
    """How many convolutions a parsed, strongly typed network computes in fp32, fp16, and int8 (a dequantised input).

    This is read before the build: to read it back from an engine (EngineInspector) takes a GPU that can load it.
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
    """Raises ModelError where an engine would not be what its name says."""
    wrong = convolutions.total() - convolutions[stated]
    if (stated == "fp32" and wrong) or convolutions[stated] < _SMALLEST_SHARE * convolutions.total():
        found = ", ".join(f"{count} in {name}" for name, count in convolutions.items())
        raise ModelError(f"{stated} engine | convolutions: {found} | expected {stated} | not published")


def _profile(builder: Any, graph_input: Any, batches: tuple[int, int, int]) -> Any:
    """The batch is dynamic within `batches`; the other dimensions are the graph's own."""
    profile = builder.create_optimization_profile()
    clip = tuple(graph_input.shape)[1:]
    profile.set_shape(graph_input.name, *((batch, *clip) for batch in batches))
    return profile


def _set_targets(trt: Any, config: Any, targets: tuple[int, ...]) -> tuple[int, ...]:
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        if not hasattr(trt.ComputeCapability, f"SM{target}"):
            raise ConfigError(
                f"--targets | {target} | this TensorRT-RTX builds for {', '.join(trt.ComputeCapability.__members__)}"
            )
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target}"), i)
    return targets


def _capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def _collecting_logger(trt: Any) -> Any:
    """TensorRT's words: errors are kept for the message, warnings are dropped. Derived from the flavour's own ILogger."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        last_error = ""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                Logger.last_error = message

    return Logger()
