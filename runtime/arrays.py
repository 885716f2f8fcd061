"""Names for the arrays that pass between modules, and the conversions that all of them need."""

from typing import Final

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int16 = npt.NDArray[np.int16]
Int64 = npt.NDArray[np.int64]

INT16_SCALE: Final = np.float32(32_768)


def in_float32(numbers: npt.ArrayLike) -> Float32:
    """Numbers of any shape; those that float32 cannot hold become infinite, and warn nobody."""
    with np.errstate(over="ignore"):
        return np.asarray(numbers).astype(np.float32)


def waveform_from_samples(samples: Int16) -> Float32:
    """int16 samples of any shape -> float32 in [-1, 1)."""
    return samples.astype(np.float32) / INT16_SCALE


def samples_from_waveform(waveform: npt.ArrayLike) -> Int16:
    """Floats of any shape -> the nearest int16 samples; those at or above 1 become 32767, the largest."""
    return np.clip(np.round(np.asarray(waveform) * INT16_SCALE), -32_768, 32_767).astype(np.int16)
