"""The fp32 graph as two int8 graphs, quantised after training with calibration clips.

Both are QDQ graphs: QuantizeLinear and DequantizeLinear around float operators, which ONNX Runtime
and TensorRT fuse into int8 ones. The trunk is quantised: the encoder from its first convolution to
its last one. The frontend, bn0 and the head stay float, and so may the first convolution. n clips, D
embedding, K targets.
"""

import itertools
import json
import math
import tempfile
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from ..runtime.arrays import Float32, Float64
from ..runtime.backends.ort_session import session_from_bytes
from ..runtime.bundle import METADATA_KEY
from ..runtime.errors import ModelError
from .graph import file_from_onnx
from .onnx_nodes import attributes_of, shapes_of

_BATCH: Final = 8  # clips whose activations calibration holds in memory


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """What a runtime wants to be quantised, and how."""

    activations: Any
    operators: tuple[str, ...]
    reduce_range: bool = False  # weights in 7 bits
    first_conv_weights: float = 0  # a channel: a first convolution with no more stays float
    means_as_convolutions: bool = False
    options: dict[str, Any] = field(default_factory=dict)


# Every operator of the trunk, so that int8 goes from convolution to convolution; a ReLU goes into
# the range before it. On x86 without VNNI, two products u8 * s8 are added in 16 bits, which
# saturate: 2 * 255 * 127 > 32767. Weights in 7 bits cannot (2 * 255 * 64 = 32640), so that every
# CPU gives the same scores.
# The first convolution of CNN10 and CNN14 has 9 weights a channel. Their rounding does not average out,
# and made 14 times the error of all other layers (CNN10 on emodb: rms of the scores 0.0160, and 0.0011
# without). In float it takes no longer. That of ResNet18, with 49, is no worse than other layers; in float,
# ONNX Runtime would take 1.8 times as long for the whole.
_CPU: Final = _Recipe(
    activations=QuantType.QUInt8,
    operators=("Conv", "Relu", "Add", "MaxPool", "AveragePool"),
    reduce_range=True,
    first_conv_weights=15,
    means_as_convolutions=True,
)
# TensorRT takes neither a zero point nor an int32 bias behind DequantizeLinear, and wants no Q/DQ
# behind a convolution.
_TENSORRT: Final = _Recipe(
    activations=QuantType.QInt8,
    operators=("Conv",),
    first_conv_weights=math.inf,
    options={
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "QDQDisableWeightAdjustForInt32Bias": True,
        "OpTypesToExcludeOutputQuantization": ["Conv"],
    },
)


def int8_for_cpu(model: bytes, calibration: Float32) -> bytes:
    """u8 activations and 7-bit weights per channel: what ONNX Runtime runs fast on CPUs.

    `model` comes from `onnx_from_network`. `calibration` are about 128 training clips, in the form
    of the graph's input: log-mels [n, 1, T, M] or waveforms [n, N]. Raises ModelError where the
    encoder has no convolution to quantise.
    """
    return _int8_from_onnx(model, calibration, _CPU)


def int8_for_tensorrt(model: bytes, calibration: Float32) -> bytes:
    """s8 activations and weights per channel, no zero points, float biases: what TensorRT parses.

    The arguments are those of `int8_for_cpu`. On a CPU it is hardly faster than fp32.
    """
    return _int8_from_onnx(model, calibration, _TENSORRT)


def _int8_from_onnx(model: bytes, calibration: Float32, recipe: _Recipe) -> bytes:
    fp32 = onnx.load_from_string(model)
    int8 = _quantised(fp32, calibration, recipe)
    correct_head(int8, fp32, calibration)
    return file_from_onnx(int8, _int8_metadata(fp32))


def quantised_before(fp32: ModelProto, kernels: Container[str], calibration: Float32) -> ModelProto:
    """The trunk before the first convolution with one of these weights as `int8_for_cpu` makes it.

    All else stays. `fp32` itself, where no convolution lies before it that is quantised.
    """
    stop = next(i for i, node in enumerate(fp32.graph.node) if any(name in kernels for name in node.input))
    before = {node.name: node.op_type for node in fp32.graph.node[:stop]}
    nodes = [name for name in _nodes_to_quantise(fp32, _CPU) if name in before]
    if all(before[name] != "Conv" for name in nodes):
        return fp32
    return _with_quantised(fp32, nodes, calibration, _CPU)


def _quantised(fp32: ModelProto, calibration: Float32, recipe: _Recipe) -> ModelProto:
    return _with_quantised(fp32, _nodes_to_quantise(fp32, recipe), calibration, recipe)


