"""Graphs with fast convolutions, in ONNX Runtime, against float64 and against the graph that they
were made from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rrtn.export.winograd.bilinear import axes_for, pair, toom_cook
from rrtn.export.winograd.conv_cost import Convolution, measured_ms, modelled_ms, work_of
from rrtn.export.winograd.rewriting import convolutions_of, plan_of, ways_of, with_plan
from rrtn.export.winograd.slot_layout import Axes, SlotWriter
from rrtn.runtime.backends.ort_session import session_from_bytes

Array = NDArray[Any]
F44: Axes = (toom_cook(4), toom_cook(4))
SHAPE = (1, 21, 8)
# Each layer of the small network below, and an algorithm for it.
PLAN: dict[str, Axes] = {
    "w1": (toom_cook(2), toom_cook(4)),
    "w2": F44,
    "w3": (toom_cook(4), toom_cook(2)),
    "w4": F44,
    "w5": (axes_for(10, 2)[1], axes_for(4, 2)[0]),
    "w6": (toom_cook(2), pair()),
}


def run(model: onnx.ModelProto, **inputs: Array) -> Array:
    onnx.checker.check_model(model, full_check=True)
    outputs: list[Array] = session_from_bytes(model.SerializeToString(), "test", "cpu", threads=1).run(
        None, inputs
    )
    return outputs[0]


def model_of(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], shape: Sequence[Any], rank: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", *shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", *"abc"[: rank - 1]))],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture
def network() -> onnx.ModelProto:
    """Convolutions, pooling of an odd map, a residual block, one with stride 2 and a shortcut, a
    map used twice.
    """
    rng = np.random.default_rng(0)
    sizes = {
        "w1": (4, 1, 3, 3),
        "w2": (8, 4, 3, 3),
        "w3": (8, 8, 3, 3),
        "w4": (8, 8, 3, 3),
        "w5": (12, 8, 3, 3),
    }
    sizes |= {"w6": (12, 12, 3, 3), "short": (12, 8, 1, 1)}
    constants: dict[str, Array] = {name: _kernel(rng, size) for name, size in sizes.items()}
    constants |= {f"b{name}": rng.normal(size=size[0]).astype(np.float32) for name, size in sizes.items()}
    constants["axes"] = np.array([2, 3])

    def conv(name: str, x: str, y: str, stride: int = 1, pad: int = 1) -> onnx.NodeProto:
        return helper.make_node("Conv", [x, name, f"b{name}"], [y], pads=[pad] * 4, strides=[stride] * 2)

    nodes = [
        conv("w1", "x", "c1"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        conv("w2", "r1", "c2"),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("AveragePool", ["r2"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("w3", "pooled", "c3"),
        helper.make_node("Relu", ["c3"], ["r3"]),
        conv("w4", "r3", "c4"),
        helper.make_node("Add", ["c4", "pooled"], ["a4"]),
        helper.make_node("Relu", ["a4"], ["r4"]),
        conv("w5", "r4", "c5", stride=2),
        helper.make_node("Relu", ["c5"], ["r5"]),
        conv("w6", "r5", "c6"),
        conv("short", "r4", "s6", stride=2, pad=0),
        helper.make_node("Add", ["c6", "s6"], ["a6"]),
        helper.make_node("Relu", ["a6"], ["r6"]),
        helper.make_node("ReduceMean", ["r6", "axes"], ["mean6"], keepdims=0),
        helper.make_node("ReduceMax", ["r6", "axes"], ["max6"], keepdims=0),
        helper.make_node("Concat", ["mean6", "max6"], ["y"], axis=1),
    ]
    return model_of(nodes, constants, SHAPE, rank=2)


def _kernel(rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    return (rng.normal(size=size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(2, 2), (7, 2), (8, 2), (5, 6), (9, 4)])
def test_every_way_is_the_convolution(size: tuple[int, int], stride: int) -> None:
    """Odd and even maps, alone and in batches, with values of a larger size than any in a network."""
    rng = np.random.default_rng(0)
    kernel, bias = _kernel(rng, (5, 3, 3, 3)), rng.normal(size=5).astype(np.float32)
    layer = Convolution("w", 3, 5, *size, stride)
    for axes in ways_of(layer):
        writer = SlotWriter()
        entered = writer.entered("x", 3, *size)
        writer.leave(writer.convolution(entered, kernel, bias, axes), "y")
        fast = model_of(writer.nodes, {}, (3, *size), rank=4)
        fast.graph.initializer.extend(writer.constants.values())
        for batch in (1, 2, 7):
            x = rng.normal(size=(batch, 3, *size)).astype(np.float32)
            exact = torch.nn.functional.conv2d(
                torch.from_numpy(x).double(),
                torch.from_numpy(kernel).double(),
                torch.from_numpy(bias).double(),
                stride,
                1,
            )
            assert np.abs(run(fast, x=x) - exact.numpy()).max() < 2e-5, [axis.name for axis in axes]


@pytest.mark.parametrize("first", range(7))
def test_a_network_gives_the_same_from_whatever_layer_on(network: onnx.ModelProto, first: int) -> None:
    plan = dict(list(PLAN.items())[first:])
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)

    fast = with_plan(network, plan)

    assert run(fast, x=x) == pytest.approx(run(network, x=x), abs=1e-5)
    direct = [
        node.input[1] for node in fast.graph.node if node.op_type == "Conv" and node.input[1] != "short"
    ]
    assert direct == list(PLAN)[:first]
    assert not {tensor.name for tensor in fast.graph.initializer} & plan.keys()  # nothing is kept twice


def test_an_empty_plan_changes_nothing(network: onnx.ModelProto) -> None:
    same = with_plan(network, {})
    assert list(same.graph.node) == list(network.graph.node)
    assert {tensor.name for tensor in same.graph.initializer} == {
        tensor.name for tensor in network.graph.initializer
    }


def test_maps_between_planned_convolutions_stay_in_slots(network: onnx.ModelProto) -> None:
    """One way in, one way out: every other Transpose would be a copy. The shortcut makes its own zeros."""
    operators = [node.op_type for node in with_plan(network, PLAN).graph.node]
    assert (operators.count("Transpose"), operators.count("Pad"), operators.count("AveragePool")) == (3, 2, 0)


def test_a_clip_does_not_depend_on_its_batch(network: onnx.ModelProto) -> None:
    fast = with_plan(network, PLAN)
    x = np.random.default_rng(1).normal(size=(16, *SHAPE)).astype(np.float32)
    other = np.full_like(x, 100)
    other[5] = x[5]
    assert np.array_equal(run(fast, x=x)[5], run(fast, x=other)[5])
    assert run(fast, x=x[5:6])[0] == pytest.approx(run(fast, x=x)[5], abs=1e-5)


def test_only_plain_convolutions_may_be_planned(network: onnx.ModelProto) -> None:
    assert [(layer.name, layer.height, layer.width, layer.stride) for layer in convolutions_of(network)] == [
        ("w1", 21, 8, 1),
        ("w2", 21, 8, 1),
        ("w3", 10, 4, 1),
        ("w4", 10, 4, 1),
        ("w5", 10, 4, 2),
        ("w6", 5, 2, 1),
    ]
    for name, value in (("group", 2), ("dilations", [2, 2]), ("pads", [0, 1, 1, 1]), ("strides", [1, 2])):
        other = onnx.ModelProto()
        other.CopyFrom(network)
        node = next(node for node in other.graph.node if "w3" in node.input)
        del node.attribute[:]
        node.attribute.extend([helper.make_attribute(name, value)])
        del other.graph.value_info[:]
        if name == "group":  # its kernel would have half the channels
            next(tensor for tensor in other.graph.initializer if tensor.name == "w3").CopyFrom(
                numpy_helper.from_array(np.zeros((8, 4, 3, 3), np.float32), "w3")
            )
        assert "w3" not in [layer.name for layer in convolutions_of(other)], name


def test_the_plan_is_the_cheapest_cut(network: onnx.ModelProto) -> None:
    """Up to w3 direct costs 1, from w4 on 10; in slots everything costs 4, with F(2) in both directions 3."""

    def cost(layer: Convolution, axes: Axes | None, batch: int) -> float:
        assert batch == 16
        if axes is None:
            return 1 if layer.name < "w4" else 10
        return 3 if axes[0].name == axes[1].name == "2" else 4

    plan = plan_of(network, 16, cost)
    assert list(plan) == ["w4", "w5", "w6"]
    assert [axis.name for axis in plan["w4"]] == ["2", "2"]
    assert plan_of(network, 16, lambda layer, axes, batch: 1 if axes is None else 2) == {}


def test_of_ways_that_take_the_same_time_the_smallest_in_memory_is_taken(network: onnx.ModelProto) -> None:
    plan = plan_of(network, 1, lambda layer, axes, batch: 10 if axes is None else 1)
    layers = {layer.name: layer for layer in convolutions_of(network)}
    assert plan.keys() == layers.keys()
    for name, axes in plan.items():
        memory = [work_of(layers[name], way, 1).memory for way in ways_of(layers[name])]
        assert work_of(layers[name], axes, 1).memory == min(memory)


def test_work_is_what_a_graph_does() -> None:
    """F(4x4, 3x3) of a 15 x 4 map, 2 clips: 4 tiles down, 1 across, each of 36 samples, 36
    products, 16 outputs and a zero.
    """
    work = work_of(Convolution("w", 512, 1024, 15, 4, 1), F44, 2)
    assert work.gathered == 36 * 8 * 512 * 4
    assert work.from_samples == 2 * 36 * 36 * 8 * 512
    assert work.products == 2 * 36 * 8 * 512 * 1024
    assert work.weights == 36 * 512 * 1024 * 4
    assert work.to_outputs == 2 * 17 * 36 * 8 * 1024
    assert work.outputs == 17 * 8 * 1024 * 4
    assert work.memory == work.weights + 36 * 8 * (512 + 1024) * 4


def test_fewer_multiplications_count_as_less_time_and_both_ways_can_be_measured() -> None:
    """Where direct convolution is bound by its weights. benchmarks/winograd.py --layers compares the two."""
    layer = Convolution("w", 512, 1024, 7, 2, 1)
    axes = (toom_cook(2), pair())
    counted = modelled_ms(layer, None, 16) / modelled_ms(layer, axes, 16)
    assert counted > 2
    assert measured_ms(layer, None, 1) > 0
    assert measured_ms(layer, axes, 1) > 0
