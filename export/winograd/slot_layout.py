"""Feature maps as slots [S, B, C]: the layout between fast convolutions, and the operators on it.

The channels of a pixel are side by side, and the pixels are in the order in which they were made.
One slot holds zeros, which surround every map. One Gather along S is then the tiling, the padding
and the change of order, and every transform is one plain MatMul from the left.

A map may have its first rows alone, as many as a tensor of the graph says: where its pixels are is a tensor,
too, which the graph makes from constants.

B batch, C channels in, K filters, H x W map, h of its rows that are there, S slots, r products, n samples of
a window, m outputs of a tile, P tiles.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import helper

from ...runtime.arrays import Float32, Float64, Int64
from ...runtime.bundle.onnx_file import INT8_PRODUCT, OF_ONNX_RUNTIME
from .bilinear import Axis, output_size
from .graph_writer import GraphWriter

Axes = tuple[Axis, Axis]  # of the height and of the width
SAMPLE_STEPS: Final = 127  # on either side of zero
_MIDDLE: Final = 128
_WEIGHT_STEPS: Final = 63


@dataclass(frozen=True)
class Slots:
    """A tensor [S, B, C] that holds a map [B, C, H, W], or its first rows."""

    name: str
    channels: int
    size: tuple[int, int]  # H and W
    rows: str  # [1]: the name of h
    # [H W + 1] -> slot, the name of a tensor: the pixels row by row, and last the slot of zeros, which those
    # have that are not there. Where pixels are in the same order, it is the same tensor.
    where: str


class SlotWriter(GraphWriter):
    """Writes operators on slots.

    Each method takes the slots that it reads, and returns the slots that it makes.
    """

    def __init__(self) -> None:
        super().__init__()
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
        samples = len(height.window) * len(width.window)
        products, outputs = height.products * width.products, height.outputs * width.outputs
        there = self._divided_up(x.rows, height.stride)
        tiles = self._times(self._divided_up(there, height.outputs), across)

        from_samples = np.kron(height.from_samples, width.from_samples)  # [r, n]
        of_tile = np.kron(height.to_outputs, width.to_outputs)
        to_outputs = np.vstack([of_tile, np.zeros(products)])  # [m + 1, r]: the last row makes the zeros
        from_kernel = np.kron(height.from_kernel, width.from_kernel)  # [r, taps]
        taps = kernel.transpose(2, 3, 1, 0).reshape(-1, channels * filters).astype(np.float64)
        weights = (from_kernel @ taps).reshape(products, channels, filters)
        if scales is not None:
            from_samples = from_samples / scales[:, None]  # so that a step is 1

        windows = self._first_of_each("windows", _windows(x.size, axes, down, across), tiles)
        y = self._gathered(x, windows)  # [n, P, B, C]
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
        y = self._node("Reshape", y, self._sizes(self._batch(x), filters))
        row, column = np.arange(rows)[:, None], np.arange(columns)
        inside = row % height.outputs * width.outputs + column % width.outputs
        tile = row // height.outputs * across + column // width.outputs
        where = self._computed("Mul", self._number("inside", np.append(inside, outputs)), tiles)
        where = self._computed("Add", where, self._number("tile", np.append(tile, 0)))
        where = self._above(there, (rows, columns), where, self._times(tiles, outputs))
        return Slots(y, filters, (rows, columns), there, where)

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
        pixels = _pixels(x.size)[::stride, ::stride]
        rows = self._divided_up(x.rows, stride)
        places = self._number("pixels", pixels.reshape(-1))
        y = self._gathered(x, self._first(places, self._times(rows, len(pixels[0]))))  # [h W, B, C]
        y = self._node("MatMul", y, self._constant("weights", _float32(kernel[:, :, 0, 0].T)))
        y = self._node("Add", y, self._constant("bias", _float32(bias)))
        return self._with_zeros(y, len(kernel), pixels.shape, rows)

    def mean_of_four(self, x: Slots) -> Slots:
        """Average pooling, 2x2 at stride 2. An odd row or column at the end is left out."""
        height, width = (size // 2 * 2 for size in x.size)
        pixels = _pixels(x.size)
        corners = np.stack([pixels[i:height:2, j:width:2].reshape(-1) for i in (0, 1) for j in (0, 1)])
        rows = self._computed("Div", x.rows, self._number("stride", [2]))
        pooled = self._first_of_each("corners", corners, self._times(rows, width // 2))
        zeros = self._number("zeros", np.full((4, 1), x.size[0] * x.size[1]))
        y = self._gathered(x, self._computed("Concat", pooled, zeros, axis=1))  # [4, S, B, C]
        y = self._node(
            "MatMul", self._constant("quarters", np.full((1, 4), 0.25, np.float32)), self._reshaped(y, 4, -1)
        )
        y = self._node("Reshape", y, self._sizes(self._batch(x), x.channels))
        return self.row_major(y, x.channels, (height // 2, width // 2), rows)

    def relu(self, x: Slots) -> Slots:
        """The slot of zeros stays zero."""
        return replace(x, name=self._node("Relu", x.name))

    def sum(self, x: Slots, other: Slots) -> Slots:
        """The sum, with its pixels in the order of x."""
        if x.where != other.where:
            count = self._computed("Shape", x.name, start=0, end=1)
            order = self._computed("Expand", self._zero_of(other), count)
            order = self._computed("ScatterElements", order, x.where, other.where)
            other = replace(other, name=self._node("Gather", other.name, order, axis=0))
        return replace(x, name=self._node("Add", x.name, other.name))

    def entered(self, name: str, channels: int, height: int, width: int) -> Slots:
        """Slots from a map [B, C, h, W].

        There are two steps, because ONNX Runtime does the first one while it unpacks its own
        layout.
        """
        y = self._node("Transpose", name, perm=[0, 2, 3, 1])
        y = self._reshaped(y, 0, -1, channels)
        y = self._node("Transpose", y, perm=[1, 0, 2])
        return self._with_zeros(y, channels, (height, width), self._computed("Shape", name, start=2, end=3))

    def leave(self, x: Slots, name: str) -> None:
        """Writes the map [B, C, h, W], under its own name."""
        order = self._first(x.where, self._times(x.rows, x.size[1]))
        y = self._node("Gather", x.name, order, axis=0)  # [h W, B, C]
        y = self._node("Transpose", y, perm=[1, 2, 0])
        shape = self._constant("shape", np.array([0, x.channels, -1, x.size[1]]))
        self.nodes.append(helper.make_node("Reshape", [y, shape], [name], name=f"leave_{name}"))

    def known_rows(self, rows: Float32) -> str:
        """[1, C, H, W] -> the name of a constant, for `extended`."""
        return self._constant("known", slot_rows(rows))

    def extended(self, x: Slots, kept: str, wanted: str, known: str) -> Slots:
        """The first `kept` rows of x, and behind them those of `known`, `wanted` in all.

        `kept` and `wanted` are names of tensors [1].
        """
        height, width = x.size
        begin, end = (self._times(rows, width) for rows in (kept, wanted))
        rest = self._node("Slice", known, begin, end, self._number("axis", [0]))
        one = self._number("one", [1])
        rest = self._node("Expand", rest, self._computed("Concat", one, self._batch(x), one, axis=0))
        count = self._computed("Shape", x.name, start=0, end=1)
        behind = self._computed(
            "Add", self._number("order", np.arange(height * width + 1)), self._computed("Sub", count, begin)
        )
        where = self._above(wanted, x.size, behind, self._zero_of(x))
        where = self._above(kept, x.size, x.where, where)
        return replace(x, name=self._node("Concat", x.name, rest, axis=0), rows=wanted, where=where)

    def row_major(self, name: str, channels: int, size: tuple[int, int], rows: str) -> Slots:
        """Pixels row by row; the slot of zeros is the last."""
        order = self._number("order", np.arange(size[0] * size[1] + 1))
        return Slots(name, channels, size, rows, self._above(rows, size, order, self._times(rows, size[1])))

    def all_rows(self, rows: int) -> str:
        """-> the name of a tensor [1], of maps of which all rows are there."""
        return self._number("rows", [rows])

    def _with_zeros(self, name: str, channels: int, size: tuple[int, int], rows: str) -> Slots:
        """Slots from a tensor [h W, B, C]."""
        # all pads, because ONNX Runtime 1.31 gets the input `axes` wrong
        y = self._node("Pad", name, self._constant("pads", np.array([0, 0, 0, 1, 0, 0])))
        return self.row_major(y, channels, size, rows)

    def _gathered(self, x: Slots, pixels: str) -> str:
        """`pixels` are places in x.where; -> [their shape, B, C]."""
        return self._node("Gather", x.name, self._computed("Gather", x.where, pixels, axis=0), axis=0)

    def _above(self, rows: str, size: tuple[int, int], slots: str, others: str) -> str:
        """[H W + 1]: `slots` in the first rows, `others` below and at the end."""
        row = np.append(np.repeat(np.arange(size[0]), size[1]), size[0])
        return self._computed("Where", self._computed("Less", self._number("row", row), rows), slots, others)

    def _zero_of(self, x: Slots) -> str:
        return self._computed("Gather", x.where, self._number("last", [x.size[0] * x.size[1]]), axis=0)

    def _batch(self, x: Slots) -> str:
        return self._computed("Shape", x.name, start=1, end=2)

    def _sizes(self, batch: str, channels: int) -> str:
        """The shape of slots."""
        free, last = self._number("free", [-1]), self._number("channels", [channels])
        return self._computed("Concat", free, batch, last, axis=0)

    def _first(self, values: str, count: str) -> str:
        """The first `count` of a tensor's rows."""
        return self._computed("Slice", values, self._number("first", [0]), count)

    def _first_of_each(self, name: str, values: Int64, count: str) -> str:
        """The first `count` of each row of `values`, which are constants."""
        first, axis = self._number("first", [0]), self._number("axis", [1])
        return self._computed("Slice", self._number(name, values), first, count, axis)

    def _reshaped(self, name: str, *shape: int) -> str:
        return self._node("Reshape", name, self._constant("shape", np.array(shape)))


