"""Samples as bytes, under the names that ffmpeg has for them (`-f s16le`).

N samples, C channels.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..arrays import Float32

PCM_BYTES: Final = {"u8": 1, "s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4, "f64le": 8}  # of one sample
_TYPES: Final = {"u8": "u1", "s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "f64le": "<f8"}


def samples_from_bytes(content: bytes, pcm: str, channels: int) -> Float32:
    """Whole frames -> [N, C], integers in [-1, 1] as libsndfile scales them."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused later
        samples = _numbers(content, pcm).astype(np.float32)
    if pcm == "u8":
        samples -= 128
    if pcm[0] != "f":
        samples /= np.float32(1 << 8 * (4 if pcm == "s24le" else PCM_BYTES[pcm]) - 1)
    return samples.reshape(-1, channels)


def _numbers(content: bytes, pcm: str) -> "npt.NDArray[Any]":
    if pcm != "s24le":
        return np.frombuffer(content, _TYPES[pcm])
    padded = np.zeros((len(content) // 3, 4), np.uint8)  # each number times 256
    padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return padded.view("<i4")
