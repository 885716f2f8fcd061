"""What a graph says of its nodes and tensors."""

import math
from collections.abc import Iterable
from typing import Any, Final

import onnx
from onnx import helper

_FEW: Final = 1024  # elements: what shapes are computed from is smaller, and the weights are larger


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Those that are written out, by name; an optional one may be missing."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def model_like(
    model: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    constants: Iterable[onnx.TensorProto],
) -> onnx.ModelProto:
    """Another graph, of the versions of `model`. The weights are copied once, and by onnx.helper twice."""
    made = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    made.graph.name = model.graph.name
    made.graph.node.extend(nodes)
    made.graph.input.extend(inputs)
    made.graph.output.extend(outputs)
    made.graph.initializer.extend(constants)
    return made


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its larger constants as inputs of their shape: onnx copies all that it looks at."""
    graph = model.graph
    small = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _FEW]
    weights = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if math.prod(tensor.dims) > _FEW
    ]
    light = model_like(model, graph.node, [*graph.input, *weights], graph.output, small)
    light.graph.value_info.extend(graph.value_info)
    return light


def types_of(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """The type and the shape of every tensor but the constants, by name."""
    inferred = onnx.shape_inference.infer_shapes(without_weights(model)).graph
    constants = {tensor.name for tensor in model.graph.initializer}
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    return {value.name: value.type.tensor_type for value in values if value.name not in constants}


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor but the constants; the batch and unknown sizes are 0."""
    return {
        name: tuple(size.dim_value for size in found.shape.dim) for name, found in types_of(model).items()
    }
