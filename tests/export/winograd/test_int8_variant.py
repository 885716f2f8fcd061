"""Products of int8 in slots: against the same arithmetic in NumPy, and against the exact convolution."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rrtn.export.int8 import int8_for_cpu
from rrtn.export.winograd import cpu_variant, int8_variant
from rrtn.export.winograd.bilinear import axes_for, pair, toom_cook
from rrtn.export.winograd.conv_cost import Convolution, modelled_int8_ms
from rrtn.export.winograd.cpu_variant import NotFasterError
from rrtn.export.winograd.int8_variant import cpu_int8_variant_of, int8_with_plan, product_scales
from rrtn.export.winograd.rewriting import WinogradPlan, convolutions_of, with_plan
from rrtn.export.winograd.slot_layout import Axes, SlotWriter
from rrtn.runtime.backends.ort_session import session_from_bytes
from rrtn.runtime.bundle import METADATA_KEY

Array = NDArray[Any]
SILENCE = -100.0
F22, F44, F2_PAIR = (toom_cook(2), toom_cook(2)), (toom_cook(4), toom_cook(4)), (toom_cook(2), pair())
WAYS: list[Axes] = [F22, F44, (toom_cook(2), toom_cook(4)), (toom_cook(1), toom_cook(2)), F2_PAIR]
WAYS.append((axes_for(10, 2)[1], axes_for(10, 2)[0]))


def run(model: onnx.ModelProto, x: Array) -> Array:
    return run_all(model, x)[0]


def run_all(model: onnx.ModelProto, x: Array) -> list[Array]:
    session = session_from_bytes(model.SerializeToString(), "test", "cpu", threads=1)
    outputs: list[Array] = session.run(None, {session.get_inputs()[0].name: x})
    return outputs


def one_convolution(
    kernel: Array, bias: Array, axes: Axes, scales: Array, height: int, width: int
) -> onnx.ModelProto:
    """-> its graph, from slots x to a map y and the slot of zeros."""
    writer = SlotWriter()
    x = writer.row_major("x", kernel.shape[1], (height, width), writer.all_rows(height))
    y = writer.convolution(x, kernel, bias, axes, scales)
    writer.leave(y, "y")
    writer.nodes.append(helper.make_node("Gather", [y.where, "last"], ["zero"]))
    writer.nodes.append(helper.make_node("Gather", [y.name, "zero"], ["zeros"]))
    writer.constants["last"] = numpy_helper.from_array(np.array(y.size[0] * y.size[1]), "last")
    graph = helper.make_graph(
        writer.nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [height * width + 1, 1, kernel.shape[1]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "zeros")],
        list(writer.constants.values()),
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def by_numpy(x: Array, kernel: Array, bias: Array, axes: Axes, scales: Array) -> Array:
    """x [C, H, W] -> [K, rows, columns]: tile by tile, products of rounded samples and rounded kernels."""
    rows, columns = ((size - 1) // axis.stride + 1 for size, axis in zip(x.shape[1:], axes, strict=True))
    y = np.full((len(kernel), rows + 8, columns + 8), np.nan)
    edged = np.pad(x.astype(np.float64), ((0, 0), (1, 12), (1, 12)))
    u = np.einsum("ai,bj,kcij->abkc", axes[0].from_kernel, axes[1].from_kernel, kernel.astype(np.float64))
    u = u.reshape(-1, *u.shape[2:])  # [r, K, C]
    step = np.abs(u).max(2, keepdims=True) / 63
    u = np.round(u / step) * step
    for top in range(0, rows, axes[0].outputs):
        for left in range(0, columns, axes[1].outputs):
            window = edged[:, np.add(axes[0].window, top * axes[0].stride)]
            window = window[:, :, np.add(axes[1].window, left * axes[1].stride)]
            v = np.einsum("ai,bj,cij->abc", axes[0].from_samples, axes[1].from_samples, window)
            v = v.reshape(-1, len(x)) / scales[:, None]
            v = np.clip(np.round(v), -128, 127) * scales[:, None]
            products = np.einsum("rkc,rc->rk", u, v).reshape(axes[0].products, axes[1].products, -1)
            tile = np.einsum("ma,nb,abk->kmn", axes[0].to_outputs, axes[1].to_outputs, products)
            y[:, top : top + axes[0].outputs, left : left + axes[1].outputs] = tile
    return y[:, :rows, :columns] + bias[:, None, None]


@pytest.mark.parametrize("axes", WAYS, ids=lambda axes: f"{axes[0].name}x{axes[1].name}")
def test_products_are_those_of_rounded_samples_and_kernels(axes: Axes) -> None:
    rng = np.random.default_rng(0)
    height, width = (10, 2) if axes is F2_PAIR else (10, 7)
    x = rng.normal(size=(24, height, width)).astype(np.float32)
    kernel = rng.normal(size=(16, 24, 3, 3)).astype(np.float32)
    bias = (10 * rng.normal(size=16)).astype(np.float32)
    # so small that the largest samples are clipped
    scales = rng.uniform(0.01, 0.05, axes[0].products * axes[1].products)
    model = one_convolution(kernel, bias, axes, scales, height, width)

    slots = np.concatenate([x.reshape(24, -1).T, np.zeros((1, 24), np.float32)])[:, None]
    (made,), zeros = run_all(model, slots)

    expected = by_numpy(x, kernel, bias, axes, scales)
    # a sample in the middle of two steps may go to either side
    assert made == pytest.approx(expected, abs=0.02 * np.abs(expected).max())
    assert np.median(np.abs(made - expected)) < 1e-4
    assert zeros.shape[-1] == 16
    assert not zeros.any()


def test_no_pair_of_products_saturates_16_bits() -> None:
    """On processors without VNNI two products of u8 and s8 are added in 16 bits."""
    kernel = np.random.default_rng(0).normal(size=(8, 8, 3, 3)).astype(np.float32)
    model = one_convolution(kernel, np.zeros(8, np.float32), F44, np.ones(36), 8, 8)
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT8
    ]
    assert len(weights) == 36
    assert {int(np.abs(each).max()) for each in weights} == {63}
    assert 2 * 255 * 63 < 2**15


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """log_mel [B, 1, 24, 16] -> scores [B, 3]: four convolutions, poolings, a head."""
    rng = np.random.default_rng(0)
    sizes = {"w1": (16, 1), "w2": (32, 16), "w3": (64, 32), "w4": (64, 64)}
    constants = {
        name: (rng.normal(size=(*size, 3, 3)) / np.sqrt(4.5 * size[1])).astype(np.float32)
        for name, size in sizes.items()
    }
    constants |= {f"b{name}": rng.normal(size=size[0]).astype(np.float32) for name, size in sizes.items()}
    constants |= {"head": rng.normal(size=(3, 64)).astype(np.float32) / 8, "axes": np.array([2, 3])}
    constants |= {"zeros": np.zeros(3, np.float32)}
    nodes, x = [], "log_mel"
    for i in range(1, 5):
        nodes += [
            helper.make_node("Conv", [x, f"w{i}", f"bw{i}"], [f"c{i}"], pads=[1] * 4, name=f"conv{i}"),
            helper.make_node("Relu", [f"c{i}"], [x := f"r{i}"], name=f"relu{i}"),
        ]
        if i in (1, 3):
            nodes.append(
                helper.make_node(
                    "AveragePool", [x], [f"p{i}"], kernel_shape=[2, 2], strides=[2, 2], name=f"pool{i}"
                )
            )
            x = f"p{i}"
    nodes += [
        helper.make_node("ReduceMean", [x, "axes"], ["mean"], keepdims=0, name="mean"),
        helper.make_node("Gemm", ["mean", "head", "zeros"], ["scores"], transB=1, name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ("batch", 1, 24, 16))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 3))],
        [numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(made, {METADATA_KEY: "{}"})
    return made


@pytest.fixture(scope="module")
def clips() -> Array:
    """Soft and loud ones, mixed, so that their scores differ."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(40, 1, 24, 16)) * rng.uniform(0.3, 3, (40, 1, 1, 1))).astype(np.float32)


