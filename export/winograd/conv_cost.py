"""What a 3x3 convolution costs on a CPU, directly and by fewer multiplications: counted, or measured.

The count has the operations and bytes of each step, divided by the rates below. Only the ratios of
the results matter.
"""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...runtime.backends.ort_session import session_from_bytes
from ...runtime.system.cpus import has_vnni
from .bilinear import output_size
from .slot_layout import Axes, SlotWriter

# GFLOP/s and GB/s of one core of an AMD EPYC with AVX-512, ONNX Runtime 1.31: fitted to measured_ms
# (docs/benchmarks.md).
_DIRECT: Final = 205.0  # ONNX Runtime's own convolution, while the weights stay in a cache ...
_STREAM: Final = 14.0  # ... and where they do not: their bytes are read again for each clip
_GATHER: Final = 10.0
_FROM_SAMPLES: Final = 90.0
_PRODUCTS: Final = 185.0
_PACKING: Final = 12.0  # the weights of the products, once for each run
_TO_OUTPUTS: Final = 50.0
_ELEMENTWISE: Final = 7.0  # bias and ReLU
# In int8: how many times as fast, with the products of AVX-512 VNNI (measured on that core) and without.
_INT8_DIRECT: Final = {True: 3.85, False: 1.9}  # without: AMD EPYC with AVX2, all layers of a network
_INT8_PRODUCTS: Final = {True: 3.9, False: 2.2}  # without: the same, 256 to 2048 channels
_QUANTISING: Final = 25.0  # GB/s, of the floats that are read; and the copies of int8 take no longer
_JOINING: Final = 15.0  # the products of a tile are operators of their own
_TIMED_RUNS: Final = 5


@dataclass(frozen=True)
class Convolution:
    """3x3, padding 1, from a map C x H x W to K filters; `name` is the name of its weights."""

    name: str
    channels: int
    filters: int
    height: int
    width: int
    stride: int

    @property
    def outputs(self) -> tuple[int, int]:
        """Height and width of the output."""
        return output_size(self.height, self.stride), output_size(self.width, self.stride)

    @property
    def flops(self) -> int:
        """FLOPs of a clip, computed directly."""
        return 2 * 9 * self.channels * self.filters * math.prod(self.outputs)


@dataclass(frozen=True)
class ConvWork:
    """Floating-point operations and written bytes of a batch in slots, in the order of the steps."""

    gathered: int  # bytes
    from_samples: int  # operations
    transformed: int  # bytes
    weights: int  # bytes, read
    products: int  # operations
    multiplied: int  # bytes
    to_outputs: int  # operations
    outputs: int  # bytes

    @property
    def memory(self) -> int:
        """Bytes in use at once: the weights, and the two neighbouring steps with the largest sum."""
        steps = (self.gathered, self.transformed, self.multiplied, self.outputs)
        return self.weights + max(one + other for one, other in itertools.pairwise(steps))


def work_of(layer: Convolution, axes: Axes, batch: int) -> ConvWork:
    """Counts the work of a batch."""
    products, samples, outputs = (
        math.prod(sizes)
        for sizes in zip(*((axis.products, len(axis.window), axis.outputs) for axis in axes), strict=True)
    )
    tiles = batch * math.prod(
        -(-size // axis.outputs) for size, axis in zip(layer.outputs, axes, strict=True)
    )
    return ConvWork(
        gathered=4 * samples * tiles * layer.channels,
        from_samples=2 * products * samples * tiles * layer.channels,
        transformed=4 * products * tiles * layer.channels,
        weights=4 * products * layer.channels * layer.filters,
        products=2 * products * tiles * layer.channels * layer.filters,
        multiplied=4 * products * tiles * layer.filters,
        to_outputs=2 * (outputs + 1) * products * tiles * layer.filters,
        outputs=4 * (outputs + 1) * tiles * layer.filters,
    )


def modelled_ms(layer: Convolution, axes: Axes | None, batch: int) -> float:
    """Milliseconds on one core for a batch. axes None is ONNX Runtime's own convolution."""
    if axes is None:
        return _direct_ms(layer, batch, rate=_DIRECT, size=4)
    work = work_of(layer, axes, batch)
    return _transforms_ms(work) + (work.products / _PRODUCTS + work.weights / _PACKING) / 1e6


def modelled_int8_ms(layer: Convolution, axes: Axes | None, batch: int) -> float:
    """`modelled_ms` where the products are of int8, and the transforms float."""
    vnni = has_vnni()
    if axes is None:
        return _direct_ms(layer, batch, rate=_DIRECT * _INT8_DIRECT[vnni], size=1)
    work = work_of(layer, axes, batch)
    products = work.products / (_PRODUCTS * _INT8_PRODUCTS[vnni]) + work.weights / 4 / _PACKING
    around = work.transformed / _QUANTISING + work.multiplied / _JOINING
    return _transforms_ms(work) + (products + around) / 1e6


def _direct_ms(layer: Convolution, batch: int, *, rate: float, size: int) -> float:
    """`rate` in GFLOP/s, `size` of a weight in bytes."""
    weights = size * 9 * layer.channels * layer.filters
    return batch * max(layer.flops / rate, weights / _STREAM) / 1e6


def _transforms_ms(work: ConvWork) -> float:
    """All but the products: float in both."""
    return (
        work.gathered / _GATHER
        + work.from_samples / _FROM_SAMPLES
        + work.to_outputs / _TO_OUTPUTS
        + work.outputs / _ELEMENTWISE
    ) / 1e6


def measured_ms(layer: Convolution, axes: Axes | None, batch: int) -> float:
    """As `modelled_ms`, measured: the fastest of some runs of ONNX Runtime on one thread here."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((layer.filters, layer.channels, 3, 3), dtype=np.float32)
    bias = np.zeros(layer.filters, np.float32)
    writer = SlotWriter()
    if axes is None:
        shape: tuple[int, ...] = (batch, layer.channels, layer.height, layer.width)
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("batch", *shape[1:]))
        y = helper.make_tensor_value_info(
            "y", onnx.TensorProto.FLOAT, ("batch", layer.filters, *layer.outputs)
        )
        writer.nodes += [
            helper.make_node(
                "Conv", ["x", "kernel", "bias"], ["sum"], pads=[1] * 4, strides=[layer.stride] * 2
            ),
            helper.make_node("Relu", ["sum"], ["y"]),
        ]
        writer.constants = {
            name: numpy_helper.from_array(a, name) for name, a in (("kernel", kernel), ("bias", bias))
        }
    else:
        rows = writer.all_rows(layer.height)
        slots = writer.row_major("x", layer.channels, (layer.height, layer.width), rows)
        made = writer.relu(writer.convolution(slots, kernel, bias, axes))
        shape = (layer.height * layer.width + 1, batch, layer.channels)
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (shape[0], "batch", shape[2]))
        y = helper.make_tensor_value_info(
            made.name, onnx.TensorProto.FLOAT, ("slots", "batch", layer.filters)
        )
    graph = helper.make_graph(writer.nodes, "convolution", [x], [y], list(writer.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = session_from_bytes(model.SerializeToString(), layer.name, "cpu", threads=1)
    ones = np.ones(shape, np.float32)
    return min(thread_ms(lambda: session.run(None, {"x": ones})) for _ in range(_TIMED_RUNS + 1))


def thread_ms(run: Callable[[], object]) -> float:
    """The time of this thread alone, so that other work on the machine counts little."""
    begin = time.thread_time()
    run()
    return (time.thread_time() - begin) * 1e3
