"""Where in a recording there is sound, and where silence.

A recording is looked at in frames of 10 ms. A frame holds sound if its power is within 60 dB of the power of
the recording's loudest frame, the rule of `librosa.effects.trim` (top_db = 60). Digital silence, dither and
the noise of a good recorder lie below; breath and room noise lie above.

N samples, F frames.
"""

import copy
from typing import Final

import numpy as np

from ..arrays import Float32

_FRAME_SECONDS: Final = 0.01
SOUND_RANGE: Final = 1e-6  # of power: 60 dB
_NOTHING: Final = np.zeros(0, np.float32)


def frame_samples(rate: int) -> int:
    """Length of a frame, in samples. `rate` is in Hz."""
    return max(1, round(_FRAME_SECONDS * rate))


class Framer:
    """Cuts a recording that comes in blocks into frames of 10 ms."""

    def __init__(self, rate: int) -> None:
        """`rate` is in Hz."""
        self.frame = frame_samples(rate)
        self._rest = _NOTHING  # the beginning of a frame

    def frames(self, block: Float32) -> Float32:
        """The frames [F, frame] that the next samples [N] complete."""
        waiting = np.concatenate([self._rest, block]) if len(self._rest) else block
        whole = len(waiting) // self.frame * self.frame
        self._rest = waiting[whole:].copy()
        return waiting[:whole].reshape(-1, self.frame)

    def last(self) -> Float32:
        """The frame at the end, which is short: [1, less than `frame`], or [0, 1] where there is none."""
        return self._rest.reshape(-1, max(1, len(self._rest)))


class FramePowers:
    """Collects the power of each frame of a recording that comes in blocks. An hour takes 1.4 MB."""

    def __init__(self, rate: int) -> None:
        """`rate` is in Hz."""
        self.rate, self._framer = rate, Framer(rate)
        self._samples = 0
        self._powers: list[Float32] = []

    def copy(self) -> "FramePowers":
        """One to which blocks can be added without changing this one."""
        other = copy.copy(self)
        other._framer, other._powers = copy.copy(self._framer), [*self._powers]
        return other

    def add(self, block: Float32) -> None:
        """Adds the next samples [N]."""
        self._samples += len(block)
        self._powers.append(frame_powers(self._framer.frames(block)))

    def sound(self, loudest: float = 0.0) -> "Sound":
        """The sound of all blocks. The last frame may be short. `loudest`: power of a frame before them."""
        powers = np.concatenate([_NOTHING, *self._powers, frame_powers(self._framer.last())])
        return Sound(powers, self._samples, self.rate, loudest)


class Sound:
    """The frames of a recording that hold sound."""

    def __init__(self, powers: Float32, samples: int, rate: int, loudest: float = 0.0) -> None:
        """`powers` [F] are the frames' mean squares, `samples` the length of the recording at `rate` (Hz)."""
        self._rate, self._frame, self._end = rate, frame_samples(rate), samples
        self.loudest = float(powers.max(initial=loudest))  # mean square of the loudest frame
        self._frames = (powers > 0) & (powers >= SOUND_RANGE * self.loudest)

    def seconds(self, start: int, stop: int) -> float:
        """How much of the samples from `start` to `stop` lies in frames with sound, in seconds."""
        stop = min(stop, self._end)
        first, last = start // self._frame, -(-stop // self._frame)
        if start >= stop:
            return 0.0
        held = int(np.count_nonzero(self._frames[first:last])) * self._frame
        if self._frames[first]:
            held -= start - first * self._frame
        if self._frames[last - 1]:
            held -= last * self._frame - stop
        return held / self._rate

    def extent(self) -> tuple[int, int]:
        """The samples from the first frame with sound to the end of the last; all of a silent recording."""
        found = np.flatnonzero(self._frames)
        if not len(found):
            return 0, self._end
        return int(found[0]) * self._frame, min(self._end, (int(found[-1]) + 1) * self._frame)


def frame_powers(frames: Float32) -> Float32:
    """Mean square [F] of frames. NaN and infinity stay what they are."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = frames.astype(np.float64)
        squares *= squares
        means = squares.sum(axis=1) / max(1, frames.shape[1])
        return np.asarray(means, np.float32)
