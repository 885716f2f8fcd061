"""The closed form of the leave-one-out error against refitting, and the predictions against
scikit-learn's.
"""

import functools

import numpy as np
import numpy.typing as npt
import pytest
from rrtn.train.evidence import ridge
from rrtn.train.evidence.ridge import mel_statistics, ridge_predictions
from sklearn.linear_model import Ridge

Float64 = npt.NDArray[np.float64]
ALPHAS = np.logspace(-1, 5, 25)
TOLERANCE = 1e-9  # an SVD here, a Cholesky decomposition there, both of condition number below 1e5


def problem(n: int, features: int, noise: float) -> tuple[Float64, Float64]:
    """Features of unequal mean and scale, two targets in (0, 1)."""
    rng = np.random.default_rng(n + features)
    x = rng.normal(0, 1, (n, features)) * rng.uniform(0.1, 20, features) + rng.uniform(-80, 0, features)
    signal = (x - x.mean(0)) / x.std(0) @ rng.normal(0, 1, (features, 2))
    return x, 1 / (1 + np.exp(-0.3 * signal - rng.normal(0, noise, (n, 2))))


def standardised(train: Float64, other: Float64) -> Float64:
    return (other - train.mean(0)) / train.std(0)


def refitted_errors(x: Float64, y: Float64, alpha: float) -> Float64:
    """Residual of each clip under the fit to all others, the intercept fitted anew each time."""
    residuals = []
    for left_out in range(len(x)):
        rest = np.arange(len(x)) != left_out
        model = Ridge(alpha=alpha).fit(x[rest], y[rest])
        residuals.append(y[left_out] - model.predict(x[left_out : left_out + 1])[0])
    return np.array(residuals)


@pytest.mark.parametrize("shape", [(30, 5), (12, 20)])  # more clips than features, and fewer
@pytest.mark.parametrize("alpha", [0.1, 10.0, 1e4])
def test_leave_one_out_error_equals_refitting(shape: tuple[int, int], alpha: float) -> None:
    features, y = problem(*shape, noise=0.5)
    x = standardised(features, features)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    centred = y - y.mean(0)
    press = ridge._press(u, s**2 / (s**2 + alpha), u.T @ centred, centred)
    assert press == pytest.approx(np.square(refitted_errors(x, y, alpha)).mean(), rel=TOLERANCE)


@functools.cache
def best_alpha(noise: float) -> int:
    """Its place in ALPHAS, by refitting."""
    train, ratings = problem(30, 5, noise)
    x = standardised(train, train)
    return int(np.argmin([np.square(refitted_errors(x, ratings, alpha)).mean() for alpha in ALPHAS]))


@pytest.mark.parametrize("noise", [0.01, 0.5, 3.0])
def test_predictions_are_scikit_learns_at_the_best_alpha(noise: float) -> None:
    train, ratings = problem(30, 5, noise)
    test = train[::-3] + 0.5
    model = Ridge(alpha=ALPHAS[best_alpha(noise)]).fit(standardised(train, train), ratings)
    expected = np.clip(model.predict(standardised(train, test)), 0, 1)
    # The source adds 1e-9 to each deviation, of 0.1 at least here.
    np.testing.assert_allclose(ridge_predictions(train, ratings, test), expected, rtol=0, atol=1e-7)


def test_more_noise_takes_a_larger_penalty() -> None:
    """Or the test above would hold with any fixed alpha."""
    best = [best_alpha(noise) for noise in (0.01, 0.5, 3.0)]
    assert best == sorted(set(best))


def test_a_feature_that_never_varies_changes_nothing() -> None:
    train, ratings = problem(30, 5, noise=0.5)
    constant = np.full((30, 1), -100.0)
    with_it = ridge_predictions(np.hstack([train, constant]), ratings, np.hstack([train, constant]))
    np.testing.assert_allclose(with_it, ridge_predictions(train, ratings, train), rtol=0, atol=TOLERANCE)


def test_predictions_stay_in_the_range_of_ratings() -> None:
    train, ratings = problem(30, 5, noise=0.01)
    far = ridge_predictions(train, ratings, np.vstack([train + 1000, train - 1000]))
    assert far.min() == 0
    assert far.max() == 1


def test_statistics_are_mean_and_deviation_of_each_bin_over_the_frames() -> None:
    clips = [np.array([[0, 10], [2, 10], [4, 40]], np.float32), np.array([[-100, 1], [-100, 3]], np.float32)]
    deviations = [(8 / 3) ** 0.5, 200**0.5]
    expected = [[2, 20, *deviations], [-100, 2, 0, 1]]
    np.testing.assert_allclose(mel_statistics(clips), expected, rtol=1e-6)  # float32 moments
