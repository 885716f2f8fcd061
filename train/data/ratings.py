"""What the ratings of a data set look like: histograms, correlations, constants, and the form of Hume-VB.

n clips, K targets.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Float32
from .data_set import DataSet

BINS: Final = 10  # of width 0.1; the last one has 1.0 in it
_FULL_TOLERANCE: Final = 1e-6


class Pair(NamedTuple):
    """Two targets and Pearson's r between them."""

    first: str
    second: str
    r: float


def rated(ratings: Float32) -> Float32:
    """The rows of [n, K] that have no blank."""
    return ratings[~np.isnan(ratings).any(axis=1)]


def histograms(ratings: Float32) -> npt.NDArray[np.int64]:
    """[n, K] -> the number of clips in each tenth of 0 to 1 [K, BINS]."""
    tenth = (ratings.astype(np.float64) * BINS + 1e-6).astype(np.int64)  # 0.3 in float32 is a bit less
    tenth = np.minimum(tenth, BINS - 1)
    return np.stack([np.bincount(column, minlength=BINS) for column in tenth.T])


def correlations(ratings: Float32) -> npt.NDArray[np.float64]:
    """[n, K] -> Pearson's r [K, K]; NaN for a target without variation."""
    centred = ratings.astype(np.float64) - ratings.mean(axis=0, dtype=np.float64)
    deviations = np.sqrt((centred**2).sum(axis=0))
    constant = np.ptp(ratings, axis=0) == 0
    deviations[constant] = np.nan
    r: npt.NDArray[np.float64] = centred.T @ centred / np.outer(deviations, deviations)
    return np.clip(r, -1, 1)


def strongest_pairs(r: npt.NDArray[np.float64], targets: tuple[str, ...]) -> list[Pair]:
    """All pairs of [K, K] that have an r; the largest |r| comes first."""
    pairs = [
        Pair(targets[i], targets[j], float(r[i, j]))
        for i, j in zip(*np.triu_indices(len(targets), 1), strict=True)
    ]
    return sorted((pair for pair in pairs if not np.isnan(pair.r)), key=lambda pair: -abs(pair.r))


def constant_targets(data: DataSet) -> list[str]:
    """One warning with all targets that are constant in Train; none where no target is."""
    columns = zip(data.columns.names, data.splits["Train"].ratings.T, strict=True)
    constant = [name for name, column in columns if len(np.unique(column[~np.isnan(column)])) < 2]
    return [f"no variation in Train, so nothing to learn: {', '.join(constant)}"] if constant else []


def at_full(ratings: Float32) -> npt.NDArray[np.bool_]:
    """[n, K] -> [n]: True for a clip with a target at exactly 1.0, as all rated clips of Hume-VB."""
    full: npt.NDArray[np.bool_] = np.abs(ratings.max(axis=1) - 1) < _FULL_TOLERANCE
    return full
