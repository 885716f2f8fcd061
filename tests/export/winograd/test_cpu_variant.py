"""When the variant for CPUs is made, and what the bundle says of it."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from rrtn.export.winograd import cpu_variant
from rrtn.export.winograd.conv_cost import Convolution
from rrtn.export.winograd.cpu_variant import NotFasterError, cpu_variant_of
from rrtn.export.winograd.slot_layout import Axes
from rrtn.runtime.backends.ort_session import session_from_bytes
from rrtn.runtime.system.cpus import cpu_model, vector_extension

SILENCE = -3.0


def model_with(channels: int, height: int, width: int, layers: int) -> bytes:
    """`layers` equal convolutions, and the mean of each map."""
    rng = np.random.default_rng(0)
    names = [f"layer{i}.weight" for i in range(layers)]
    kernels = {
        name: rng.normal(size=(channels, channels, 3, 3)).astype(np.float32) / channels for name in names
    }
    nodes, x = [], "log_mel"
    for i, name in enumerate(names):
        nodes.append(helper.make_node("Conv", [x, name], [x := f"y{i}"], pads=[1] * 4))
    nodes.append(helper.make_node("ReduceMean", [x, "axes"], ["scores"], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ("batch", channels, height, width))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", channels))],
        [numpy_helper.from_array(a, name) for name, a in [*kernels.items(), ("axes", np.array([2, 3]))]],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()


@pytest.fixture(scope="module")
def deep() -> bytes:
    """Maps of two columns: 3 products where there were 6."""
    return model_with(512, 8, 2, layers=2)


def test_it_gives_the_same_and_says_what_it_is(deep: bytes) -> None:
    made = cpu_variant_of(deep, SILENCE, slower_too=True)

    x = np.random.default_rng(1).normal(size=(3, 512, 8, 2)).astype(np.float32)
    scores = [
        session_from_bytes(content, "test", "cpu").run(None, {"log_mel": x})[0]
        for content in (deep, made.model.SerializeToString())
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert made.plan.keys() == {"batch", "vector_extension", "tuned", "convolutions"}
    assert made.measured.keys() == {"speedup", "speedup_half_silent", "cpu"}
    assert (made.measured["cpu"], made.plan["vector_extension"]) == (cpu_model(), vector_extension())
    assert list(made.plan["convolutions"].items()) == [("layer0", "2 x pair"), ("layer1", "2 x pair")]
    assert made.measured["speedup"] > 0


def test_where_no_convolution_would_be_faster_silence_alone_is_left_out() -> None:
    fp32 = model_with(4, 8, 8, layers=1)
    made = cpu_variant_of(fp32, SILENCE, slower_too=True)
    assert made.plan["convolutions"] == {}
    x = np.full((2, 4, 8, 8), SILENCE, np.float32)
    x[:, :, :3] = np.random.default_rng(0).normal(size=(2, 4, 3, 8))
    scores = [
        session_from_bytes(content, "test", "cpu").run(None, {"log_mel": np.ascontiguousarray(given)})[0]
        for content, given in ((fp32, x), (made.model.SerializeToString(), x[:, :, :3]))
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


def test_where_it_is_hardly_faster_none_is_made_unless_it_is_required(
    deep: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_variant, "_ENOUGH", 1000)
    monkeypatch.setattr(cpu_variant, "_HARDLY_SLOWER", 0.0)
    with pytest.raises(
        NotFasterError,
        match=r"cpu \| \d+\.\d\d times as fast as fp32 with clips of which half is silence on this machine "
        r"\| expected at least 1000 times",
    ):
        cpu_variant_of(deep, SILENCE)
    assert cpu_variant_of(deep, SILENCE, slower_too=True).measured["speedup"] < 1000
    monkeypatch.setattr(cpu_variant, "_ENOUGH", 0.0)
    monkeypatch.setattr(cpu_variant, "_HARDLY_SLOWER", 100.0)
    with pytest.raises(
        NotFasterError, match=r"with whole clips on this machine \| expected at least 100.0 times"
    ):
        cpu_variant_of(deep, SILENCE)


def test_tuning_measures_each_way_of_a_shape_once(deep: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def stopwatch(layer: Convolution, axes: Axes | None, batch: int) -> float:
        measured.append(" x ".join(axis.name for axis in axes) if axes else "direct")
        return {"direct": 10, "4 x 2": 1}.get(measured[-1], 5)

    monkeypatch.setattr(cpu_variant, "measured_ms", stopwatch)
    made = cpu_variant_of(deep, SILENCE, tune=True, slower_too=True)
    assert made.plan["convolutions"] == {"layer0": "4 x 2", "layer1": "4 x 2"}
    assert made.plan["tuned"]
    assert len(measured) == len(set(measured)) == 1 + 3 * 3  # heights 1, 2, 4; widths 1, 2, pair


def test_its_file_is_one_of_standard_operators_for_any_batch(deep: bytes) -> None:
    model = cpu_variant_of(deep, SILENCE, slower_too=True).model
    assert {node.domain for node in model.graph.node} == {""}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
