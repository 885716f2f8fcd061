"""Sound between the thread that hears it and the one that scores it, in bounded memory.

N samples of each of C channels; the number of a sample counts from the beginning of the sound.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from ..arrays import Float32
from ..errors import StoppedError

_TICK: Final = 1e-3  # s; arrivals that lie closer together are taken for one
_MOST_ARRIVALS: Final = 1 << 16  # over a minute, and the queue holds less
_MOST_SILENCE: Final = 1 << 16  # samples of silence at once


class _Arrival(NamedTuple):
    """When the samples before this number had been heard."""

    samples: int
    at: float  # s, monotonic


class SoundQueue:
    """Blocks [N, C], first in, first out.

    A source that can wait, such as a pipe, waits while the queue is full. Of one that cannot, such as a
    microphone, blocks are lost then. Silence as long as they were stands in their place, so that the sound
    keeps its time.
    """

    def __init__(self, channels: int, *, limit: int, waits: bool) -> None:
        """`limit` is in samples; one block more may be in the queue."""
        self._limit, self._waits, self.channels = limit, waits, channels
        self._changed = threading.Condition()
        self._blocks: deque[Float32 | int] = deque()  # an int stands for so many samples that are lost
        self._arrivals: deque[_Arrival] = deque(maxlen=_MOST_ARRIVALS)
        self._gaps: deque[tuple[int, int]] = deque()  # first and last lost sample, and one more
        self._has_ended, self._is_closed = False, False
        self._error: BaseException | None = None
        self.heard = 0  # samples, those that are lost with them
        self.lost = 0  # samples
        self.waiting = 0  # samples that are in the queue

    def put(self, block: Float32) -> bool:
        """From the thread that hears. False once nobody takes any more."""
        with self._changed:
            if self._waits:
                self._changed.wait_for(lambda: self.waiting < self._limit or self._is_closed)
            first, self.heard = self.heard, self.heard + len(block)
            if self.waiting >= self._limit:
                self._lose(first, len(block))
            else:
                self._blocks.append(block)
                self.waiting += len(block)
            self._note_arrival()
            self._changed.notify_all()
            return not self._is_closed

    def end(self, error: BaseException | None = None) -> None:
        """From the thread that hears: nothing follows, or this error in its place."""
        with self._changed:
            self._has_ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """From the thread that scores: nothing more is taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def blocks(self, patience: float | None = None) -> Iterator[Float32]:
        """All blocks up to the end, for the thread that scores.

        Raises the error that ended the sound, and StoppedError where nothing is heard for `patience` (s).
        """
        while (block := self._next(patience)) is not None:
            if isinstance(block, int):
                for size in range(block, 0, -_MOST_SILENCE):
                    yield np.zeros((min(size, _MOST_SILENCE), self.channels), np.float32)
            else:
                yield block

    def arrival(self, samples: int) -> float:
        """When (s, monotonic) the last of the first `samples` was heard. To be asked in rising order."""
        with self._changed:
            while len(self._arrivals) > 1 and self._arrivals[0].samples < samples:
                self._arrivals.popleft()
            return self._arrivals[0].at

    def has_gap(self, first: int, end: int) -> bool:
        """Whether samples from `first` to `end` are lost. To be asked in rising order of `first`."""
        with self._changed:
            while self._gaps and self._gaps[0][1] <= first:
                self._gaps.popleft()
            return bool(self._gaps) and self._gaps[0][0] < end

    def _next(self, patience: float | None) -> Float32 | int | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._blocks or self._has_ended, patience):
                raise StoppedError(
                    "the microphone", f"has given no sound for {patience:g} s", fix="rrtn listen --devices"
                )
            if self._blocks:
                block = self._blocks.popleft()
                self.waiting -= 0 if isinstance(block, int) else len(block)
                self._changed.notify_all()
                return block
            if self._error:
                raise self._error
            return None

    def _lose(self, first: int, count: int) -> None:
        self.lost += count
        if self._blocks and isinstance(last := self._blocks[-1], int):
            self._blocks[-1] = last + count
            self._gaps[-1] = self._gaps[-1][0], first + count
        else:
            self._blocks.append(count)
            self._gaps.append((first, first + count))

    def _note_arrival(self) -> None:
        now = time.monotonic()
        if len(self._arrivals) > 1 and now - self._arrivals[-2].at < _TICK:
            self._arrivals.pop()
        self._arrivals.append(_Arrival(self.heard, now))
