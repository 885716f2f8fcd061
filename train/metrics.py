"""Concordance correlation, as the challenge reports it and as the loss computes it.

n clips, K targets.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def ccc_challenge(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> CCC of each target [K]: variances over n - 1, covariance over n, as the ExVo challenge's script.

    0 where neither side varies and the means agree: nothing was predicted.
    """
    x, y = np.asarray(predicted, np.float64), np.asarray(rated, np.float64)
    return _ccc(x, y, variance_over=len(x) - 1)


def ccc_biased(predicted: npt.ArrayLike, rated: npt.ArrayLike) -> Float64:
    """[n, K] each -> CCC of each target [K], all moments over n: 1 - the loss (Eq. 1)."""
    x, y = np.asarray(predicted, np.float64), np.asarray(rated, np.float64)
    return _ccc(x, y, variance_over=len(x))


def _ccc(x: Float64, y: Float64, *, variance_over: int) -> Float64:
    x, y = x - y[0], y - y[0]  # changes no moment, but a constant y becomes 0 exactly, not 0 within rounding
    m_x, m_y = x.mean(0), y.mean(0)
    s_xx = np.square(x - m_x).sum(0) / variance_over
    s_yy = np.square(y - m_y).sum(0) / variance_over
    s_xy = ((x - m_x) * (y - m_y)).mean(0)
    spread = s_xx + s_yy + np.square(m_x - m_y)
    ccc: Float64 = 2 * s_xy / np.where(spread == 0, 1, spread)
    return ccc


def ccc_change_interval(
    scores: npt.ArrayLike, reference: npt.ArrayLike, rated: npt.ArrayLike, speakers: Sequence[str], *, resamples: int = 2000
) -> tuple[float, float] | None:
    """95% interval of the mean CCC (challenge) of `scores` minus that of `reference`, [n, K] each, resampling speakers.

    Both are resampled together: clips of one speaker are no independent evidence (paper.md, point 13). None for one
    speaker. A resample is a count for each speaker, and CCC a function of six additive sums, so that all resamples are
    one matrix product.
    """
    names, index = np.unique(np.asarray(speakers), return_inverse=True)
    if len(names) < 2:
        return None
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)  # [R, S]
    changes = [_ccc_of_sums(counts, _speaker_sums(x, rated, index)).mean(1) for x in (scores, reference)]
    low, high = np.quantile(changes[0] - changes[1], [0.025, 0.975])
    return float(low), float(high)


def _speaker_sums(x: npt.ArrayLike, y: npt.ArrayLike, speaker: npt.NDArray[np.intp]) -> Float64:
    """[S, 6, K]: clips, and sums of x, y, xx, yy, xy of each speaker."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)  # [n, 6, K]
    sums = np.zeros((int(speaker.max()) + 1, *terms.shape[1:]))
    np.add.at(sums, speaker, terms)
    return sums


def _ccc_of_sums(counts: npt.NDArray[np.int64], sums: Float64) -> Float64:
    """counts [R, S] of speakers -> CCC (challenge) of each resample and target [R, K]."""
    n, x, y, xx, yy, xy = np.moveaxis(np.tensordot(counts, sums, axes=1), 1, 0)  # [R, K] each
    m_x, m_y = x / n, y / n
    s_xx, s_yy = (xx - n * m_x**2) / (n - 1), (yy - n * m_y**2) / (n - 1)
    spread = s_xx + s_yy + np.square(m_x - m_y)
    ccc: Float64 = 2 * (xy / n - m_x * m_y) / np.where(spread == 0, 1, spread)
    return ccc
