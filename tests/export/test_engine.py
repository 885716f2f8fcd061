"""Real engines, built ahead of time by TensorRT-RTX on a machine without a GPU. Running them needs a GPU."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from rrtn.export.engine import PROFILE, RTX_TARGETS, engine_from_onnx
from rrtn.runtime.errors import ModelError

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
        "targets": RTX_TARGETS,
        "gpu": stamp.gpu,
        "driver": stamp.driver,
        "onnx_sha256": hashlib.sha256(model).hexdigest(),
        "batch_profile": PROFILE,
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
