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


def test_clips_without_any_rating_are_not_rated() -> None:
    nan = np.nan
    ratings = np.array([[0.1, 1.0], [nan, 0.4], [nan, nan], [1.0, nan], [0.9999, 0.2]], dtype=np.float32)
    np.testing.assert_array_equal(rated(ratings), ratings[[0, 1, 3, 4]])
    assert at_full(rated(ratings)).tolist() == [True, False, True, False]


def test_blanks_are_in_no_histogram_and_in_no_correlation() -> None:
    rng = np.random.default_rng(0)
    ratings = rng.uniform(0, 1, (60, 3)).astype(np.float32)
    ratings[:, 2] = 1 - ratings[:, 0]
    whole = ratings.copy()
    ratings[:20, 0] = ratings[10:30, 1] = np.nan
    assert histograms(ratings).sum(axis=1).tolist() == [40, 40, 60]
    r = correlations(ratings)
    assert r[0, 1] == r[1, 0] == pytest.approx(np.corrcoef(whole[30:, 0], whole[30:, 1])[0, 1])
    assert r[0, 2] == pytest.approx(-1)
    np.testing.assert_allclose(r.diagonal(), 1)
