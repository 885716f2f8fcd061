"""The bursts of a recording, each as if it were cut out into a file of its own.

Which samples a burst has, the detector says (bursts.py). Its level, and what of it is sound, come from these
samples alone. N samples.
"""

from collections.abc import Callable, Iterator

from ..arrays import Float32
from ..spec import FrontendSpec
from .bursts import BurstDetector
from .cutting import cut
from .recording import Blocks, Measured, Recording, recording_of

BurstFilter = Callable[[Recording], bool]  # says whether a burst counts
Meter = Callable[[Float32], None]  # is given each block [N, C] of a file, before anything is done to it


class Segments:
    """The bursts of a recording that has been measured."""

    def __init__(
        self,
        spec: FrontendSpec,
        measured: Measured[BurstDetector],
        parts: tuple[Blocks, ...],
        flags: frozenset[str],
        *,
        gate: BurstFilter | None = None,
        meter: Meter | None = None,
    ) -> None:
        """`parts` give the samples once more. Raises AudioError for no samples, NaN and infinity."""
        self.flags = flags | {"silent"} if measured.is_silent() else flags
        self.seconds = measured.samples / measured.rate  # of the file
        self._spec, self._measured, self._parts = spec, measured, parts
        self._gate, self._meter = gate, meter

    def __iter__(self) -> Iterator[tuple[int, Recording]]:
        """(start in samples, burst) of each burst, in order.

        Raises AudioError where a file that is decoded again has become another.
        """
        spans = self._measured.listener.spans()
        for start, samples in cut(self._blocks(), spans):
            burst = recording_of(samples, self._spec)
            if self._gate is None or self._gate(burst):
                yield start, burst

    def _blocks(self) -> Iterator[Float32]:
        for block in self._measured.blocks(self._parts):
            if self._meter:
                self._meter(block[:, None])
            yield block
