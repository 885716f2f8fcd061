"""The variant for CPUs: the fp32 graph with its 3x3 convolutions in fewer multiplications.

What stays, stays as it is: operators, names, outputs, metadata; and every stock ONNX Runtime runs it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...runtime.arrays import Float32
from .bilinear import axes_for
from .conv_cost import Convolution, modelled_ms, work_of
from .slot_layout import Axes, Slots, SlotWriter

WinogradPlan = Mapping[
    str, Axes
]  # a convolution's weights -> how it is computed; those that are not in it stay direct
Cost = Callable[[Convolution, Axes | None, int], float]
_DIMENSIONS: Final = 4  # of a map
_HARDLY: Final = 1.1  # times as long as the fastest


def convolutions_of(model: onnx.ModelProto) -> list[Convolution]:
    """Those that a plan may name: 3x3, padding 1, stride 1 or 2, in the order of the graph."""
    shapes, constants = _shapes(model), _constants(model)
    return [
        Convolution(
            node.input[1],
            channels=shape[1],
            filters=kernel.dims[0],
            height=shape[2],
            width=shape[3],
            stride=stride,
        )
        for node in model.graph.node
        if node.op_type == "Conv"
        and (shape := shapes.get(node.input[0]))
        and (kernel := constants[node.input[1]])
        and (stride := _stride(node, kernel, size=3, padding=1)) in (1, 2)
    ]


def ways_of(layer: Convolution) -> list[Axes]:
    """All algorithms for its height with all for its width."""
    return [
        (height, width)
        for height in axes_for(layer.height, layer.stride)
        for width in axes_for(layer.width, layer.stride)
    ]


def plan_of(model: onnx.ModelProto, batch: int, cost: Cost = modelled_ms) -> WinogradPlan:
    """The fastest way at `batch` clips a run: direct up to some convolution, and from there each with
    its best algorithm.

    (One change of layout: maps shrink and channels grow with depth, so what pays once pays in all
    that follows.) Empty where nothing pays.
    """
    layers = convolutions_of(model)
    direct = [cost(layer, None, batch) for layer in layers]
    best = [_best(layer, batch, cost) for layer in layers]
    totals = [sum(direct[:cut]) + sum(ms for ms, _ in best[cut:]) for cut in range(len(layers) + 1)]
    cut = int(np.argmin(totals))
    return {layer.name: axes for layer, (_, axes) in list(zip(layers, best, strict=True))[cut:]}


def with_plan(model: onnx.ModelProto, plan: WinogradPlan) -> onnx.ModelProto:
    """Another model with the planned convolutions, and all between them that can be, in slots."""
    rewriting = _Rewriting(model)
    for node in model.graph.node:
        rewriting.take(node, plan)
    return rewriting.result()


def _best(layer: Convolution, batch: int, cost: Cost) -> tuple[float, Axes]:
    """The smallest in memory of all that take hardly longer than the fastest."""
    timed = [(cost(layer, axes, batch), axes) for axes in ways_of(layer)]
    limit = _HARDLY * min(ms for ms, _ in timed)
    return min(
        (each for each in timed if each[0] <= limit), key=lambda each: work_of(layer, each[1], batch).memory
    )


class _Rewriting:
    """Node by node, with a record of which tensors are in slots."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.shapes, self.constants = _shapes(model), _constants(model)
        self.writer = SlotWriter()
        self.slots: dict[str, Slots] = {}
        self.maps: set[str] = set()  # of those in slots, which were also written as a map

    def take(self, node: onnx.NodeProto, plan: WinogradPlan) -> None:
        """Writes it in slots where it is planned or lies between what is, else as it was."""
        made = self._in_slots(node, plan)
        if made:
            self.slots[node.output[0]] = made
            return
        self._leave(node.input)
        self.writer.nodes.append(node)

    def result(self) -> onnx.ModelProto:
        """With the constants that are still used."""
        self._leave([output.name for output in self.model.graph.output])
        used = {name for node in self.writer.nodes for name in node.input}
        constants = [tensor for name, tensor in self.constants.items() if name in used]
        graph = helper.make_graph(
            self.writer.nodes,
            self.model.graph.name,
            self.model.graph.input,
            self.model.graph.output,
            [*constants, *self.writer.constants.values()],
        )
        made = helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )
        made.metadata_props.extend(self.model.metadata_props)
        return made

    def _in_slots(self, node: onnx.NodeProto, plan: WinogradPlan) -> Slots | None:
        """None for what is to stay as it is."""
        if node.op_type == "Conv" and node.input[1] in plan:
            return self.writer.convolution(
                self._entered(node.input[0]), *self._weights(node), plan[node.input[1]]
            )
        made, x = None, self.slots.get(node.input[0])
        if (
            node.op_type == "Add"
            and any(name in self.slots for name in node.input)
            and self._are_maps(node.input)
        ):
            made = self.writer.sum(*(self._entered(name) for name in node.input))
        elif x and node.op_type == "Relu":
            made = self.writer.relu(x)
        elif x and node.op_type == "AveragePool" and _is_mean_of_four(node):
            made = self.writer.mean_of_four(x)
        elif (
            x
            and node.op_type == "Conv"
            and (stride := _stride(node, self.constants[node.input[1]], size=1, padding=0))
        ):
            made = self.writer.pointwise(x, *self._weights(node), stride)
        return made

    def _leave(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.slots and name not in self.maps:
                self.writer.leave(self.slots[name], name)
                self.maps.add(name)

    def _are_maps(self, names: Sequence[str]) -> bool:
        return all(len(self.shapes.get(name, ())) == _DIMENSIONS for name in names)

    def _entered(self, name: str) -> Slots:
        if name not in self.slots:
            _, channels, height, width = self.shapes[name]
            self.slots[name] = self.writer.entered(name, channels, height, width)
            self.maps.add(name)
        return self.slots[name]

    def _weights(self, node: onnx.NodeProto) -> tuple[Float32, Float32]:
        kernel = numpy_helper.to_array(self.constants[node.input[1]])
        bias = (
            numpy_helper.to_array(self.constants[node.input[2]])
            if len(node.input) > 2
            else np.zeros(len(kernel), np.float32)
        )
        return kernel, bias


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of every tensor with known sizes but for the batch, which is 0 here."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    return {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim) for value in values
    }


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _stride(node: onnx.NodeProto, kernel: onnx.TensorProto, *, size: int, padding: int) -> int:
    """Of a plain convolution of that size and padding; 0 for any other."""
    attributes = _attributes(node)
    strides = list(attributes.get("strides", [1, 1]))  # type: ignore[call-overload]
    plain = (
        list(kernel.dims[2:]) == [size, size]
        and attributes.get("group", 1) == 1
        and list(attributes.get("pads", [0] * 4)) == [padding] * 4  # type: ignore[call-overload]
        and list(attributes.get("dilations", [1, 1])) == [1, 1]  # type: ignore[call-overload]
        and strides[0] == strides[1]
    )
    return int(strides[0]) if plain else 0


def _is_mean_of_four(node: onnx.NodeProto) -> bool:
    attributes = _attributes(node)
    return (
        attributes["kernel_shape"] == [2, 2]
        and attributes.get("strides") == [2, 2]
        and not any(attributes.get("pads", []))  # type: ignore[arg-type]
        and not attributes.get("ceil_mode", 0)
    )
