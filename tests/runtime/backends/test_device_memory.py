"""Widening of 16-bit samples: by the graph on a device, and by NumPy."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime.backends import device_memory
from rrtn.runtime.backends.device_memory import Device, DeviceBatch, Widening, buffer_of
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


def test_every_16_bit_sample_is_widened_alike_by_the_graph_and_by_numpy(prompt_device: Device) -> None:
    assert widened(EVERY_SAMPLE).dtype == np.float32
    np.testing.assert_array_equal(widened(EVERY_SAMPLE), EVERY_SAMPLE / 32768)  # in float64
    widening = Widening(prompt_device)
    for batch in (EVERY_SAMPLE, EVERY_SAMPLE[:, ::-1], EVERY_SAMPLE[:1, :7]):
        target, samples = buffer_of(batch.shape, np.float32, "cpu"), np.ascontiguousarray(batch)
        widening.into(target, samples.ctypes.data)
        np.testing.assert_array_equal(target.numpy(), widened(batch))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_clips_are_put_where_they_belong(prompt_device: Device, dtype: type) -> None:
    """Also from the middle of an array, and from one that is not contiguous."""
    clips = np.random.default_rng(0).integers(-9000, 9000, (12, 2, 3)).astype(dtype)
    batch = DeviceBatch(prompt_device, (6, 2, 3), np.dtype(dtype))
    batch.put(2, clips[4:6])
    batch.put(0, clips[::6])
    batch.put(4, clips[7:9])
    expected = clips[[0, 6, 4, 5, 7, 8]]
    np.testing.assert_array_equal(batch.clips.value.numpy(), expected)
    part = batch.clips[1:5][1:3]
    assert (len(part), part.shape) == (2, (2, 2, 3))
    np.testing.assert_array_equal(part.padded(5).value.numpy()[:2], expected[2:4])
    assert not part.padded(5).value.numpy()[2:].any()
    batch.clear(3)
    np.testing.assert_array_equal(batch.clips.value.numpy()[:3], expected[:3])
    assert not batch.clips.value.numpy()[3:].any()


def test_a_copy_from_the_host_is_waited_for_on_its_own_stream(host_device: Device, host_calls: Any) -> None:
    """The memory of the decoders is written to again, and no batch of the model is waited for."""
    clips = np.arange(8, dtype=np.int16).reshape(4, 2)
    batch = DeviceBatch(host_device, (4, 2), clips.dtype)
    batch.put(0, clips)
    clips[:] = 0
    assert batch.clips.value.numpy().tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert host_calls.log == ["copy 16 on 78", "wait for all of 78"]
