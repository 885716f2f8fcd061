"""A graph with its 3x3 convolutions in fewer multiplications, and without the silence behind a recording.

Everything else stays: operators, names, outputs and metadata. Every stock ONNX Runtime runs it. Products of
int8 take an operator of ONNX Runtime's own, which its packages hold.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...runtime.arrays import Float32, Float64
from ...runtime.bundle.onnx_file import OF_ONNX_RUNTIME
from ..onnx_nodes import attributes_of, model_like, shapes_of
from ..silence import KnownRows, Reach, joints_of
from .bilinear import Axis, axes_for
from .conv_cost import Convolution, modelled_ms, work_of
from .slot_layout import Axes, Slots, SlotWriter, slot_rows

# Name of a convolution's weights -> how it is computed. Convolutions that it lacks stay direct.
WinogradPlan = Mapping[str, Axes]
Cost = Callable[[Convolution, Axes | None, int], float]
_DIMENSIONS: Final = 4  # of a map
_HARDLY: Final = 1.1  # times the time of the fastest way


def convolutions_of(model: onnx.ModelProto) -> list[Convolution]:
    """The convolutions that a plan may name: 3x3, padding 1, stride 1 or 2, in graph order."""
    shapes, constants = shapes_of(model), _constants(model)
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
    """Each algorithm for the height with each one for the width."""
    return [
        (height, width)
        for height in axes_for(layer.height, layer.stride)
        for width in axes_for(layer.width, layer.stride)
    ]


def plan_of(model: onnx.ModelProto, batch: int, cost: Cost = modelled_ms) -> WinogradPlan:
    """The fastest plan at `batch` clips a run; empty where nothing pays.

    Up to some convolution all are direct; from there on, each has its best algorithm. One change of
    layout is enough: maps shrink and channels grow with depth, so what pays once pays in all later
    layers.
    """
    layers = convolutions_of(model)
    direct = [cost(layer, None, batch) for layer in layers]
    best = [_best(layer, batch, cost) for layer in layers]
    totals = [sum(direct[:cut]) + sum(ms for ms, _ in best[cut:]) for cut in range(len(layers) + 1)]
    cut = int(np.argmin(totals))
    return {layer.name: axes for layer, (_, axes) in list(zip(layers, best, strict=True))[cut:]}


def with_plan(
    model: onnx.ModelProto,
    plan: WinogradPlan,
    scales: Mapping[str, Float64] | None = None,
    *,
    silence: float | None = None,
) -> onnx.ModelProto:
    """A new model: the planned convolutions are in slots, and so is what can be between them.

    With `scales` (the name of each one's weights -> [r]) their products are of int8. With `silence`, in dB,
    it takes log_mel [B, 1, t, M], 1 <= t <= T, behind which every value is `silence`; `model` takes all T
    frames. The rows that it knows are computed by itself, so that t changes no bit of a score.
    """
    tiles = {name: _tile(axes[0]) for name, axes in plan.items()}
    if silence is None or (joints := joints_of(model, tiles)) is None:
        return _rewritten(model, plan, scales).result()
    rewriting = _rewritten(model, plan, scales, KnownRows(joints, joints.blank_maps(model)))
    made = rewriting.result()
    rewriting.fill(made, joints.silent_maps(rewriting.result(joints.names[1:]), silence))
    frames = made.graph.input[0].type.tensor_type.shape.dim[2]
    frames.Clear()
    frames.dim_param = "frames"
    return made


def _tile(height: Axis) -> Reach:
    first, last = height.window[0], height.window[-1]
    return Reach(last - first + 1, height.outputs * height.stride, first - 1, height.outputs)


def with_transformed_samples(model: onnx.ModelProto, plan: WinogradPlan) -> tuple[bytes, dict[str, str]]:
    """`with_plan`, and the name of each convolution's weights -> an output [r, P B, C] of the new model."""
    rewriting = _rewritten(model, plan)
    made = rewriting.result()
    made.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in rewriting.writer.transformed
    )
    planned = [node.input[1] for node in model.graph.node if node.op_type == "Conv" and node.input[1] in plan]
    return made.SerializeToString(), dict(zip(planned, rewriting.writer.transformed, strict=True))


def _rewritten(
    model: onnx.ModelProto,
    plan: WinogradPlan,
    scales: Mapping[str, Float64] | None = None,
    rows: KnownRows | None = None,
) -> "_Rewriting":
    rewriting = _Rewriting(model, scales or {}, rows)
    for node in model.graph.node:
        rewriting.take(node, plan)
    return rewriting


def _best(layer: Convolution, batch: int, cost: Cost) -> tuple[float, Axes]:
    """The way with the least memory, among all that take hardly longer than the fastest."""
    timed = [(cost(layer, axes, batch), axes) for axes in ways_of(layer)]
    limit = _HARDLY * min(ms for ms, _ in timed)
    return min(
        (each for each in timed if each[0] <= limit), key=lambda each: work_of(layer, each[1], batch).memory
    )


