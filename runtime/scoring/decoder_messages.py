"""What the scoring process and its decoders tell each other: settings once, files in, clips and ends
of files out.

The clips themselves lie in memory that both share. Every file has a ticket, its number in the order
of the files.

N samples of a clip, T frames, M mels, S slots.
"""

import mmap
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..audio.sources import AudioSource
from ..frontend import input_shape
from ..spec import FrontendSpec, InputKind

IDLE: Final = -1  # the ticket of no file


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """What a decoder has to know."""

    spec: FrontendSpec
    input: InputKind
    slots: int
    window: float | None = None  # s; None: only the first clip of each file
    hop: float | None = None  # s
    max_seconds: float = 3600.0
    allow_truncated: bool = False

    @property
    def slot_dtype(self) -> "np.dtype[Any]":
        """Waveforms stay int16 as long as they can."""
        return np.dtype(np.int16) if self.input == "waveform" else np.dtype(np.float32)

    @property
    def slot_shape(self) -> tuple[int, ...]:
        """[N], or [1, T, M]."""
        return input_shape(self.spec, self.input)

    @property
    def bytes(self) -> int:
        """Of the shared memory: two numbers that say what the decoder is at, then the slots."""
        return 16 + self.slots * int(np.prod(self.slot_shape)) * self.slot_dtype.itemsize


class SlotMemory:
    """The shared memory, as both sides see it."""

    def __init__(self, descriptor: int, decoding: DecoderSettings) -> None:
        self._map = mmap.mmap(descriptor, decoding.bytes)
        self.at = np.frombuffer(
            self._map, np.int64, 2
        )  # ticket of the file that is being decoded, and since when (ns)
        shape = (decoding.slots, *decoding.slot_shape)
        self.slots: npt.NDArray[Any] = np.frombuffer(self._map, decoding.slot_dtype, offset=16).reshape(shape)
        self.at[0] = IDLE


class ClipInSlot(NamedTuple):
    """A clip of a file lies in a slot."""

    ticket: int
    slot: int
    start: float  # s
    end: float


class FileEnd(NamedTuple):
    """All clips of a file are there."""

    ticket: int
    seconds: float  # of audio
    flag: str
    decoding: float  # s that reading and decoding took
    features: float  # s that all else took


class BadFile(NamedTuple):
    """A file cannot be scored."""

    ticket: int
    code: str
    detail: str


class StorageFailure(NamedTuple):
    """Reading failed for a reason that says nothing about the file."""

    message: str


DecoderMessage = ClipInSlot | FileEnd | BadFile | StorageFailure
Chunk = list[tuple[int, AudioSource]]  # tickets and files
