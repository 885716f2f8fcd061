"""A mono recording at the spec's rate whose samples need not be in memory.

Its level is that of its loudest sample, and a file is refused as a whole, so it is decoded once to the end
before the first sample can be given. A short one is kept meanwhile; a long one is decoded again, block by
block. N samples.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np

from ..arrays import Float32, Int16
from ..errors import AudioError
from ..spec import FrontendSpec
from .cutting import cut
from .level import Level, LevelledClip, RunningLevel, at_level, finite_peak
from .mixdown import SILENCE_PEAK
from .sound import FramePowers

Blocks = Callable[
    [], Iterator[Float32]
]  # gives the blocks [N] of a part of the recording, from its beginning

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
        self,
        spec: FrontendSpec,
        measured: Measured,
        parts: tuple[Blocks, ...],
        flags: frozenset[str],
        level: Level = "file",
    ) -> None:
        """`parts` give the same samples once more. Raises AudioError for no samples, NaN and infinity.

        At the running level nothing is trimmed: where sound begins and ends is known at the end alone.
        """
        if not measured.samples:
            raise AudioError("empty", "no samples")
        self._spec, self._measured, self._parts, self._level = spec, measured, parts, level
        self._sound = measured.powers.sound()
        self._is_silent = finite_peak(measured.peak) < SILENCE_PEAK
        self.flags = flags | {"silent"} if self._is_silent else flags
        self.seconds = measured.samples / spec.sampling_rate  # of the file
        trims = spec.trim and level == "file" and not self._is_silent
        self._begin, end = self._sound.extent() if trims else (0, measured.samples)
        self.start = self._begin / spec.sampling_rate  # s, of the first sample that is kept
        self.length = end - self._begin  # samples

    def sound(self, start: int, stop: int) -> float:
        """Seconds of sound between two positions."""
        return 0.0 if self._is_silent else self._sound.seconds(self._begin + start, self._begin + stop)

    def blocks(self) -> Iterator[Int16]:
        """All samples at the level of the loudest one, in blocks [N] that follow each other.

        Raises AudioError where a file that is decoded again has become another.
        """
        for block in self._blocks_between():
            yield at_level(block, self._measured.peak, self._spec)

    def clips(self, places: Iterable[tuple[int, int]]) -> Iterator[LevelledClip]:
        """What lies from start to stop of each place. The places are in order; gaps and overlap are well."""
        if self._level == "running":
            level = RunningLevel(self._spec)
            for start, window in cut(self._blocks_between(), places):
                yield level.clip(start, window)
            return
        for start, samples in cut(self.blocks(), places):
            yield LevelledClip(start, samples, self.sound(start, start + len(samples)))

    def _blocks_between(self) -> Iterator[Float32]:
        """The samples that the spec keeps, as they were recorded."""
        position = -self._begin  # of the next block
        for block in self._all_blocks():
            first, last = max(0, -position), min(len(block), self.length - position)
            position += len(block)
            if first < last:
                yield block[first:last]
            if position >= self.length:
                return
        raise AudioError("changed", "shorter when it was read again")

    def _all_blocks(self) -> Iterator[Float32]:
        if self._measured.kept is not None:
            yield from self._measured.kept
            return
        for part in self._parts:
            yield from part()