def planned(network: onnx.ModelProto, *names: str, axes: Axes = F44) -> WinogradPlan:
    return {layer.name: axes for layer in convolutions_of(network) if layer.name in names}


@pytest.mark.parametrize("names", [("w3", "w4"), ("w1", "w2", "w3", "w4")])
def test_scores_are_near_those_of_fp32_and_a_clip_has_no_batch_mates(
    network: onnx.ModelProto, clips: Array, names: tuple[str, ...]
) -> None:
    made = int8_with_plan(network, planned(network, *names, axes=F22), clips[:16])
    exact, scores = run(network, clips), run(made, clips)

    directly = onnx.load_from_string(int8_for_cpu(network.SerializeToString(), clips[:16]))
    error, of_int8 = (np.sqrt(np.square(one - exact).mean()) for one in (scores, run(directly, clips)))
    assert error < 3 * of_int8 < 0.1 * exact.std(0).max()  # that has its first convolution in float
    assert scores != pytest.approx(exact, abs=1e-6)  # otherwise nothing is of int8
    alone = np.concatenate([run(made, clip[None]) for clip in clips])
    np.testing.assert_array_equal(alone, scores)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 16 * len(names)
    assert "Conv" not in kinds or len(names) < 4


def test_its_part_before_the_first_planned_convolution_is_that_of_int8(
    network: onnx.ModelProto, clips: Array
) -> None:
    made = int8_with_plan(network, planned(network, "w4"), clips[:16])
    directly = [node for node in made.graph.node if node.op_type == "Conv"]
    # three convolutions, and two poolings: ONNX Runtime is slow with QLinearAveragePool
    assert sorted(node.name for node in directly) == ["conv1", "conv2", "conv3", "pool1", "pool3"]
    makers = {output: node.op_type for node in made.graph.node for output in node.output}
    quantised = {node.name for node in directly if makers.get(node.input[0]) == "DequantizeLinear"}
    assert quantised == {"conv2", "conv3", "pool1", "pool3"}  # the first has 9 weights a channel


