"""Many channels to one, by rules that look at the whole of a recording.

1. The channels are averaged, or the one that the user names is taken.
2. Channels that cancel each other (one is the other upside down, as a miswired cable makes them) are not
   averaged: the loudest is taken. Channels without any relation keep 1/C of their power in the mean. They
   cancel where less than a tenth of that is left.
3. An offset of more than 15% of the peak is removed, since the level must be that of the sound. It is
   the mean of all samples. A recording of less than 0.1 s keeps it: a click has a mean, too.

Every other recording keeps its samples as they are. Loudness is measured without the offset. N samples, C
channels.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ..arrays import Float32
from ..errors import AudioError

SILENCE_PEAK: Final = 1e-7  # below the last bit of 24-bit audio
_CANCELLED: Final = 0.1  # of the power that the mean of unrelated channels has
_EQUAL: Final = 0.99  # of the power of the loudest
OFFSET_SHARE: Final = 0.15  # of the peak: 1.2 dB. Rough voices reach 0.14 without an offset
SHORTEST_WITH_OFFSET: Final = 0.1  # s


@dataclass(frozen=True, kw_only=True)
class Mixdown:
    """How a block becomes one channel."""

    channel: int | None = None  # counted from 0; None: the mean of all
    offset: float = 0.0  # is subtracted
    flags: frozenset[str] = frozenset()

    def __call__(self, block: Float32) -> Float32:
        """[C, N] -> [N]. Raises AudioError where the channel is missing."""
        mono = self._one_channel(block)
        return mono - np.float32(self.offset) if self.offset else mono

    def _one_channel(self, block: Float32) -> Float32:
        channels = len(block)
        if self.channel is not None and self.channel >= channels:
            raise AudioError("no_channel", f"{channels}, and --channel {self.channel + 1} was given")
        if channels == 1 or self.channel is not None:
            return np.asarray(block[self.channel or 0])
        return _mean(block)


def _mean(block: Float32) -> Float32:
    """[C, N] -> [N]. The sum of finite samples may be too large for float32, and their mean is not."""
    try:
        with np.errstate(over="raise"):
            return _sum(block) / np.float32(len(block))
    except FloatingPointError:
        return np.asarray(block.mean(axis=0, dtype=np.float64), np.float32)


def _sum(block: Float32) -> Float32:
    """[C, N] -> [N], with the roundings of the sum of a NumPy row; C is at most 8."""
    if len(block) < 8:
        return np.asarray(functools.reduce(np.add, block))
    while len(block) > 1:
        block = block[0::2] + block[1::2]
    return np.asarray(block[0])


class ChannelLevels:
    """What all the blocks of a recording say of its channels, and of the mixdown that was made of them."""

    def __init__(self) -> None:
        self._frames = 0
        self._sum = 0.0  # of the mixdown
        self._low, self._high = math.inf, -math.inf
        self._mono = _Power()
        self._channels: list[_Power] = []  # [C] where there are several

    def add(self, block: Float32, mono: Float32) -> None:
        """Adds a block [C, N] and its mixdown [N]."""
        self._frames += len(mono)
        self._sum += float(mono.sum())
        self._low = min(self._low, float(mono.min()))
        self._high = max(self._high, float(mono.max()))
        if len(block) > 1:
            self._channels = self._channels or [_Power() for _ in block]
            self._mono.add(mono)
            for power, samples in zip(self._channels, block, strict=True):
                power.add(samples)

    def right_mixdown(self, made: Mixdown, rate: int) -> Mixdown:
        """The one that the recording needs, where `made` was made so far. `rate` is in Hz."""
        if made.channel is None and self._channels_cancel():
            return Mixdown(channel=self._loudest(), flags=made.flags | {"one_channel"})
        if not made.offset and self._offset_counts(rate):
            return replace(made, offset=self._mean, flags=made.flags | {"dc"})
        return made

    def _channels_cancel(self) -> bool:
        powers = [power.value for power in self._channels]
        unrelated = sum(powers) / max(1, len(powers)) ** 2
        return max(powers, default=0.0) > SILENCE_PEAK**2 and self._mono.value < _CANCELLED * unrelated

    def _loudest(self) -> int:
        """The first of those that are about equal: rounding decides nothing."""
        powers = [power.value for power in self._channels]
        return next(i for i, power in enumerate(powers) if power >= _EQUAL * max(powers))

    @property
    def _mean(self) -> float:
        return self._sum / self._frames

    def _offset_counts(self, rate: int) -> bool:
        if self._frames < SHORTEST_WITH_OFFSET * rate:
            return False
        peak = max(self._high - self._mean, self._mean - self._low)
        return abs(self._mean) > max(OFFSET_SHARE * peak, SILENCE_PEAK)


class _Power:
    """Mean square of samples without their mean.

    The mean of the first samples is taken away before squaring: a quiet voice would drown in the rounding of
    a large offset.
    """

    def __init__(self) -> None:
        self._frames, self._sum, self._squares = 0, 0.0, 0.0
        self._shift = np.float32(0)

    def add(self, samples: Float32) -> None:
        """Adds [N]."""
        if not self._frames:
            self._shift = samples.mean()
        centred = samples - self._shift
        self._frames += len(samples)
        self._sum += float(centred.sum())
        self._squares += float(centred @ centred)

    @property
    def value(self) -> float:
        """NaN where a sample is not finite."""
        return self._squares / self._frames - (self._sum / self._frames) ** 2
