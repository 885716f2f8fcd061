"""The level of a recording over time, for a drawing. An hour takes 30 kB. F frames of 10 ms, S seconds."""

import copy
from typing import Final

import numpy as np

from ..arrays import Float32
from .sound import Framer, frame_powers

_FRAMES: Final = 100  # of a second
_DARK: Final = 1e-10  # of power: -100 dB
_NOTHING: Final = np.zeros(0, np.float32)


class LevelCurve:
    """Collects the level of a recording that comes in blocks."""

    def __init__(self, rate: int) -> None:
        """`rate` is in Hz."""
        self.rate, self._framer = rate, Framer(rate)
        self._samples = 0
        self._waiting = _NOTHING  # powers of the frames of a second that is not over
        self._loudest: list[Float32] = []  # power of the loudest frame of each second

    def copy(self) -> "LevelCurve":
        """One to which blocks can be added without changing this one."""
        other = copy.copy(self)
        other._framer, other._loudest = copy.copy(self._framer), [*self._loudest]
        return other

    def add(self, block: Float32) -> None:
        """Adds the next samples [N]."""
        self._samples += len(block)
        powers = np.concatenate([self._waiting, frame_powers(self._framer.frames(block))])
        whole = len(powers) // _FRAMES * _FRAMES
        self._loudest.append(powers[:whole].reshape(-1, _FRAMES).max(axis=1))
        self._waiting = powers[whole:]

    def levels(self) -> Float32:
        """dBFS of the loudest frame of each second [S]; the last second may be short."""
        rest = np.concatenate([self._waiting, frame_powers(self._framer.last())])
        last = rest[None].max(axis=1) if len(rest) else _NOTHING
        return np.asarray(
            10 * np.log10(np.maximum(np.concatenate([*self._loudest, last]), _DARK)), np.float32
        )

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self._samples / self.rate
