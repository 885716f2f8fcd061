"""A mono recording at the spec's rate whose samples need not be in memory.

Its level is that of its loudest sample, so it is decoded once to the end before the first sample can be
given. A short one is kept meanwhile; a long one is decoded again, block by block. N samples.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np

from ..arrays import INT16_SCALE, Float32, Int16
from ..errors import AudioError
from ..spec import FrontendSpec
from .mixdown import SILENCE_PEAK
from .sound import FramePowers

Blocks = Callable[
    [], Iterator[Float32]
]  # gives the blocks [N] of a part of the recording, from its beginning

_NOTHING: Final = np.zeros(0, np.int16)
MOST_KEPT: Final = 1 << 24  # samples: 17 minutes at 16 kHz, 64 MiB


class Measured:
    """What the first decoding of a recording shows; and its samples, up to `most_kept` of them."""

    def __init__(self, rate: int, most_kept: int | None) -> None:
        """`rate` is in Hz. `most_kept` None keeps all."""
        self.samples = 0
        self.peak = 0.0  # NaN where a sample is NaN
        self.powers = FramePowers(rate)
        self.kept: list[Float32] | None = []
        self._most = most_kept

    def copy(self) -> "Measured":
        """One to which blocks can be added without changing this one."""
        other = copy.copy(self)
        other.powers = self.powers.copy()
        other.kept = None if self.kept is None else [*self.kept]
        return other

    def add(self, block: Float32) -> None:
        """Adds the next block [N]."""
        self.samples += len(block)
        self.peak = float(np.maximum(self.peak, np.abs(block).max(initial=0.0)))
        self.powers.add(block)
        if self._most is not None and self.samples > self._most:
            self.kept = None
        if self.kept is not None:
            self.kept.append(block)


class Recording:
    """A recording that has been measured. Positions count from the first sample that the spec keeps."""

    def __init__(
        self, spec: FrontendSpec, measured: Measured, parts: tuple[Blocks, ...], flags: frozenset[str]
    ) -> None:
        """`parts` give the same samples once more. Raises AudioError for no samples, NaN and infinity."""
        if not measured.samples:
            raise AudioError("empty", "no samples")
        self._spec, self._measured, self._parts = spec, measured, parts
        self._sound = measured.powers.sound()
        self._is_silent = _finite(measured.peak) < SILENCE_PEAK
        self.flags = flags | {"silent"} if self._is_silent else flags
        self.seconds = measured.samples / spec.sampling_rate  # of the file
        trims = spec.trim and not self._is_silent
        self._begin, end = self._sound.extent() if trims else (0, measured.samples)
        self.start = self._begin / spec.sampling_rate  # s, of the first sample that is kept
        self.length = end - self._begin  # samples

    def sound(self, start: int, stop: int) -> float:
        """Seconds of sound between two positions."""
        return 0.0 if self._is_silent else self._sound.seconds(self._begin + start, self._begin + stop)

    def blocks(self) -> Iterator[Int16]:
        """All samples, levelled, in blocks [N] that follow each other.

        Raises AudioError where a file that is decoded again has become another.
        """
        position = -self._begin  # of the next block
        for block in self._all_blocks():
            first, last = max(0, -position), min(len(block), self.length - position)
            position += len(block)
            if first < last:
                yield _at_level(block[first:last], self._measured.peak, self._spec)
            if position >= self.length:
                return
        raise AudioError("changed", "shorter when it was read again")

    def cuts(self, places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, Int16]]:
        """(start, stop, samples) of each place. The places are in order, and may overlap or leave gaps."""
        blocks, samples, begin = self.blocks(), _NOTHING, 0  # `samples` begin at `begin`
        for start, stop in places:
            while True:
                over = min(max(0, start - begin), len(samples))
                samples, begin = samples[over:], begin + over
                if begin + len(samples) >= stop:
                    break
                samples = np.concatenate([samples, next(blocks)])
            yield start, stop, samples[start - begin : stop - begin]

    def _all_blocks(self) -> Iterator[Float32]:
        if self._measured.kept is not None:
            yield from self._measured.kept
            return
        for part in self._parts:
            yield from part()


def levelled(mono: Float32, spec: FrontendSpec) -> Int16:
    """All samples [N] of a recording -> int16 [N] with the spec's peak; silence stays silence.

    Raises AudioError for NaN and infinity.
    """
    return _at_level(mono, _finite(float(np.abs(mono).max(initial=0.0))), spec)


def _finite(peak: float) -> float:
    """The peak. The file may have NaN, or the resampler makes it where it overshoots the limit of float32."""
    if not np.isfinite(peak):
        raise AudioError("non_finite", "NaN or infinity among the samples")
    return peak


def _at_level(block: Float32, peak: float, spec: FrontendSpec) -> Int16:
    if peak < SILENCE_PEAK:
        return np.zeros(len(block), dtype=np.int16)
    return np.round(block * np.float32(INT16_SCALE * spec.peak / peak)).astype(np.int16)
