"""How loud a recording is, and whether it was clipped.

Both are measured on the samples of the file, before the frontend sets their level. N samples, C
channels.
"""

from typing import Final

import numpy as np

from ...runtime.arrays import Float32

CLIPPED: Final = 3  # from this many flat tops on, a recording counts as clipped; one or two are chance
_EQUAL: Final = 1 - 1e-4  # share of the peak that counts as the peak: 32767 and -32768 are the same limit


class LevelMeter:
    """Call it with each block [N, C] of a file, in order."""

    def __init__(self) -> None:
        self.peak = 0.0  # of all channels; full scale is 1
        self.flat_tops = 0  # how often a channel stays at the peak for at least 3 samples, at any level

    def __call__(self, block: Float32) -> None:
        """Starts counting again at each peak that is higher than what counts as the one before."""
        level = np.abs(block)
        peak = float(level.max(initial=0.0))
        if peak * _EQUAL > self.peak:
            self.flat_tops = 0
        self.peak = max(peak, self.peak)
        if self.peak:
            high = level >= np.float32(self.peak * _EQUAL)
            flat = high[2:] & high[1:-1] & high[:-2]
            self.flat_tops += int(flat[:1].sum() + (flat[1:] & ~flat[:-1]).sum())
