"""The two concordance correlations against the formula written out in Python's floats, and their
properties.
"""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from rrtn.train.method.losses import ccc_loss
from rrtn.train.method.metrics import ccc_biased, ccc_challenge

N, K = 23, 3
TOLERANCE = 1e-12  # float64 sums of 23 numbers near 1

Float64 = npt.NDArray[np.float64]


@pytest.fixture
def rated() -> Float64:
    return np.random.default_rng(0).uniform(0, 1, (N, K))


@pytest.fixture
def predicted(rated: Float64) -> Float64:
    return np.clip(0.6 * rated + np.random.default_rng(1).normal(0.1, 0.2, (N, K)), 0, 1)


def written_out(x: list[float], y: list[float], variance_over: int) -> float:
    """2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2), the covariance over n."""
    m_x, m_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    s_xx = math.fsum((a - m_x) ** 2 for a in x) / variance_over
    s_yy = math.fsum((b - m_y) ** 2 for b in y) / variance_over
    s_xy = math.fsum((a - m_x) * (b - m_y) for a, b in zip(x, y, strict=True)) / len(x)
    return 2 * s_xy / (s_xx + s_yy + (m_x - m_y) ** 2)


def test_biased_equals_the_formula_over_n(predicted: Float64, rated: Float64) -> None:
    expected = [written_out(list(x), list(y), N) for x, y in zip(predicted.T, rated.T, strict=True)]
    np.testing.assert_allclose(ccc_biased(predicted, rated), expected, rtol=0, atol=TOLERANCE)


def test_challenge_has_variances_over_n_minus_1_and_the_covariance_over_n(
    predicted: Float64, rated: Float64
) -> None:
    expected = [written_out(list(x), list(y), N - 1) for x, y in zip(predicted.T, rated.T, strict=True)]
    np.testing.assert_allclose(ccc_challenge(predicted, rated), expected, rtol=0, atol=TOLERANCE)
    assert (ccc_challenge(predicted, rated) < ccc_biased(predicted, rated)).all()


def test_biased_is_one_minus_the_loss(predicted: Float64, rated: Float64) -> None:
    loss = ccc_loss(torch.from_numpy(predicted), torch.from_numpy(rated)).item()
    assert ccc_biased(predicted, rated).mean() == pytest.approx(1 - loss, abs=TOLERANCE)


def test_a_perfect_prediction_is_1_over_n_but_less_by_the_challenge(rated: Float64) -> None:
    np.testing.assert_allclose(ccc_biased(rated, rated), 1, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(ccc_challenge(rated, rated), (N - 1) / N, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ccc", [ccc_biased, ccc_challenge])
class TestProperties:
    def test_the_two_sides_may_be_exchanged(self, ccc, predicted: Float64, rated: Float64) -> None:
        np.testing.assert_allclose(ccc(predicted, rated), ccc(rated, predicted), rtol=0, atol=TOLERANCE)

    def test_a_mirrored_prediction_has_the_negative_value(
        self, ccc, predicted: Float64, rated: Float64
    ) -> None:
        mirrored = 2 * predicted.mean(0) - predicted
        np.testing.assert_allclose(ccc(mirrored, rated), -ccc(predicted, rated), rtol=0, atol=TOLERANCE)

    def test_a_shift_lowers_it_where_correlation_would_stay(self, ccc, rated: Float64) -> None:
        values = [ccc(rated + shift, rated) for shift in (0, 0.1, 0.2, 0.4)]
        assert (np.diff(values, axis=0) < -0.01).all()

    def test_a_smaller_range_lowers_it(self, ccc, rated: Float64) -> None:
        shrunk = rated.mean(0) + 0.5 * (rated - rated.mean(0))
        np.testing.assert_allclose(
            ccc(shrunk, rated) / ccc(rated, rated), 0.8, rtol=0, atol=TOLERANCE
        )  # 2 a / (1 + a^2)

    def test_targets_do_not_touch_each_other(self, ccc, predicted: Float64, rated: Float64) -> None:
        other = predicted.copy()
        other[:, 1] = 0.5
        np.testing.assert_array_equal(ccc(other, rated)[[0, 2]], ccc(predicted, rated)[[0, 2]])

    @pytest.mark.parametrize("constant", [0.0, 0.1, 0.3, 0.7])  # the means of most of them are not exact
    @pytest.mark.parametrize("n", [3, 30, 100])
    def test_nothing_varies_and_nothing_was_predicted(self, ccc, constant: float, n: int) -> None:
        assert ccc(np.full((n, 1), constant), np.full((n, 1), constant)).tolist() == [0.0]

    def test_constant_predictions_are_worth_nothing(self, ccc, rated: Float64) -> None:
        np.testing.assert_allclose(ccc(np.full_like(rated, 0.3), rated), 0, rtol=0, atol=TOLERANCE)

    def test_float32_scores_are_computed_in_float64(self, ccc, predicted: Float64, rated: Float64) -> None:
        single = predicted.astype(np.float32)
        np.testing.assert_array_equal(ccc(single, rated), ccc(single.astype(np.float64), rated))
        assert ccc(single, rated.astype(np.float32)).dtype == np.float64
