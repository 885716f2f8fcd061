"""Graphs that do not compute the silence behind a recording: the scores of whole clips, from fewer rows."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from rrtn.export.winograd.rewriting import WinogradPlan, convolutions_of, ways_of, with_plan
from rrtn.runtime.backends.ort_session import session_from_bytes

Array = NDArray[Any]
SILENCE, FRAMES, MELS = -3.0, 45, 6


class Drawn:
    """A random network of the operators that rows go through."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: Array) -> str:
        self.constants.append(numpy_helper.from_array(value, f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def convolution(self, x: str, channels: int, filters: int, *, stride: int = 1, size: int = 3) -> str:
        kernel = self.rng.normal(0, 1 / size, (filters, channels, size, size)).astype(np.float32)
        given = [x, self.constant(kernel), self.constant(self.rng.normal(size=filters).astype(np.float32))]
        pads = [size // 2] * 4
        return self.add("Conv", given, kernel_shape=[size] * 2, strides=[stride] * 2, pads=pads)

    def block(self, x: str, channels: int) -> str:
        """A residual one."""
        y = self.add("Relu", [self.convolution(x, channels, channels)])
        return self.add("Relu", [self.add("Add", [self.convolution(y, channels, channels), x])])

    def model(self) -> onnx.ModelProto:
        """Three to six stages of any kind."""
        x, channels = self.convolution("log_mel", 1, 4, size=int(self.rng.choice([3, 7]))), 4
        for _ in range(self.rng.integers(3, 7)):
            match self.rng.choice(["stride", "max", "mean", "block", "turned", "same"]):
                case "stride":
                    x = self.add("Relu", [self.convolution(x, channels, channels + 2, stride=2)])
                    channels += 2
                case "max":
                    x = self.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
                case "mean":
                    x = self.add("AveragePool", [x], kernel_shape=[2, 1], strides=[2, 1])
                case "block":
                    x = self.block(x, channels)
                case "turned":
                    turned = self.add("Transpose", [x], perm=[0, 3, 2, 1])
                    x = self.add("Transpose", [turned], perm=[0, 3, 2, 1])
                case "same":
                    x = self.add("Relu", [self.convolution(x, channels, channels)])
        return self.with_head(x, channels)

    def with_head(self, x: str, channels: int) -> onnx.ModelProto:
        """The scores are sums in which each row has a weight of its own."""
        rows = self.add("ReduceMean", [x, self.constant(np.array([3]))], keepdims=0)
        count = self.add("Shape", [rows], start=2, end=3)
        weights = self.constant(np.arange(1, 99, dtype=np.float32) / 50)
        first = self.add("Slice", [weights, self.constant(np.array([0])), count])
        given = [self.add("Mul", [rows, first]), self.constant(np.array([2]))]
        self.nodes.append(helper.make_node("ReduceSum", given, ["scores"], keepdims=0))
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["batch", 1, FRAMES, MELS])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", channels])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def session_of(model: onnx.ModelProto) -> InferenceSession:
    return session_from_bytes(model.SerializeToString(), "test", "cpu", threads=1)


def run(session: InferenceSession, x: Array, *outputs: str) -> list[Array]:
    found: list[Array] = session.run(list(outputs) or ["scores"], {"log_mel": np.ascontiguousarray(x)})
    return found


def clips(sounding: int, count: int = 2) -> Array:
    x = np.full((count, 1, FRAMES, MELS), SILENCE, np.float32)
    x[:, :, :sounding] = np.random.default_rng(sounding).normal(size=(count, 1, sounding, MELS))
    return x


def drawn_plan(model: onnx.ModelProto, seed: int) -> WinogradPlan:
    """A way of some convolutions."""
    rng = np.random.default_rng(seed)
    ways = {layer.name: ways_of(layer) for layer in convolutions_of(model) if rng.random() < 0.8}
    return {name: of_layer[rng.integers(len(of_layer))] for name, of_layer in ways.items()}


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_scores_are_those_of_whole_clips_for_any_number_of_frames(seed: int, planned: bool) -> None:
    """To the last bit, whatever more silence is given, as to clips of a batch, and alone."""
    model = Drawn(seed).model()
    made = with_plan(model, drawn_plan(model, seed) if planned else {}, silence=SILENCE)
    onnx.checker.check_model(made)
    of_all, of_sound = session_of(model), session_of(made)
    for sounding in (*range(1, FRAMES, 4), FRAMES - 1, FRAMES):
        whole = clips(sounding)
        (expected,), (scores,) = run(of_all, whole), run(of_sound, whole[:, :, :sounding])
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
        for given in range(sounding, FRAMES + 1, 7):
            np.testing.assert_array_equal(run(of_sound, whole[:, :, :given])[0], scores)
            np.testing.assert_array_equal(run(of_sound, whole[:1, :, :given])[0], scores[:1])


@pytest.mark.parametrize("rows", [1, FRAMES])
def test_a_constant_with_a_row_for_each_frame_is_added_to_whole_clips(rows: int) -> None:
    drawn = Drawn(0)
    places = np.random.default_rng(0).normal(size=(1, 4, rows, 1)).astype(np.float32)
    x = drawn.add("Add", [drawn.convolution("log_mel", 1, 4), drawn.constant(places)])
    model = drawn.with_head(drawn.add("Relu", [drawn.convolution(x, 4, 4)]), 4)
    of_all, of_sound = session_of(model), session_of(with_plan(model, {}, silence=SILENCE))
    for sounding in (1, 20, FRAMES):
        whole = clips(sounding)
        (expected,), (scores,) = run(of_all, whole), run(of_sound, whole[:, :, :sounding])
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_the_rows_that_are_computed_follow_the_frames_with_sound() -> None:
    """9 frames reach 10, 11 and 12 rows of the first three maps and 7 of the pooled one, which reads 14.

    These are computed from 15, 16 and 17. The 7 reach 8 and 9, which are computed from 10 and 11.
    """
    drawn = Drawn(0)
    x = drawn.block(drawn.convolution("log_mel", 1, 4), 4)
    x = drawn.block(drawn.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 4)
    made = with_plan(drawn.with_head(x, 4), {}, silence=SILENCE)
    convolutions = [node.output[0] for node in made.graph.node if node.op_type == "Conv"]
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in convolutions)
    session = session_of(made)
    rows = [one.shape[2] for one in run(session, clips(9)[:, :, :9], *convolutions)]
    assert rows == [17, 17, 17, 11, 11]
    assert [one.shape[2] for one in run(session, clips(FRAMES), *convolutions)] == [45, 45, 45, 23, 23]


def test_there_is_no_joint_between_a_convolution_and_its_pooling() -> None:
    """ONNX Runtime would pool in another layout, which takes 40 times as long in int8."""
    drawn = Drawn(3)
    stem = drawn.convolution("log_mel", 1, 4, stride=2, size=7)
    pooled = drawn.add("MaxPool", [stem], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    made = with_plan(drawn.with_head(drawn.block(pooled, 4), 4), {}, silence=SILENCE)
    read = {name for node in made.graph.node for name in node.input}
    assert {stem, f"{pooled}_whole"} <= read
    assert f"{stem}_whole" not in read


@pytest.mark.parametrize("stranger", ["dilated", "turned", "softmax"])
def test_from_an_operator_on_that_mixes_rows_otherwise_all_are_computed(stranger: str) -> None:
    drawn = Drawn(1)
    x = drawn.block(drawn.convolution("log_mel", 1, 4), 4)
    match stranger:
        case "dilated":
            kernel = drawn.constant(drawn.rng.normal(size=(4, 4, 3, 3)).astype(np.float32))
            x = drawn.add("Conv", [x, kernel], kernel_shape=[3, 3], dilations=[2, 2], pads=[2] * 4)
        case "turned":
            x = drawn.add("Transpose", [x], perm=[0, 1, 3, 2])
        case "softmax":
            x = drawn.add("Softmax", [x], axis=2)
    model = drawn.with_head(x, 4)
    of_all, of_sound = session_of(model), session_of(with_plan(model, {}, silence=SILENCE))
    for sounding in (1, 20, FRAMES):
        whole = clips(sounding)
        np.testing.assert_allclose(run(of_sound, whole[:, :, :sounding])[0], run(of_all, whole)[0], rtol=1e-5)


def test_a_network_that_mixes_rows_at_once_stays_as_it_is() -> None:
    drawn = Drawn(2)
    model = drawn.with_head(drawn.add("Softmax", ["log_mel"], axis=2), 1)
    assert with_plan(model, {}, silence=SILENCE).graph.node == model.graph.node
