"""Where in a recording there is sound, and where silence.

A recording is looked at in frames of 10 ms. A frame holds sound if its power is within 60 dB of the power of
the recording's loudest frame, the rule of `librosa.effects.trim` (top_db = 60). Digital silence, dither and
the noise of a good recorder lie below; breath and room noise lie above.

N samples, F frames.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from ..arrays import Int16

_FRAME_SECONDS: Final = 0.01
_RANGE: Final = 1e-6  # of power: 60 dB


class Sound:
    """The frames of a recording that hold sound."""

    def __init__(self, samples: Int16, rate: int) -> None:
        """`samples` [N] are the whole recording; `rate` is in Hz."""
        self._length, self._rate = frame_samples(rate), rate
        self._end = len(samples)
        self._frames = audible(frame_powers(samples, self._length))

    @property
    def is_silent(self) -> bool:
        """True if no frame holds sound."""
        return not self._frames.any()

    def seconds(self, start: int, stop: int) -> float:
        """How much of the samples from `start` to `stop` lies in frames with sound, in seconds."""
        stop = min(stop, self._end)
        first, last = start // self._length, -(-stop // self._length)
        frames = self._frames[first:last]
        edges = np.clip(np.arange(first, last + 1) * self._length, start, stop)
        return float(np.diff(edges)[frames].sum()) / self._rate

    def extent(self) -> tuple[int, int]:
        """The samples from the first frame with sound to the end of the last; all of a silent recording."""
        found = np.flatnonzero(self._frames)
        if not len(found):
            return 0, self._end
        return int(found[0]) * self._length, min(self._end, (int(found[-1]) + 1) * self._length)


def frame_samples(rate: int) -> int:
    """Samples of one frame."""
    return max(1, round(_FRAME_SECONDS * rate))


def frame_powers(samples: Int16, length: int) -> npt.NDArray[np.float64]:
    """Mean square [F] of each frame of `length` samples; the last frame may be shorter."""
    if not len(samples):
        return np.zeros(0)
    squares = samples.astype(np.float64) ** 2
    starts = np.arange(0, len(samples), length)
    return np.asarray(np.add.reduceat(squares, starts) / np.diff([*starts, len(samples)]))


def audible(powers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which frames [F] hold sound."""
    return np.asarray((powers > 0) & (powers >= _RANGE * powers.max(initial=0.0)))
