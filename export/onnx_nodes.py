"""What a graph says of its nodes and tensors."""

from typing import Any

import onnx
from onnx import helper


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Those that are written out, by name; an optional one may be missing."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor but the constants; the batch and unknown sizes are 0."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    return {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim) for value in values
    }