class _Rewriting:
    """Rewrites node by node, and remembers which tensors are in slots."""

    def __init__(
        self, model: onnx.ModelProto, scales: Mapping[str, Float64], rows: KnownRows | None = None
    ) -> None:
        self.model, self.scales, self.rows = model, scales, rows
        self.shapes, self.constants = shapes_of(model), _constants(model)
        self.writer = SlotWriter()
        self.slots: dict[str, Slots] = {}
        self.maps: set[str] = set()  # the tensors in slots that are also there as a map
        self.whole: dict[str, str] = {}  # the maps that have known rows behind: their names with these
        self.known: dict[str, str] = {}  # of joints in slots: the names of their known rows
        if rows:
            self.writer.nodes += rows.opening()
            self._extend([model.graph.input[0].name])

    def take(self, node: onnx.NodeProto, plan: WinogradPlan) -> None:
        """Writes a node in slots where it is planned or between planned ones, else unchanged."""
        made = self._in_slots(node, plan)
        if made:
            self.slots[node.output[0]] = made
        else:
            self._leave(node.input)
            self.writer.nodes.append(self._of_whole_maps(node))
        self._extend(node.output)

    def result(self, others: Sequence[str] = ()) -> onnx.ModelProto:
        """The new model, with the constants that are still used; `others` are outputs, too."""
        self._leave([*(output.name for output in self.model.graph.output), *others])
        used = {name for node in self.writer.nodes for name in node.input}
        constants = [tensor for name, tensor in self.constants.items() if name in used]
        if self.rows:
            constants += self.rows.constants.values()
        made = model_like(
            self.model,
            self.writer.nodes,
            self.model.graph.input,
            [*self.model.graph.output, *(onnx.ValueInfoProto(name=name) for name in others)],
            [*constants, *self.writer.constants.values()],
        )
        if self.scales and all(opset.domain != OF_ONNX_RUNTIME for opset in made.opset_import):
            made.opset_import.append(helper.make_opsetid(OF_ONNX_RUNTIME, 1))
        made.metadata_props.extend(self.model.metadata_props)
        return made

    def fill(self, made: onnx.ModelProto, silent: Mapping[str, Any]) -> None:
        """Puts rows of silence (`Joints.silent_maps`) in the place of the known rows of `made`."""
        assert self.rows
        rows = {known: slot_rows(silent[name]) for name, known in self.known.items()}
        rows |= {known: silent[name] for name, known in self.rows.known.items()}
        for tensor in made.graph.initializer:
            if tensor.name in rows:
                tensor.CopyFrom(numpy_helper.from_array(rows[tensor.name], tensor.name))

    def _extend(self, names: Sequence[str]) -> None:
        """Puts the known rows behind those that are joints."""
        for name in names:
            if self.rows is None or name not in self.rows.silent:
                continue
            if name in self.slots:
                known = self.writer.known_rows(self.rows.silent[name])
                self.known[name] = known
                self.slots[name] = self.writer.extended(self.slots[name], *self.rows.bounds(name), known)
            else:
                self.writer.nodes += self.rows.behind(name)
                self.whole[name] = f"{name}_whole"

    def _of_whole_maps(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """The node, which reads maps with their known rows."""
        if not self.whole.keys() & set(node.input):
            return node
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[:] = [self.whole.get(name, name) for name in node.input]
        return made

    def _in_slots(self, node: onnx.NodeProto, plan: WinogradPlan) -> Slots | None:
        """The output in slots; None for a node that stays as it is."""
        if node.op_type == "Conv" and node.input[1] in plan:
            name = node.input[1]
            return self.writer.convolution(
                self._entered(node.input[0]), *self._weights(node), plan[name], self.scales.get(name)
            )
        if node.op_type == "Add":
            return self._sum_in_slots(node)
        if x := self.slots.get(node.input[0]):
            return self._follower_in_slots(node, x)
        return None

    def _sum_in_slots(self, node: onnx.NodeProto) -> Slots | None:
        """A sum of maps is in slots if one of them is."""
        if any(name in self.slots for name in node.input) and self._are_maps(node.input):
            return self.writer.sum(*(self._entered(name) for name in node.input))
        return None

    def _follower_in_slots(self, node: onnx.NodeProto, x: Slots) -> Slots | None:
        """A node whose input `x` is in slots."""
        if node.op_type == "Relu":
            return self.writer.relu(x)
        if node.op_type == "AveragePool" and _is_mean_of_four(node):
            return self.writer.mean_of_four(x)
        if node.op_type == "Conv":
            stride = _stride(node, self.constants[node.input[1]], size=1, padding=0)
            return self.writer.pointwise(x, *self._weights(node), stride) if stride else None
        return None

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
            self.slots[name] = self.writer.entered(self.whole.get(name, name), channels, height, width)
            self.maps.add(name)
        return self.slots[name]

    def _weights(self, node: onnx.NodeProto) -> tuple[Float32, Float32]:
        kernel = numpy_helper.to_array(self.constants[node.input[1]])
        if len(node.input) > 2:
            return kernel, numpy_helper.to_array(self.constants[node.input[2]])
        return kernel, np.zeros(len(kernel), np.float32)


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _stride(node: onnx.NodeProto, kernel: onnx.TensorProto, *, size: int, padding: int) -> int:
    """The stride of a plain convolution of that size and padding; 0 for any other convolution."""
    attributes = attributes_of(node)
    strides = list(attributes.get("strides", [1, 1]))
    plain = (
        list(kernel.dims[2:]) == [size, size]
        and attributes.get("group", 1) == 1
        and list(attributes.get("pads", [0] * 4)) == [padding] * 4
        and list(attributes.get("dilations", [1, 1])) == [1, 1]
        and strides[0] == strides[1]
    )
    return int(strides[0]) if plain else 0


def _is_mean_of_four(node: onnx.NodeProto) -> bool:
    attributes = attributes_of(node)
    return (
        attributes["kernel_shape"] == [2, 2]
        and attributes.get("strides") == [2, 2]
        and not any(attributes.get("pads", []))
        and not attributes.get("ceil_mode", 0)
    )
