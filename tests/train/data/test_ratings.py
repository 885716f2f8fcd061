"""Histograms and correlations, against NumPy's."""

import numpy as np
import pytest
from rrtn.train.data.ratings import BINS, at_full, correlations, histograms, rated, strongest_pairs


@pytest.fixture
def ratings() -> np.ndarray:
    """[200, 4], of which 1 follows 0, 2 opposes it, 3 is on its own."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, 200)
    mixed = [base, 0.6 * base + 0.4 * rng.uniform(0, 1, 200), 1 - base, rng.uniform(0, 1, 200)]
    return np.stack(mixed, axis=1).astype(np.float32)


def test_every_clip_is_in_one_tenth(ratings: np.ndarray) -> None:
    expected = [np.histogram(column, bins=BINS, range=(0, 1))[0] for column in ratings.T]
    np.testing.assert_array_equal(histograms(ratings), expected)


def test_tenths_begin_at_their_own_number_though_float32_is_below_it() -> None:
    edges = np.array([[i / 10] for i in range(11)], dtype=np.float32)
    assert histograms(edges).tolist() == [[1] * 9 + [2]]  # 1.0 is in the last


def test_correlations_are_numpys(ratings: np.ndarray) -> None:
    np.testing.assert_allclose(correlations(ratings), np.corrcoef(ratings.astype(float).T), atol=1e-12)


def test_a_constant_target_correlates_with_nothing(ratings: np.ndarray) -> None:
    ratings[:, 1] = 0.1
    r = correlations(ratings)
    assert np.isnan(r[1]).all()
    assert np.isnan(r[:, 1]).all()
    np.testing.assert_allclose(
        r[0, 2:], np.corrcoef(ratings[:, [0, 2, 3]].astype(float).T)[0, 1:], atol=1e-12
    )
    assert {name for pair in strongest_pairs(r, ("a", "b", "c", "d")) for name in pair[:2]} == {"a", "c", "d"}


def test_the_strongest_pair_comes_first_whatever_its_sign(ratings: np.ndarray) -> None:
    pairs = strongest_pairs(correlations(ratings), ("a", "b", "c", "d"))
    assert len(pairs) == 6
    assert pairs[0][:2] == ("a", "c")
    assert pairs[0].r == pytest.approx(-1, abs=1e-6)
    assert [abs(pair.r) for pair in pairs] == sorted((abs(pair.r) for pair in pairs), reverse=True)


def test_clips_with_a_blank_are_not_rated() -> None:
    ratings = np.array([[0.1, 1.0], [np.nan, 0.4], [1.0, 1.0], [0.9999, 0.2]], dtype=np.float32)
    assert rated(ratings).tolist() == ratings[[0, 2, 3]].tolist()
    assert at_full(rated(ratings)).tolist() == [True, True, False]
