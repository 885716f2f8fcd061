"""Where in a recording there are bursts: sound that stands out from the noise around it.

The level of every 10 ms is compared with a running noise floor: the 10th percentile of the levels in the 5 s
before, or in the 5 s after, whichever is higher. So at a step from quiet to loud noise the loud side sets the
floor. Radar finds targets in clutter this way (CFAR by ordered statistics: Rohling 1983; the greater of two
windows: Hansen 1973). What the detector holds is bounded, whatever the recording's length, but for the places
of the bursts.

N samples, F frames of 10 ms, S steps of 0.5 s.
"""

import copy
import functools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Float32, Float64
from .sound import Framer

_STEP: Final = 50  # frames that share a floor
_WINDOW: Final = 500  # frames that a floor is taken from, before and after
_QUIET: Final = 0.1  # of the frames lie below the floor
_QUIETEST: Final = -70.0  # dBFS; no floor lies lower: digital silence is no noise
_ONSET: Final = 12.0  # dB above the floor, that a burst reaches
_EDGE: Final = 6.0  # dB above the floor, down to which it extends
_LEAST: Final = 5  # frames that reach the onset's level
_GAP: Final = 30  # frames; shorter pauses do not part a burst
_PAD: Final = 5  # frames that are added on both sides
LONGEST: Final = 3000  # frames; a longer burst is parted, so that one of any length fits into memory
_DEGREES: Final = 3  # polynomials taken from each frame: a constant, a slope and a bow
_DARK: Final = 1e-12  # of power; digital silence


class Span(NamedTuple):
    """A part of a recording."""

    start: int  # samples
    stop: int


@dataclass
class _Run:
    """Frames that may become a burst."""

    start: int
    stop: int
    loud: int  # frames that reach the onset's level
    is_rest: bool = False  # of a burst that was parted, and then counts as loud


class BurstDetector:
    """Finds the bursts of a recording that comes in blocks. How it is cut into blocks changes nothing."""

    def __init__(self, rate: int) -> None:
        """`rate` is in Hz."""
        self.rate, self._framer = rate, Framer(rate)
        self._samples = 0
        self._levels = np.zeros(0, np.float32)  # dB, of the frames from `_first` on
        self._first = 0
        self._step = 0  # the next whose frames are judged
        self._floors: deque[float] = deque(maxlen=_WINDOW // _STEP)  # of the windows that begin at steps
        self._run: _Run | None = None
        self._found: list[Span] = []

    def copy(self) -> "BurstDetector":
        """One to which blocks can be added without changing this one."""
        other = copy.copy(self)
        other._framer = copy.copy(self._framer)
        other._floors = self._floors.copy()
        other._run = copy.copy(self._run)
        other._found = [*self._found]
        return other

    def add(self, block: Float32) -> None:
        """Adds the next samples [N]."""
        self._samples += len(block)
        self._append(self._framer.frames(block))
        while (self._step * _STEP) + _WINDOW <= self._frames:
            self._floors.append(self._floor(self._step * _STEP, self._step * _STEP + _WINDOW))
            before = self._floors[0] if self._step >= _WINDOW // _STEP - 1 else -np.inf
            self._judge(max(before, self._floors[-1]))

    def spans(self) -> list[Span]:
        """The bursts of the whole recording, in order. They do not overlap."""
        end = self.copy()
        end._append(end._framer.last())
        end._judge_rest()
        return end._found

    @property
    def _frames(self) -> int:
        return self._first + len(self._levels)

    def _append(self, frames: Float32) -> None:
        self._levels = np.concatenate([self._levels, _levels(frames)])

    def _floor(self, first: int, last: int) -> float:
        """The noise floor of the frames from `first` up to `last`, as far as there are any."""
        heard = self._levels[max(0, first - self._first) : last - self._first]
        rank = round(_QUIET * (len(heard) - 1))
        return float(np.partition(heard, rank)[rank])

    def _judge(self, floor: float) -> None:
        """Judges the frames of the next step."""
        begin = self._step * _STEP
        levels = self._levels[begin - self._first : begin - self._first + _STEP] - max(floor, _QUIETEST)
        for start, stop in _runs(levels >= _EDGE):
            loud = int(np.count_nonzero(levels[start:stop] >= _ONSET))
            self._extend(_Run(begin + start, begin + stop, loud))
        self._step += 1
        if self._run and begin + len(levels) - self._run.stop > _GAP:
            self._close()
        unneeded = max(0, self._step * _STEP - _WINDOW - self._first)
        self._levels, self._first = self._levels[unneeded:], self._first + unneeded

    def _judge_rest(self) -> None:
        """Judges what is left at the recording's end, where no window after it is whole."""
        while (begin := self._step * _STEP) < self._frames:
            self._judge(self._floors_at_end(begin))
        if self._run:
            self._close()

    def _floors_at_end(self, begin: int) -> float:
        behind = begin + _STEP - _WINDOW
        if behind >= 0:
            return self._floor(behind, begin + _STEP)
        return self._floor(0, begin + _WINDOW)

    def _extend(self, run: _Run) -> None:
        if self._run and run.start - self._run.stop > _GAP:
            self._close()
        if self._run is None:
            self._run = run
        else:
            self._run.stop, self._run.loud = run.stop, self._run.loud + run.loud
        while self._run.stop - self._run.start > LONGEST:
            rest = _Run(self._run.start + LONGEST, self._run.stop, self._run.loud, is_rest=True)
            self._run.stop = rest.start
            self._close()
            self._run = rest

    def _close(self) -> None:
        """Ends the run, which is a burst if enough of it is loud.

        A rest that the padding of the part before covers makes that part longer.
        """
        run, self._run = self._run, None
        assert run
        if run.loud < _LEAST:
            return
        frame, earliest = self._framer.frame, self._found[-1].stop if self._found else 0
        start, stop = max(earliest, (run.start - _PAD) * frame), min(self._samples, (run.stop + _PAD) * frame)
        if run.is_rest and self._found and run.stop - run.start <= _PAD:
            start = self._found.pop().start
        self._found.append(Span(start, stop))


def _levels(frames: Float32) -> Float32:
    """The level [F] of frames in dB, without their slow parts: rumble, wind, an offset.

    A polynomial is fitted to each frame of 10 ms and taken away, which removes what lies below about 100 Hz.
    """
    samples = frames.astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN and infinity are refused later
        # einsum, since the sums of a matrix product may depend on how many frames there are.
        power = np.einsum("fn,fn->f", samples, samples)
        power -= np.square(np.einsum("fn,kn->fk", samples, _slow_shapes(frames.shape[1]))).sum(axis=1)
        power /= frames.shape[1]
    return np.asarray(10 * np.log10(np.maximum(power, _DARK)), np.float32)


@functools.cache
def _slow_shapes(length: int) -> Float64:
    """Orthonormal polynomials over the samples of a frame [K, N]."""
    powers = np.vander(np.linspace(-1, 1, length), min(_DEGREES, length), increasing=True)
    return np.ascontiguousarray(np.linalg.qr(powers)[0].T)


def _runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Where runs of True begin and end."""
    if not mask.any():
        return iter(())
    padded = np.zeros(len(mask) + 2, bool)
    padded[1:-1] = mask
    edges = np.flatnonzero(padded[1:] != padded[:-1]).tolist()
    return zip(edges[::2], edges[1::2], strict=True)
