"""Feature maps as slots [S, B, C]: the layout between fast convolutions, and the operators on it.

The channels of a pixel are side by side, and the pixels are in the order in which they were made.
One slot holds zeros, which surround every map. One Gather along S is then the tiling, the padding
and the change of order, and every transform is one plain MatMul from the left.

B batch, C channels in, K filters, H x W map, S slots, r products, n samples of a window, m outputs
of a tile, P tiles.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ...runtime.arrays import Float32, Float64
from ...runtime.bundle.onnx_file import INT8_PRODUCT, OF_ONNX_RUNTIME
from .bilinear import Axis, output_size

Index = npt.NDArray[np.int64]
Axes = tuple[Axis, Axis]  # of the height and of the width
SAMPLE_STEPS: Final = 127  # on either side of zero
_MIDDLE: Final = 128
_WEIGHT_STEPS: Final = 63


@dataclass(frozen=True, eq=False)
class Slots:
    """A tensor [S, B, C] that holds a map [B, C, H, W]."""

    name: str
    channels: int
    where: Index  # [H, W] -> slot
    zero: int  # the slot of zeros
    count: int  # S; some slots may belong to no pixel

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, H and W."""
        height, width = self.where.shape
        return height, width

    def renamed(self, name: str) -> "Slots":
        """Another tensor with its pixels in the same order."""
        return Slots(name, self.channels, self.where, self.zero, self.count)


def row_major(name: str, channels: int, height: int, width: int) -> Slots:
    """Pixels row by row; the slot of zeros is the last."""
    pixels = height * width
    return Slots(name, channels, np.arange(pixels).reshape(height, width), pixels, pixels + 1)


