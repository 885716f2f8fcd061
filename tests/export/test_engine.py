"""Real engines, built ahead of time by TensorRT-RTX on a machine without a GPU. Running them needs a GPU."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rrtn.export.engine import EngineOptions, check_precision, engine_from_onnx
from rrtn.runtime.errors import ConfigError, ModelError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def test_an_engine_is_built_and_stamped(tiny_model: Path) -> None:
    import hashlib

    import tensorrt_rtx

    model = tiny_model.read_bytes()
    plan, stamp = engine_from_onnx(model, "tensorrt_rtx")
    assert plan.startswith(b"vtrt")
    assert stamp.to_dict() == {
        "flavour": "tensorrt_rtx",
        "version": tensorrt_rtx.__version__,
        "targets": EngineOptions().targets,
        "gpu": stamp.gpu,
        "driver": stamp.driver,
        "onnx_sha256": hashlib.sha256(model).hexdigest(),
        "batch_profile": EngineOptions().batch_profile,
        "convolutions": {},
    }


def _graph(node: onnx.NodeProto) -> bytes:
    """[batch, 4] through one node."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "scores")]
    graph = helper.make_graph([node], "one node", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.mark.parametrize(
    "make", [lambda: b"not a model", lambda: _graph(helper.make_node("Det", ["x"], ["scores"]))], ids=["bytes", "operator"]
)
def test_what_cannot_be_parsed_is_refused_with_the_parsers_words(make: Callable[[], bytes]) -> None:
    with pytest.raises(ModelError, match=r"tensorrt_rtx \| .+"):
        engine_from_onnx(make(), "tensorrt_rtx")


def _convolution(kind: int) -> bytes:
    """[batch, 4, 8, 8] in float32 -> one convolution of the given type -> float32."""
    weights = np.random.default_rng(0).normal(0, 0.1, (4, 4, 3, 3)).astype(np.float16 if kind == TensorProto.FLOAT16 else "f4")
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["b"], ["scores"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, 8, 8]) for name in ("x", "scores")]
    graph = helper.make_graph(nodes, "conv", values[:1], values[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def test_an_engine_says_in_which_precision_it_computes() -> None:
    options = EngineOptions(batch_profile=(1, 2, 4), targets=(86,))
    for kind, precision in ((TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16")):
        _, stamp = engine_from_onnx(_convolution(kind), "tensorrt_rtx", precision=precision, options=options)
        assert stamp.convolutions == {precision: 1}
        assert (stamp.targets, stamp.batch_profile) == ((86,), (1, 2, 4))


@pytest.mark.parametrize(
    ("kind", "stated"), [(TensorProto.FLOAT, "fp16"), (TensorProto.FLOAT16, "fp32"), (TensorProto.FLOAT, "int8")]
)
def test_an_engine_whose_layers_are_not_in_the_stated_precision_is_refused(kind: int, stated: str) -> None:
    with pytest.raises(ModelError, match=rf"{stated} engine \| convolutions: 1 in fp"):
        engine_from_onnx(_convolution(kind), "tensorrt_rtx", precision=stated)


def test_the_frontends_convolution_may_stay_in_float32() -> None:
    check_precision(Counter(fp16=20, fp32=1), "fp16")
    with pytest.raises(ModelError, match="not published"):
        check_precision(Counter(fp16=12, fp32=8), "fp16")
    with pytest.raises(ModelError, match="not published"):
        check_precision(Counter(fp16=1, fp32=20), "fp32")


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="--batch-profile"):
        EngineOptions(batch_profile=(8, 4, 16))
    with pytest.raises(ConfigError, match=r"--targets \| 71 \| this TensorRT-RTX builds for"):
        engine_from_onnx(_convolution(TensorProto.FLOAT), "tensorrt_rtx", options=EngineOptions(targets=(71,)))
