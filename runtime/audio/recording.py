"""A mono recording at the spec's rate whose samples need not be in memory.

Its level is that of its loudest sample, and a file is refused as a whole, so it is decoded once to the end
before the first sample can be given. A short one is kept meanwhile; a long one is decoded again, block by
block. N samples.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, Protocol, Self, TypeVar

import numpy as np

from ..arrays import Float32, Int16
from ..errors import AudioError
from ..spec import FrontendSpec
from .cutting import cut
from .level import Level, LevelledClip, RunningLevel, at_level, finite_peak
from .mixdown import SILENCE_PEAK, ChannelLevels, Mixdown
from .sound import FramePowers

# Gives the blocks [N] of a part of the recording, from its beginning.
Blocks = Callable[[], Iterator[Float32]]

MOST_KEPT: Final = 1 << 24  # samples: 17 minutes at 16 kHz, 64 MiB


class Listener(Protocol):
    """Hears a recording while it is measured: FramePowers, or BurstDetector."""

    rate: int  # Hz

    def add(self, block: Float32) -> None:
        """Takes the next samples [N]."""

    def copy(self) -> Self:
        """One to which blocks can be added without changing this one."""


Heard = TypeVar("Heard", bound=Listener)


class Measured(Generic[Heard]):
    """What the first decoding of a recording shows; and its samples, up to `most_kept` of them."""

    def __init__(self, listener: Heard, most_kept: int | None) -> None:
        """`most_kept` None keeps all."""
        self.samples = 0
        self.peak = 0.0  # NaN where a sample is NaN
        self.listener = listener
        self.kept: list[Float32] | None = []
        self._most = most_kept

    def copy(self) -> "Measured[Heard]":
        """One to which blocks can be added without changing this one."""
        other = copy.copy(self)
        other.listener = self.listener.copy()
        other.kept = None if self.kept is None else [*self.kept]
        return other

    def add(self, block: Float32) -> None:
        """Adds the next block [N]."""
        self.samples += len(block)
        self.peak = float(np.maximum(self.peak, np.abs(block).max(initial=0.0)))
        self.listener.add(block)
        if self._most is not None and self.samples > self._most:
            self.kept = None
        if self.kept is not None:
            self.kept.append(block)

    @property
    def rate(self) -> int:
        """Sampling rate in Hz."""
        return self.listener.rate

    def blocks(self, parts: Sequence[Blocks]) -> Iterator[Float32]:
        """All samples once more: those that were kept, or else what `parts` give.

        Raises AudioError where a file that is decoded again has become shorter.
        """
        if self.kept is not None:
            yield from self.kept
            return
        given = 0
        for part in parts:
            for block in part():
                given += len(block)
                yield block
        if given < self.samples:
            raise AudioError("changed", "shorter when it was read again")

    def is_silent(self) -> bool:
        """Raises AudioError where there are no samples, or NaN or infinity among them."""
        if not self.samples:
            raise AudioError("empty", "no samples")
        return finite_peak(self.peak) < SILENCE_PEAK


class Recording:
    """A recording that has been measured. Positions count from the first sample that the spec keeps."""

    def __init__(
        self,
        spec: FrontendSpec,
        measured: Measured[FramePowers],
        parts: tuple[Blocks, ...],
        flags: frozenset[str],
        level: Level = "file",
    ) -> None:
        """`parts` give the same samples once more. Raises AudioError for no samples, NaN and infinity.

        At the running level nothing is trimmed: where sound begins and ends is known at the end alone.
        """
        self._spec, self._measured, self._parts, self._level = spec, measured, parts, level
        self._is_silent = measured.is_silent()
        self._sound = measured.listener.sound()
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
        """The samples from start to stop of each place. Places are in order, and may have gaps or overlap."""
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
        for block in self._measured.blocks(self._parts):
            first, last = max(0, -position), min(len(block), self.length - position)
            position += len(block)
            if first < last:
                yield block[first:last]
            if position >= self.length:
                return


def recording_of(samples: Float32, spec: FrontendSpec) -> Recording:
    """Mono samples [N] at the spec's rate as a recording, without an offset that counts (mixdown.py).

    Raises AudioError for NaN and infinity.
    """
    levels = ChannelLevels()
    levels.add(samples[None], samples)
    mixdown = levels.right_mixdown(Mixdown(), spec.sampling_rate)
    measured = Measured(FramePowers(spec.sampling_rate), None)
    measured.add(mixdown(samples[None]))
    return Recording(spec, measured, (), mixdown.flags)
