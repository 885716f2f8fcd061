"""Names for the arrays that pass between modules, and the conversions that all of them need."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import ConfigError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int16 = npt.NDArray[np.int16]
Int64 = npt.NDArray[np.int64]

INT16_SCALE: Final = np.float32(32_768)


def in_float32(numbers: npt.ArrayLike) -> Float32:
    """Numbers of any shape; those that float32 cannot hold become infinite, and warn nobody."""
    with np.errstate(over="ignore"):
        return np.asarray(numbers).astype(np.float32)


def shortest(numbers: npt.ArrayLike) -> list[float]:
    """Numbers [n] with the fewest digits that give back the same float32.

    The float32 0.10000000149011612 becomes 0.1, the double that Python writes with its digits.
    """
    return [float(digits) for digits in in_float32(numbers).astype(str).tolist()]


def signal_of(waveform: npt.ArrayLike) -> npt.NDArray[Any]:
    """Samples of any shape as an array of integers or floats.

    Raises ConfigError for what NumPy would turn into samples, and are none.
    """
    wanted = "an array of integers or floats"
    if isinstance(waveform, np.ma.MaskedArray):
        raise ConfigError("waveform", "a masked array", wanted=wanted, fix="waveform.filled(0)")
    try:
        x = np.asarray(waveform)
    except (ValueError, RuntimeError) as error:  # lists of different lengths, and tensors with a gradient
        raise ConfigError("waveform", str(error), wanted=wanted) from error
    if x.dtype.kind not in "iuf":
        raise ConfigError("waveform", f"of type {x.dtype}", wanted=wanted)
    return x


def around_zero(signal: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Unsigned samples lie around the middle of their range, as in a WAV file of 8 bits; others stay."""
    if signal.dtype.kind == "u":
        return signal.astype(np.float64) - (np.iinfo(signal.dtype).max // 2 + 1)
    return signal


def waveform_from_samples(samples: Int16) -> Float32:
    """int16 samples of any shape -> float32 in [-1, 1)."""
    return samples.astype(np.float32) / INT16_SCALE


def samples_from_waveform(waveform: npt.ArrayLike) -> Int16:
    """Floats of any shape -> the nearest int16 samples; those at or above 1 become 32767, the largest."""
    return np.clip(np.round(np.asarray(waveform) * INT16_SCALE), -32_768, 32_767).astype(np.int16)