def _with_quantised(fp32: ModelProto, nodes: list[str], calibration: Float32, recipe: _Recipe) -> ModelProto:
    """The ranges are minima and maxima: clipping at a percentile made the largest errors larger."""
    prepared = _with_means_as_convolutions(fp32, nodes) if recipe.means_as_convolutions else _copy(fp32)
    add_pre_process_metadata(prepared)  # otherwise the quantiser logs a warning, through the root logger
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(prepared, source)
        del prepared
        quantize_static(
            source,
            target,
            _Clips(fp32.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            activation_type=recipe.activations,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(recipe.operators),
            nodes_to_quantize=nodes,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=recipe.options,
        )
        return onnx.load_model(target)


def _with_means_as_convolutions(model: ModelProto, names: list[str]) -> ModelProto:
    """The average poolings among `names` as depthwise convolutions, under their names.

    ONNX Runtime takes 8 times as long for its QLinearAveragePool: a tenth of the time of CNN14.
    """
    made, shapes = _copy(model), shapes_of(model)
    for node in made.graph.node:
        channels = (shapes.get(node.input[0]) or [0, 0])[1] if node.op_type == "AveragePool" else 0
        given = attributes_of(node)
        if not channels or node.name not in names or given.get("ceil_mode") or any(given.get("pads", [])):
            continue
        size = given["kernel_shape"]
        weights = np.full((channels, 1, *size), 1 / np.prod(size), np.float32)
        made.graph.initializer.append(numpy_helper.from_array(weights, f"{node.name}_mean"))
        node.op_type = "Conv"
        node.input.append(f"{node.name}_mean")
        del node.attribute[:]
        strides = given.get("strides", [1] * len(size))
        for name, value in (("kernel_shape", size), ("strides", strides), ("group", channels)):
            node.attribute.append(helper.make_attribute(name, value))
    return made


def _copy(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    return made


def _nodes_to_quantise(model: ModelProto, recipe: _Recipe) -> list[str]:
    """Names of the trunk's nodes that the recipe quantises.

    Raises ModelError where no convolution is among them: to the quantiser an empty list means every
    node of the graph.
    """
    trunk = _trunk(model)
    is_float = bool(trunk) and _weights_a_channel(model, trunk[0]) <= recipe.first_conv_weights
    chosen = [node for node in trunk[is_float:] if node.op_type in recipe.operators]
    if not any(node.op_type == "Conv" for node in chosen):
        raise ModelError(
            "int8",
            f"the encoder has {sum(node.op_type == 'Conv' for node in trunk)} two-dimensional convolutions",
            wanted=f"at least {2 if is_float else 1}",
            fix="export without --int8",
        )
    return [node.name for node in chosen]


def _weights_a_channel(model: ModelProto, convolution: NodeProto) -> float:
    """Weights for each output channel; infinite where they are computed."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    shape = shapes.get(convolution.input[1])
    return math.inf if shape is None else math.prod(shape[1:])


def _trunk(model: ModelProto) -> list[NodeProto]:
    """The nodes from the encoder's first convolution to its last one, and the operators right behind it.

    Empty where the encoder has no convolution.
    """
    nodes = list(model.graph.node)
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        return []
    begin, last = convolutions[0], convolutions[-1]
    behind = itertools.takewhile(lambda node: node.op_type in _CPU.operators, nodes[last + 1 :])
    return [*nodes[begin : last + 1], *behind]


class _Clips(CalibrationDataReader):  # type: ignore[misc]
    """The calibration clips in small batches."""

    def __init__(self, name: str, clips: Float32) -> None:
        self._batches: Iterator[dict[str, Float32]] = iter({name: batch} for batch in _batches(clips))

    def get_next(self) -> dict[str, Float32] | None:
        """The next batch; None at the end."""
        return next(self._batches, None)


def correct_head(int8: ModelProto, fp32: ModelProto, calibration: Float32) -> None:
    """Maps each target's int8 logit to the fp32 one, along the best line on the calibration clips.

    Besides noise, quantisation brings a shift and a stretch, and CCC sees both: z_k ~ s_k z8_k +
    t_k. The head is float, so the line costs nothing: w_k <- s_k w_k, b_k <- s_k b_k + t_k.
    """
    head = _head(int8)
    tensors = {tensor.name: tensor for tensor in int8.graph.initializer}
    weight = numpy_helper.to_array(tensors[head.input[1]]).astype(np.float64)  # [K, D]
    has_bias = len(head.input) == 3
    bias = numpy_helper.to_array(tensors[head.input[2]]).astype(np.float64) if has_bias else 0  # [K]
    z, z8 = (
        graph_outputs(_with_output(model, head.input[0]), head.input[0], calibration) @ weight.T + bias
        for model in (fp32, int8)
    )
    s, t = _lines(z8, z)
    del head.input[1:]  # the exporter may let other nodes share them
    for name, value in (("corrected_weight", s[:, None] * weight), ("corrected_bias", s * bias + t)):
        int8.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        head.input.append(name)
    _drop_unused(int8)


def _head(model: ModelProto) -> NodeProto:
    """The last Gemm: embedding [n, D] -> logits [n, K]."""
    head: NodeProto = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    attributes = attributes_of(head)
    assert attributes["transB"] == 1
    return head


def _lines(x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """Least squares y ~ s x + t of each column: [n, K] each -> s [K], t [K].

    A constant column is only shifted.
    """
    m_x, m_y = x.mean(0), y.mean(0)
    s_xx = np.square(x - m_x).mean(0)
    s_xy = ((x - m_x) * (y - m_y)).mean(0)
    s = np.where(s_xx > 0, s_xy / np.where(s_xx > 0, s_xx, 1), 1)
    return s, m_y - s * m_x


def _with_output(model: ModelProto, name: str) -> bytes:
    """The graph with one more output, [n, D]."""
    extended = _copy(model)
    extended.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]))
    return bytes(extended.SerializeToString())


def _drop_unused(model: ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _int8_metadata(fp32: ModelProto) -> dict[str, str]:
    document = next(entry.value for entry in fp32.metadata_props if entry.key == METADATA_KEY)
    return {METADATA_KEY: json.dumps(json.loads(document) | {"precision": "int8"})}


def graph_outputs(model: bytes, output: str, inputs: Float32) -> Float32:
    """One output [n, ...] of a graph on the CPU. inputs [n, ...] have the form of its input."""
    session = session_from_bytes(model, "int8", "cpu")
    name = session.get_inputs()[0].name
    return np.concatenate([session.run([output], {name: batch})[0] for batch in _batches(inputs)])


def _batches(clips: Float32) -> Iterator[Float32]:
    return (clips[i : i + _BATCH] for i in range(0, len(clips), _BATCH))
