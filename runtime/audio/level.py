"""How loud the model hears a sound: its peak is set to that of the spec.

A recording has one level, that of its loudest sample. Of live sound nobody knows that sample before the end,
so there a window has the level of the loudest sample of all windows so far, its own included. What is quiet
beside something loud before it stays quiet, as in a recording. Before anything loud, the level is that of a
sound of -40 dBFS, so that the noise of a quiet room is not lifted to the level of a voice.

N samples.
"""

from typing import Final, Literal, NamedTuple

import numpy as np

from ..arrays import INT16_SCALE, Float32, Int16
from ..errors import AudioError
from ..spec import FrontendSpec
from .mixdown import SILENCE_PEAK
from .sound import FramePowers

Level = Literal["file", "running"]
FIRST_PEAK_DBFS: Final = -40.0


class LevelledClip(NamedTuple):
    """Samples as the model hears them."""

    start: int  # samples, from the beginning of what the spec keeps
    samples: Int16  # [N]
    sound: float  # s of it that hold sound


class RunningLevel:
    """Sets window after window to the level of the loudest sample so far."""

    def __init__(self, spec: FrontendSpec) -> None:
        self._spec = spec
        self._peak = 10 ** (FIRST_PEAK_DBFS / 20)
        self._power = 0.0  # of the loudest frame so far

    def clip(self, start: int, window: Float32) -> LevelledClip:
        """The next window [N], which begins at `start`.

        Raises AudioError for NaN and infinity; the windows after it are as if it had not been.
        """
        sound = self.hear(window)
        return LevelledClip(start, at_level(window, self._peak, self._spec), sound)

    def hear(self, window: Float32) -> float:
        """Counts the next window [N]; -> how much of it is sound (s): within 60 dB of the loudest so far.

        Raises what `clip` raises.
        """
        peak = finite_peak(float(np.abs(window).max(initial=0.0)))
        self._peak = max(self._peak, peak)
        powers = FramePowers(self._spec.sampling_rate)
        powers.add(window)
        sound = powers.sound(self._power)
        self._power = sound.loudest
        return 0.0 if peak < SILENCE_PEAK else sound.seconds(0, len(window))


def levelled(mono: Float32, spec: FrontendSpec) -> Int16:
    """All samples [N] of a recording -> int16 [N] with the spec's peak; silence stays silence.

    Raises AudioError for NaN and infinity.
    """
    return at_level(mono, finite_peak(float(np.abs(mono).max(initial=0.0))), spec)


def finite_peak(peak: float) -> float:
    """The peak. The file may have NaN, or the resampler makes it where it overshoots the limit of float32.

    Raises AudioError for NaN and infinity.
    """
    if not np.isfinite(peak):
        raise AudioError("non_finite", "NaN or infinity among the samples")
    return peak


def at_level(block: Float32, peak: float, spec: FrontendSpec) -> Int16:
    """Samples [N] of a sound with this peak -> int16 [N] of one with the spec's; silence stays silence."""
    if peak < SILENCE_PEAK:
        return np.zeros(len(block), dtype=np.int16)
    return np.round(block * np.float32(INT16_SCALE * spec.peak / peak)).astype(np.int16)