def test_a_scale_for_each_product_has_the_least_error(network: onnx.ModelProto, clips: Array) -> None:
    plan = planned(network, "w3", "w4")
    scales = product_scales(network, plan, clips[:16])
    assert {name: len(each) for name, each in scales.items()} == {"w3": 36, "w4": 36}
    wide, narrow = ({name: factor * each for name, each in scales.items()} for factor in (3, 0.3))
    exact = run(network, clips)
    errors = [
        np.abs(run(with_plan(network, plan, each), clips) - exact).mean() for each in (scales, wide, narrow)
    ]
    assert errors[0] < min(errors[1:])


def test_an_outlier_is_clipped_where_that_costs_less_than_coarse_steps() -> None:
    many = np.append(np.linspace(0, 1, 40_000), 2)[None].astype(np.float32)
    assert int8_variant._least_error(many[0]) < 1.8 / 127
    assert int8_variant._least_error(many[0, :-1]) == pytest.approx(1 / 127, rel=0.05)
    assert int8_variant._least_error(np.zeros(4, np.float32)) > 0


def test_where_no_convolution_would_be_faster_all_are_direct_and_silence_is_not_computed(
    network: onnx.ModelProto, clips: Array
) -> None:
    content = network.SerializeToString()
    int8 = int8_for_cpu(content, clips[:8])
    made = cpu_int8_variant_of(content, int8, clips[:8], SILENCE, slower_too=True)
    assert made.plan["convolutions"] == {}
    assert made.measured["speedup_half_silent"] > 0
    assert {node.op_type for node in made.model.graph.node}.isdisjoint({"MatMulIntegerToFloat"})
    short = clips[:2].copy()
    short[:, :, 5:] = SILENCE
    expected = run(onnx.load_model_from_string(int8), short)
    np.testing.assert_array_equal(run(made.model, short[:, :, :5].copy()), expected)


def test_silence_behind_slots_changes_no_bit(
    network: onnx.ModelProto, clips: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_variant, "plan_of", lambda model, *_: planned(model, "w3", "w4"))
    content = network.SerializeToString()
    made = cpu_int8_variant_of(content, content, clips[:8], SILENCE, slower_too=True)
    assert "MatMulIntegerToFloat" in {node.op_type for node in made.model.graph.node}
    for sounding in (1, 5, 16, clips.shape[2]):
        short = clips[:4].copy()
        short[:, :, sounding:] = SILENCE
        given = np.ascontiguousarray(short[:, :, :sounding])
        np.testing.assert_array_equal(run(made.model, given), run(made.model, short))


def test_a_network_that_mixes_all_frames_at_once_is_measured_with_whole_clips(clips: Array) -> None:
    shape = [int(np.prod(clips.shape[1:])), 2]
    weights = numpy_helper.from_array(np.ones(shape, np.float32), "weights")
    nodes = [helper.make_node("Flatten", ["log_mel"], ["flat"])]
    nodes.append(helper.make_node("MatMul", ["flat", "weights"], ["scores"]))
    given = helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["batch", *clips.shape[1:]])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "flat", [given], [scores], [weights])
    opset = [helper.make_opsetid("", 18)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    made = cpu_int8_variant_of(content, content, clips[:8], SILENCE, slower_too=True)
    assert made.measured["speedup"] == pytest.approx(
        made.measured["speedup_half_silent"], abs=0.006
    )  # rounded


def test_where_it_is_hardly_faster_than_int8_none_is_made_unless_it_is_required(
    network: onnx.ModelProto, clips: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_variant, "_ENOUGH", 1000)
    monkeypatch.setattr(int8_variant, "plan_of", lambda model, *_: planned(model, "w3", "w4"))
    content = network.SerializeToString()
    with pytest.raises(
        NotFasterError, match=r"cpu-int8 \| \d+\.\d\d times as fast as int8 with .* on this machine"
    ):
        cpu_int8_variant_of(content, content, clips[:8], SILENCE)
    made = cpu_int8_variant_of(content, content, clips[:8], SILENCE, slower_too=True)
    assert made.plan["convolutions"] == {"w3": "4 x 4", "w4": "4 x 4"}
    assert made.measured["speedup"] < 1000


@pytest.mark.parametrize("vnni", [True, False])
def test_deep_layers_have_fewer_products_and_early_ones_are_direct(
    vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers of CNN14."""
    monkeypatch.setattr("rrtn.export.winograd.conv_cost.has_vnni", lambda: vnni)
    early = Convolution("early", channels=64, filters=64, height=250, width=64, stride=1)
    deep = Convolution("deep", channels=2048, filters=2048, height=7, width=2, stride=1)
    assert modelled_int8_ms(early, None, 16) < min(modelled_int8_ms(early, way, 16) for way in (F22, F44))
    assert modelled_int8_ms(deep, None, 16) > 1.5 * modelled_int8_ms(deep, F2_PAIR, 16)
