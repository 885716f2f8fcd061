"""Convolutions of few taps by fewer multiplications: Toom-Cook (Winograd) algorithms.

An `Axis` computes m outputs of a one-dimensional convolution from a window of samples d with a
kernel g as

    y = A [(G g) * (B d)]                              (* is elementwise; r products in all)

Two axes, one for the height and one for the width, give the two-dimensional convolution by
Kronecker products (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks",
section 4.1, where these matrices are A^T, G and B^T). There are algorithms for any tile, for
strides 1 and 2. All are made in exact fractions and rounded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import lcm
from typing import Final

import numpy as np

from ...runtime.arrays import Float64

_Rows = list[list[Fraction]]
# The points besides infinity, by how many are needed. The largest error of F(4x4) in float32, of 128
# channels with outputs of unit variance, is 1.2e-5 with these five, 2.0e-5 with 0, 1, -1, 1/2, -2, and
# 5.0e-5 with 0, 1, -1, 2, -2; with products of int8 the error is 7, 10 and 15% of the outputs' deviation.
_THREE: Final = (Fraction(0), Fraction(1), Fraction(-1))
_FIVE: Final = (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))


@dataclass(frozen=True, eq=False)
class Axis:
    """The algorithm of one axis of a convolution: m outputs of a tile, r products, n samples."""

    name: str
    taps: int
    stride: int
    outputs: int  # m
    window: tuple[int, ...]  # [n] which samples it reads, from the tile's first one on, padding included
    from_kernel: Float64  # G [r, taps]
    from_samples: Float64  # B [r, n]
    to_outputs: Float64  # A [m, r]

    @property
    def products(self) -> int:
        """The number of products, r."""
        return len(self.from_kernel)


@cache
def toom_cook(outputs: int, taps: int = 3) -> Axis:
    """F(m, taps) at stride 1: m + taps - 1 products for m outputs; directly it would be m * taps.

    This is the transpose of polynomial multiplication by evaluation and interpolation at as many
    points, infinity among them.
    """
    products = outputs + taps - 1
    points = (_THREE if products - 1 <= len(_THREE) else _FIVE)[: products - 1]
    if len(points) < products - 1:
        raise ValueError(
            f"F({outputs}, {taps}) needs {products} points, at most {len(_FIVE) + 1} are allowed: "
            "each one adds rounding errors"
        )
    interpolation = [list(column) for column in zip(*_inverse(_evaluation(points, products)), strict=True)]
    kernel = _evaluation(points, taps)
    to_outputs = _evaluation(points, outputs)
    # denominators that are no power of 2 go to the kernel, which is rounded once
    for transform in (interpolation, to_outputs):
        for row, values in enumerate(transform):
            scale = _odd_denominator(values)
            transform[row] = [value * scale for value in values]
            kernel[row] = [value / scale for value in kernel[row]]
    return Axis(
        name=str(outputs),
        taps=taps,
        stride=1,
        outputs=outputs,
        window=tuple(range(products)),
        from_kernel=_floats(kernel),
        from_samples=_floats(interpolation),
        to_outputs=_floats(to_outputs).T,
    )


@cache
def strided(outputs: int) -> Axis:
    """3 taps at stride 2.

    Taps 0 and 2 are F(m, 2) on the even samples; tap 1 is one product for each output.
    """
    even = toom_cook(outputs, 2)
    products = even.products + outputs
    kernel, samples = np.zeros((products, 3)), np.zeros((products, 2 * outputs + 1))
    kernel[: even.products, [0, 2]], kernel[even.products :, 1] = even.from_kernel, 1
    samples[: even.products, ::2], samples[even.products :, 1::2] = even.from_samples, np.eye(outputs)
    return Axis(
        name=f"{outputs}/2",
        taps=3,
        stride=2,
        outputs=outputs,
        window=tuple(range(2 * outputs + 1)),
        from_kernel=kernel,
        from_samples=samples,
        to_outputs=np.hstack([even.to_outputs, np.eye(outputs)]),
    )


@cache
def pair() -> Axis:
    """A whole axis of 2 samples with a zero on either side: 3 products, where F(2, 3) needs 4.

    y_0 = g_1 d_0 + g_2 d_1 and y_1 = g_0 d_0 + g_1 d_1 share g_1 (d_0 + d_1).
    """
    return Axis(
        name="pair",
        taps=3,
        stride=1,
        outputs=2,
        window=(1, 2),
        from_kernel=np.array([[0.0, 1, 0], [0, -1, 1], [1, -1, 0]]),
        from_samples=np.array([[1.0, 1], [0, 1], [1, 0]]),
        to_outputs=np.array([[1.0, 1, 0], [1, 0, 1]]),
    )


def axes_for(size: int, stride: int) -> list[Axis]:
    """The algorithms for 3 taps, padding 1 and an axis of `size` samples.

    Tiles that would be mostly outside of the map are left out.
    """
    tiles = [m for m in (1, 2, 4) if m == 1 or m < 2 * output_size(size, stride)]
    if stride == 2:
        return [strided(m) for m in tiles]
    return [*(toom_cook(m) for m in tiles), *([pair()] if size == 2 else [])]


def output_size(size: int, stride: int) -> int:
    """The number of outputs of an axis of `size` samples, with 3 taps and padding 1."""
    return (size - 1) // stride + 1


def _evaluation(points: Sequence[Fraction], coefficients: int) -> _Rows:
    """The values of a polynomial at each point; at infinity, its leading coefficient."""
    finite = [[point**power for power in range(coefficients)] for point in points]
    return [*finite, [Fraction(0)] * (coefficients - 1) + [Fraction(1)]]


def _inverse(matrix: _Rows) -> _Rows:
    """The inverse matrix, by Gauss-Jordan elimination."""
    size = len(matrix)
    rows = [[*values, *(Fraction(int(i == j)) for j in range(size))] for i, values in enumerate(matrix)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for row in range(size):
            if row != column:
                rows[row] = [
                    value - rows[row][column] * own
                    for value, own in zip(rows[row], rows[column], strict=True)
                ]
    return [values[size:] for values in rows]


def _odd_denominator(values: Sequence[Fraction]) -> int:
    denominator = lcm(*(value.denominator for value in values))
    return denominator // (denominator & -denominator)


def _floats(rows: _Rows) -> Float64:
    return np.array([[float(value) for value in row] for row in rows])
