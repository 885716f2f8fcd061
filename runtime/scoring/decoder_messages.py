"""What the scoring process and its decoders tell each other.

A decoder gets its settings once, then files. It answers with clips and with ends of files. The clips
themselves lie in memory that both sides share. Every file has a ticket, which is its number in the order of
the files.

N samples of a clip, T frames, M mels, S slots.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..audio.level import Level
from ..audio.sources import AudioSource
from ..errors import StoppedError
from ..frontend import input_shape
from ..spec import FrontendSpec, InputKind

IDLE: Final = -1  # the ticket of no file
_SLOTS_BEGIN: Final = mmap.PAGESIZE  # bytes; CUDA pins whole pages
Segment = Literal["level", "voice"]  # bursts by their level; of these, those that are a voice
Window = float | Literal["auto"]  # s; auto: of one clip, and a file of at most one clip has none


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """What a decoder has to know before the first file."""

    spec: FrontendSpec
    input: InputKind
    slots: int
    window: Window | None = None  # None: only the first clip of each file
    hop: float | None = None  # s
    segment: Segment | None = None  # then `window` cuts each burst
    max_seconds: float = 3600.0
    allow_truncated: bool = False
    channel: int | None = None  # counted from 1; None: the mean of all
    level: Level = "file"

    @property
    def slot_dtype(self) -> "np.dtype[Any]":
        """int16 for waveforms, float32 for log-Mels."""
        return np.dtype(np.int16) if self.input == "waveform" else np.dtype(np.float32)

    @property
    def slot_shape(self) -> tuple[int, ...]:
        """[N] for waveforms, [1, T, M] for log-Mels."""
        return input_shape(self.spec, self.input)

    @property
    def bytes(self) -> int:
        """Size of the shared memory: two numbers that say which file is being decoded, then the slots."""
        return _SLOTS_BEGIN + self.slots * int(np.prod(self.slot_shape)) * self.slot_dtype.itemsize


def windows(samples: int, decoding: DecoderSettings) -> Iterator[tuple[int, int]]:
    """Where the clips of a recording of so many samples begin and end. The last one may be cut short."""
    clip = decoding.spec.clip_samples
    if decoding.window is None or (decoding.window == "auto" and samples <= clip):
        yield 0, min(samples, clip)
        return
    length, hop = window_samples(decoding.window, decoding.hop, decoding.spec)
    beyond = min(samples, samples - length + hop)
    for start in range(0, max(1, beyond), hop):
        yield start, min(samples, start + length)


def window_samples(window: Window, hop: float | None, spec: FrontendSpec) -> tuple[int, int]:
    """Length of a window, and from one's start to the next one's, in samples at the spec's rate."""
    length = spec.clip_samples if window == "auto" else round(window * spec.sampling_rate)
    return length, round(hop * spec.sampling_rate) if hop else length


class SlotMemory:
    """The shared memory, as both sides see it.

    `at` has two numbers: the ticket of the file that is being decoded, and since when (ns).
    """

    def __init__(self, memory: mmap.mmap, decoding: DecoderSettings) -> None:
        self.at = np.frombuffer(memory, np.int64, 2)
        shape = (decoding.slots, *decoding.slot_shape)
        slots = np.frombuffer(memory, decoding.slot_dtype, offset=_SLOTS_BEGIN)
        self.slots: npt.NDArray[Any] = slots.reshape(shape)
        self.at[0] = IDLE


class ClipSpan(NamedTuple):
    """Which part of a file a clip is, and how much of that is not silence."""

    start: float  # s
    end: float
    sound: float  # s


TicketSpan = tuple[int, float, float, float]  # its ticket, then what ClipSpan has


class FileEnd(NamedTuple):
    """All clips of the file have been given."""

    ticket: int
    seconds: float  # of audio
    flags: tuple[str, ...] = ()
    content: bytes = b""  # its content_hash


class BadFile(NamedTuple):
    """The file cannot be scored."""

    ticket: int
    code: str
    detail: str
    content: bytes = b""  # its content_hash; empty where the file could not be read


FileChunk = list[tuple[int, AudioSource]]  # tickets and files


class DecoderWork(NamedTuple):
    """What a decoder is given."""

    chunk: FileChunk
    free: int  # slots that are free again


@dataclass
class Report:
    """What a decoder has done since its last report. All clips of a file come before its end.

    There is one report for many files, and its lists hold plain tuples: to pack and unpack them is most of
    what a file costs the scoring process.
    """

    first: int = 0  # the slot of the first clip; the others lie in those that follow, in a ring
    clips: list[TicketSpan] = field(default_factory=list)
    ends: list[tuple[int, float, tuple[str, ...], bytes]] = field(default_factory=list)  # as FileEnd
    bad: list[BadFile] = field(default_factory=list)
    decoding: float = 0.0  # s that reading and decoding took
    features: float = 0.0  # s that all else took
    failure: StoppedError | None = None  # of the storage, which says nothing about the file