def _shares_of_ones(to_outputs: npt.NDArray[Any]) -> Float64:
    """[m, r] -> [r]: what is to be added to each product, so that 1 is added to each output."""
    shares: Float64 = np.linalg.lstsq(to_outputs, np.ones(len(to_outputs)))[0]
    return np.where(np.abs(shares) < np.finfo(np.float32).eps, 0, shares)


def _windows(size: tuple[int, int], axes: Axes, down: int, across: int) -> Int64:
    """[n, P]: the pixel of each sample of each tile, as a place in `Slots.where`."""
    height, width = size
    row = (_samples(axes[0], down) - 1)[:, None, :, None]
    column = (_samples(axes[1], across) - 1)[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    windows: Int64 = np.where(inside, row * width + column, height * width)
    return windows.reshape(-1, down * across)


def _samples(axis: Axis, tiles: int) -> Int64:
    """[n, tiles]: places on an axis that has one zero before it."""
    samples: Int64 = np.arange(tiles) * axis.outputs * axis.stride + np.array(axis.window)[:, None]
    return samples


def _pixels(size: tuple[int, int]) -> Int64:
    """[H, W]: places in `Slots.where`."""
    pixels: Int64 = np.arange(size[0] * size[1]).reshape(size)
    return pixels


def slot_rows(rows: Float32) -> Float32:
    """[1, C, H, W] -> [H W, 1, C]."""
    return _float32(rows[0].transpose(1, 2, 0).reshape(-1, 1, rows.shape[1]))


def _float32(values: npt.NDArray[Any]) -> Float32:
    return values.astype(np.float32)
