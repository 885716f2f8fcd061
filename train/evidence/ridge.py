"""The baseline beside the network in every table: ridge regression on the mel bins.

Its features are the mean and the deviation of each mel bin. n clips, T frames, M mels, K targets, P
= 2 M features.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float64

_ALPHAS: Final = np.logspace(-1, 5, 25)


def mel_statistics(log_mels: Iterable[npt.NDArray[np.float32]]) -> Float64:
    """Clips [T, M] -> [n, 2 M]: mean and standard deviation of each mel bin over the frames."""
    return np.array([np.concatenate([clip.mean(0), clip.std(0)]) for clip in log_mels], dtype=np.float64)


def ridge_predictions(train: Float64, ratings: npt.ArrayLike, test: Float64) -> Float64:
    """train [n, P], ratings [n, K], test [m, P] -> predictions [m, K] in [0, 1].

    The features are standardised. The penalty is the one with the smallest leave-one-out error over
    all targets, which has a closed form through the singular values (Allen's PRESS). Where ratings are
    missing (NaN), each target has a regression of its own, on its rated clips.
    """
    y = np.asarray(ratings, np.float64)
    if (is_rated := ~np.isnan(y)).all():
        return _ridge(train, y, test)
    columns = [_ridge(train[rows], y[rows, k : k + 1], test) for k, rows in enumerate(is_rated.T)]
    return np.hstack(columns)


def _ridge(train: Float64, y: Float64, test: Float64) -> Float64:
    mean, scale = train.mean(0), train.std(0) + 1e-9
    x = (train - mean) / scale
    centre = y.mean(0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ (y - centre)
    errors = [_press(u, s**2 / (s**2 + alpha), projected, y - centre) for alpha in _ALPHAS]
    alpha = _ALPHAS[int(np.argmin(errors))]
    weights = vt.T @ ((s / (s**2 + alpha))[:, None] * projected)
    predicted: Float64 = np.clip((test - mean) / scale @ weights + centre, 0, 1)
    return predicted


def _press(u: Float64, shrink: Float64, projected: Float64, y: Float64) -> float:
    """Mean squared leave-one-out residual. The intercept adds 1/n to each clip's leverage."""
    residual = y - u @ (shrink[:, None] * projected)
    leverage = (np.square(u) * shrink).sum(1) + 1 / len(u)
    return float(np.square(residual / (1 - leverage)[:, None]).mean())
