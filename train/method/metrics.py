"""Concordance correlation, as the challenge reports it and as the loss computes it.

n clips, K targets.
"""

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float64


def ccc_challenge(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> CCC of each target [K], as the ExVo challenge's script computes it.

    Variances are over n - 1, the covariance over n. A target has a CCC of 0 if neither side varies and
    the means agree: nothing was predicted.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(rated, np.float64)
    return _ccc(x, y, variance_over=len(x) - 1)


def ccc_biased(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> CCC of each target [K], all moments over n: 1 - the loss (Eq. 1)."""
    x, y = np.asarray(predicted, np.float64), np.asarray(rated, np.float64)
    return _ccc(x, y, variance_over=len(x))


def _ccc(x: Float64, y: Float64, *, variance_over: int) -> Float64:
    x, y = x - y[0], y - y[0]  # moments stay, and a constant y becomes exactly 0
    m_x, m_y = x.mean(0), y.mean(0)
    s_xx = np.square(x - m_x).sum(0) / variance_over
    s_yy = np.square(y - m_y).sum(0) / variance_over
    s_xy = ((x - m_x) * (y - m_y)).mean(0)
    spread = s_xx + s_yy + np.square(m_x - m_y)
    ccc: Float64 = 2 * s_xy / np.where(spread == 0, 1, spread)
    return ccc