class SlotWriter:
    """Writes nodes and constants of a graph.

    Each method takes the slots that it reads, and returns the slots that it makes.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.transformed: list[str] = []  # [r, P B, C]: the transformed samples of each convolution

    def convolution(
        self, x: Slots, kernel: Float32, bias: Float32, axes: Axes, scales: Float64 | None = None
    ) -> Slots:
        """kernel [K, C, 3, 3], bias [K], padding 1.

        One Gather, then MatMuls for the samples, the r products and the outputs. With `scales` [r] the
        products are of int8: a step of the transformed samples of each product is worth its scale.
        """
        height, width = axes
        filters, channels = kernel.shape[:2]
        rows, columns = (output_size(size, axis.stride) for size, axis in zip(x.size, axes, strict=True))
        down, across = -(-rows // height.outputs), -(-columns // width.outputs)
        tiles, samples = down * across, len(height.window) * len(width.window)
        products, outputs = height.products * width.products, height.outputs * width.outputs

        from_samples = np.kron(height.from_samples, width.from_samples)  # [r, n]
        of_tile = np.kron(height.to_outputs, width.to_outputs)
        to_outputs = np.vstack([of_tile, np.zeros(products)])  # [m + 1, r]: the last row makes the zeros
        from_kernel = np.kron(height.from_kernel, width.from_kernel)  # [r, taps]
        taps = kernel.transpose(2, 3, 1, 0).reshape(-1, channels * filters).astype(np.float64)
        weights = (from_kernel @ taps).reshape(products, channels, filters)
        if scales is not None:
            from_samples = from_samples / scales[:, None]  # so that a step is 1

        windows = self._constant("windows", _windows(x, axes, down, across))
        y = self._node("Gather", x.name, windows, axis=0)  # [n, P, B, C]
        y = self._reshaped(y, samples, -1)
        y = self._node("MatMul", self._constant("from_samples", _float32(from_samples)), y)
        y = self._reshaped(y, products, -1, channels)
        self.transformed.append(y)
        if scales is None:
            y = self._node("MatMul", y, self._constant("weights", _float32(weights)))
        else:
            y = self._int8_products(y, weights, scales, bias, _shares_of_ones(of_tile))
        y = self._reshaped(y, products, -1)
        y = self._node("MatMul", self._constant("to_outputs", _float32(to_outputs)), y)
        y = self._reshaped(y, outputs + 1, -1, filters)
        if scales is None:
            biases = np.vstack([np.tile(bias, (outputs, 1)), np.zeros(filters)])[:, None]  # [m + 1, 1, K]
            y = self._node("Add", y, self._constant("bias", _float32(biases)))
        y = self._reshaped(y, (outputs + 1) * tiles, -1, filters)
        row, column = np.arange(rows)[:, None], np.arange(columns)
        inside = row % height.outputs * width.outputs + column % width.outputs
        tile = row // height.outputs * across + column // width.outputs
        return Slots(y, filters, inside * tiles + tile, outputs * tiles, (outputs + 1) * tiles)

    def _int8_products(
        self, steps: str, weights: Float64, scales: Float64, bias: Float32, shares: Float64
    ) -> str:
        """steps [r, n, C] float, weights [r, C, K] -> products [r, n, K] float.

        They have `shares` [r] of the bias [K]. Each of the r is an operator of its own: ONNX Runtime packs
        weights once only for matrices. Weights have 7 bits and a scale for each filter, for the reason in
        `export/int8.py`.
        """
        middle = self._constant("middle", np.array(_MIDDLE, np.uint8))
        y = self._node("QuantizeLinear", steps, self._constant("one", np.array(1, np.float32)), middle)
        parts = [f"{y}_{i}" for i in range(len(weights))]
        self.nodes.append(
            helper.make_node("Split", [y], parts, axis=0, num_outputs=len(parts), name=f"{y}_split")
        )
        tops = np.maximum(np.abs(weights).max(1), np.finfo(np.float32).tiny) / _WEIGHT_STEPS  # [r, K]
        rounded = np.round(weights / tops[:, None]).astype(np.int8)
        outputs = []
        for i, part in enumerate(parts):
            of_filters = [
                self._constant("weights", rounded[i]),
                self._constant("scale", np.array(scales[i], np.float32)),
            ]
            of_filters += [self._constant("tops", _float32(tops[i])), middle]
            with_bias = ["", self._constant("bias", _float32(shares[i] * bias))] if shares[i] else []
            inputs = [part, *of_filters, *with_bias]
            outputs.append(self._node(INT8_PRODUCT, *inputs, domain=OF_ONNX_RUNTIME))
        return self._node("Concat", *outputs, axis=0)

    def pointwise(self, x: Slots, kernel: Float32, bias: Float32, stride: int) -> Slots:
        """A 1x1 convolution: kernel [K, C, 1, 1], bias [K], no padding."""
        filters = len(kernel)
        where = x.where[::stride, ::stride]
        biases = np.vstack([np.tile(bias, (where.size, 1)), np.zeros(filters)])[:, None]  # [S, 1, K]
        y = self._gathered(x, np.append(where, x.zero))
        y = self._node("MatMul", y, self._constant("weights", _float32(kernel[:, :, 0, 0].T)))
        y = self._node("Add", y, self._constant("bias", _float32(biases)))
        return row_major(y, filters, *where.shape)

    def mean_of_four(self, x: Slots) -> Slots:
        """Average pooling, 2x2 at stride 2. An odd row or column at the end is left out."""
        height, width = (size // 2 * 2 for size in x.size)
        corners = [np.append(x.where[i:height:2, j:width:2], x.zero) for i in (0, 1) for j in (0, 1)]
        y = self._gathered(x, np.stack(corners))  # [4, S, B, C]
        y = self._node(
            "MatMul", self._constant("quarters", np.full((1, 4), 0.25, np.float32)), self._reshaped(y, 4, -1)
        )
        y = self._reshaped(y, height // 2 * (width // 2) + 1, -1, x.channels)
        return row_major(y, x.channels, height // 2, width // 2)

    def relu(self, x: Slots) -> Slots:
        """The slot of zeros stays zero."""
        return x.renamed(self._node("Relu", x.name))

    def sum(self, x: Slots, other: Slots) -> Slots:
        """The sum, with its pixels in the order of x."""
        if x.count != other.count or x.zero != other.zero or not np.array_equal(x.where, other.where):
            order = np.full(x.count, other.zero)
            order[x.where] = other.where
            other = x.renamed(self._gathered(other, order))
        return x.renamed(self._node("Add", x.name, other.name))

    def entered(self, name: str, channels: int, height: int, width: int) -> Slots:
        """Slots from a map [B, C, H, W].

        There are two steps, because ONNX Runtime does the first one while it unpacks its own
        layout.
        """
        y = self._node("Transpose", name, perm=[0, 2, 3, 1])
        y = self._reshaped(y, -1, height * width, channels)
        y = self._node("Transpose", y, perm=[1, 0, 2])
        # all pads, because ONNX Runtime 1.31 gets the input `axes` wrong
        y = self._node("Pad", y, self._constant("pads", np.array([0, 0, 0, 1, 0, 0])))
        return row_major(y, channels, height, width)

    def leave(self, x: Slots, name: str) -> None:
        """Writes the map [B, C, H, W], under its own name."""
        y = self._gathered(x, x.where.reshape(-1))  # [H W, B, C]
        y = self._node("Transpose", y, perm=[1, 2, 0])
        shape = self._constant("shape", np.array([-1, x.channels, *x.size]))
        self.nodes.append(helper.make_node("Reshape", [y, shape], [name], name=f"leave_{name}"))

    def _gathered(self, x: Slots, order: Index) -> str:
        return self._node("Gather", x.name, self._constant("order", order), axis=0)

    def _reshaped(self, name: str, *shape: int) -> str:
        return self._node("Reshape", name, self._constant("shape", np.array(shape)))

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"slots_{len(self.nodes)}_{operator.lower()}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        name = f"slots_{len(self.constants)}_{name}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name


def _shares_of_ones(to_outputs: npt.NDArray[Any]) -> Float64:
    """[m, r] -> [r]: what is to be added to each product, so that 1 is added to each output."""
    shares: Float64 = np.linalg.lstsq(to_outputs, np.ones(len(to_outputs)))[0]
    return np.where(np.abs(shares) < np.finfo(np.float32).eps, 0, shares)


def _windows(x: Slots, axes: Axes, down: int, across: int) -> Index:
    """[n, P]: the slot of each sample of each tile; the slot of zeros beyond the edges of the map."""
    edged = np.pad(x.where, 1, constant_values=x.zero)
    rows = _samples(axes[0], down, x.size[0])  # [n of the height, tiles down]
    columns = _samples(axes[1], across, x.size[1])
    windows: Index = edged[rows[:, None, :, None], columns[None, :, None, :]]
    return windows.reshape(len(rows) * len(columns), down * across)


def _samples(axis: Axis, tiles: int, size: int) -> Index:
    """[n, tiles]: places on an axis that has one zero on either side.

    A place further out is a zero, too.
    """
    first = np.arange(tiles) * axis.outputs * axis.stride
    places: Index = np.minimum(first + np.array(axis.window)[:, None], size + 1)
    return places


def _float32(values: npt.NDArray[Any]) -> Float32:
    return values.astype(np.float32)


def slots_value(slots: Slots) -> onnx.ValueInfoProto:
    """The tensor as an input or output of a graph, for any batch."""
    return helper.make_tensor_value_info(
        slots.name, onnx.TensorProto.FLOAT, (slots.count, "batch", slots.channels)
    )
