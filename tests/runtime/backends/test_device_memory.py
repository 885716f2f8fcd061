"""Widening of 16-bit samples: by the graph on a device, and by NumPy."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime.backends import device_memory
from rrtn.runtime.backends.device_memory import Widening, buffer_of
from rrtn.runtime.backends.model_batch import widened

EVERY_SAMPLE = np.arange(-32768, 32768, dtype=np.int16).reshape(2, -1)


def test_the_widening_graph_is_the_one_that_onnx_makes() -> None:
    values = {"pcm": TensorProto.INT16, "waveform": TensorProto.FLOAT}
    infos = [helper.make_tensor_value_info(name, kind, ["batch", "samples"]) for name, kind in values.items()]
    nodes = [
        helper.make_node("Cast", ["pcm"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["waveform"]),
    ]
    scale = numpy_helper.from_array(np.float32(1 / 32768), "scale")
    graph = helper.make_graph(nodes, "widening", infos[:1], infos[1:], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    assert onnx.load_from_string(device_memory._WIDENING) == model


def test_every_16_bit_sample_is_widened_alike_by_the_graph_and_by_numpy() -> None:
    assert widened(EVERY_SAMPLE).dtype == np.float32
    np.testing.assert_array_equal(widened(EVERY_SAMPLE), EVERY_SAMPLE / 32768)  # in float64
    widening = Widening("cpu")
    for batch in (EVERY_SAMPLE, EVERY_SAMPLE[:, ::-1], EVERY_SAMPLE[:1, :7]):
        target = buffer_of(batch.shape, np.float32, "cpu")
        widening.into(target, batch)
        np.testing.assert_array_equal(target.numpy(), widened(batch))
