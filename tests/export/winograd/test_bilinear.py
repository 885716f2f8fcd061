"""Fast convolution algorithms of one axis, against the sums that they stand for."""

from fractions import Fraction

import numpy as np
import pytest
from rrtn.export.winograd.bilinear import Axis, axes_for, pair, strided, toom_cook

AXES = [toom_cook(1), toom_cook(2), toom_cook(4), toom_cook(4, 2), strided(1), strided(2), strided(4)]


def directly(samples: np.ndarray, kernel: np.ndarray, axis: Axis) -> np.ndarray:
    return np.array([samples[i * axis.stride :][: axis.taps] @ kernel for i in range(axis.outputs)])


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: f"F({axis.name},{axis.taps})")
def test_it_is_the_convolution(axis: Axis) -> None:
    rng = np.random.default_rng(0)
    samples, kernel = rng.normal(size=len(axis.window)), rng.normal(size=axis.taps)

    fast = axis.to_outputs @ ((axis.from_kernel @ kernel) * (axis.from_samples @ samples))

    assert fast == pytest.approx(directly(samples, kernel, axis), rel=1e-13, abs=1e-13)


def test_a_pair_is_the_convolution_of_two_samples_between_zeros() -> None:
    rng = np.random.default_rng(0)
    samples, kernel = rng.normal(size=2), rng.normal(size=3)

    fast = pair().to_outputs @ ((pair().from_kernel @ kernel) * (pair().from_samples @ samples))

    assert fast == pytest.approx(directly(np.pad(samples, 1), kernel, pair()), rel=1e-14)
    assert (pair().products, toom_cook(2).products) == (3, 4)


@pytest.mark.parametrize(
    ("axis", "products"),
    [(toom_cook(2), 4), (toom_cook(4), 6), (strided(1), 3), (strided(2), 5), (strided(4), 9)],
)
def test_the_number_of_products_is_the_least(axis: Axis, products: int) -> None:
    """m + taps - 1 at stride 1 (Winograd 1980); at stride 2 that of the even taps and one an output."""
    assert axis.products == products


def test_f_2_3_is_the_one_of_the_paper() -> None:
    """Lavin and Gray 2016, equation 5, up to the order and the scale of the products."""
    theirs = {(1, 0, -1, 0), (0, 1, 1, 0), (0, 1, -1, 0), (0, 1, 0, -1)}
    ours = {tuple(row / row[row.nonzero()][0]) for row in toom_cook(2).from_samples}
    assert ours == theirs


def test_samples_and_outputs_are_transformed_by_numbers_that_binary_holds() -> None:
    """Only the kernel's transform is rounded, once, in float64."""
    for axis in [*AXES, pair()]:
        for value in [*axis.from_samples.ravel(), *axis.to_outputs.ravel()]:
            assert Fraction(float(value)).denominator <= 32


def test_more_points_than_are_known_to_round_well_are_refused() -> None:
    with pytest.raises(ValueError, match="rounding"):
        toom_cook(5)


def test_tiles_that_lie_mostly_beside_the_map_are_not_tried() -> None:
    assert [axis.name for axis in axes_for(1, 1)] == ["1"]
    assert [axis.name for axis in axes_for(2, 1)] == ["1", "2", "pair"]
    assert [axis.name for axis in axes_for(3, 1)] == ["1", "2", "4"]
    assert [axis.name for axis in axes_for(4, 2)] == ["1/2", "2/2"]
