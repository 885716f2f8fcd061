"""A process that turns files into what the model takes: `python -c "...decoding.main(...)"`, started by `decoders`.

Decoding holds the GIL and may crash in a codec, so it has processes of its own. One gets chunks of files through a pipe
and writes each clip into a slot of memory that it shares with the scoring process; the pipe says what lies where.

N samples of a clip, T frames, M mels, S slots.
"""

import contextlib
import mmap
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .audio import Audio, Int16, audio_from_descriptor, opened, waveform_from_samples
from .bundle import InputKind
from .errors import AudioError, StoppedError
from .frontend import clip_input, input_shape
from .inputs import SEPARATOR
from .spec import FrontendSpec

if TYPE_CHECKING:
    from .packs import PackReader

IDLE: Final = -1  # the ticket of no file
_RETRIES: Final = (0.1, 0.5, 2.0)  # s to wait before each, where the storage fails
_MEMORY: Final = 4 << 30  # bytes that a decoder may take beyond what it has at the start
_NICE: Final = 5  # the model's threads wait for each other, a decoder for nobody


@dataclass(frozen=True, kw_only=True)
class Decoding:
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


class Memory:
    """The shared memory, as both sides see it."""

    def __init__(self, descriptor: int, decoding: Decoding) -> None:
        self._map = mmap.mmap(descriptor, decoding.bytes)
        self.at = np.frombuffer(self._map, np.int64, 2)  # ticket of the file that is being decoded, and since when (ns)
        shape = (decoding.slots, *decoding.slot_shape)
        self.slots: npt.NDArray[Any] = np.frombuffer(self._map, decoding.slot_dtype, offset=16).reshape(shape)
        self.at[0] = IDLE


class Clip(NamedTuple):
    """A clip of a file lies in a slot."""

    ticket: int
    slot: int
    start: float  # s
    end: float


class End(NamedTuple):
    """All clips of a file are there."""

    ticket: int
    seconds: float  # of audio
    flag: str
    decoding: float  # s that reading and decoding took
    features: float  # s that all else took


class Bad(NamedTuple):
    """A file cannot be scored."""

    ticket: int
    code: str
    detail: str


class Storage(NamedTuple):
    """Reading failed for a reason that says nothing about the file."""

    message: str


Event = Clip | End | Bad | Storage
Chunk = list[tuple[int, bytes]]  # tickets and paths


def main(pipe: int, memory: int) -> None:
    """The process: reads its Decoding from the pipe, then chunks until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the scoring process, which ends the pipe
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import soundfile  # noqa: F401  # while the model is loaded, not with the first file
    import soxr  # noqa: F401

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError), Connection(pipe) as connection:
        decoding: Decoding = connection.recv()
        _limit_memory()
        os.nice(_NICE)
        decoder = _Decoder(connection, Memory(memory, decoding), decoding)
        connection.send([])  # ready
        decoder.run()


class _Decoder:
    def __init__(self, connection: Connection, memory: Memory, decoding: Decoding) -> None:
        self._connection = connection
        self._memory = memory
        self._decoding = decoding
        self._next_slot, self._free = 0, decoding.slots
        self._events: list[Event] = []
        self._chunks: list[Chunk] = []
        self._waited = 0.0  # s, for free slots
        self._packs: PackReader | None = None

    def run(self) -> None:
        """Until the pipe ends, which raises EOFError."""
        while True:
            while not self._chunks:
                self._receive()
            for ticket, path in self._chunks.pop(0):
                event = self._decode(ticket, path)  # which sends what there is, and begins a new list, for want of slots
                self._events.append(event)
            self._send()

    def _receive(self) -> None:
        """A chunk of files, or the number of slots that are free again."""
        message: Chunk | int = self._connection.recv()
        if isinstance(message, int):
            self._free += message
        else:
            self._chunks.append(message)

    def _send(self) -> None:
        self._connection.send(self._events)
        self._events = []

    def _decode(self, ticket: int, path: bytes) -> Event:
        self._works_on(ticket)
        try:
            begin = time.perf_counter()
            audio = self._read(path)
            decoded, waited = time.perf_counter(), self._waited
            for samples, start, end in self._clips(audio):
                self._put(ticket, samples, start, end)
            features = time.perf_counter() - decoded - (self._waited - waited)
            return End(ticket, audio.seconds, audio.flag, decoded - begin, features)
        except AudioError as error:
            return Bad(ticket, error.code, error.detail)
        except StoppedError as error:
            return Storage(str(error))
        except MemoryError:
            return Bad(ticket, "out_of_memory", f"more than {_MEMORY >> 30} GiB")
        finally:
            self._works_on(IDLE)

    def _read(self, path: bytes) -> Audio:
        read = partial(self._read_once, path)
        for pause in _RETRIES:
            with contextlib.suppress(StoppedError):
                return read()
            time.sleep(pause)
        return read()

    def _read_once(self, path: bytes) -> Audio:
        decoding = self._decoding
        with self._opened_in_pack(path) if SEPARATOR in path else opened(path) as descriptor:
            return audio_from_descriptor(
                descriptor, decoding.spec, max_seconds=decoding.max_seconds, allow_truncated=decoding.allow_truncated
            )

    def _opened_in_pack(self, path: bytes) -> "contextlib.AbstractContextManager[int]":
        if self._packs is None:
            from .packs import PackReader

            self._packs = PackReader()
        return self._packs.opened(path)

    def _clips(self, audio: Audio) -> Iterator[tuple[Int16, float, float]]:
        """Samples of at most a clip, and where they are in the file."""
        rate, longest = self._decoding.spec.sampling_rate, self._decoding.spec.clip_samples
        if self._decoding.window is None:
            yield audio.samples[:longest], 0.0, min(len(audio.samples), longest) / rate
            return
        length = round(self._decoding.window * rate)
        hop = round((self._decoding.hop or self._decoding.window) * rate)
        beyond = min(len(audio.samples), len(audio.samples) - length + hop)
        for start in range(0, max(1, beyond), hop):  # the last one may be cut short
            part = audio.samples[start : start + length]
            yield part, start / rate, (start + len(part)) / rate

    def _put(self, ticket: int, samples: Int16, start: float, end: float) -> None:
        slot = self._take_slot(ticket)
        if self._decoding.input == "waveform":
            self._memory.slots[slot, : len(samples)] = samples
            self._memory.slots[slot, len(samples) :] = 0
        else:
            self._memory.slots[slot] = clip_input(waveform_from_samples(samples), self._decoding.spec, self._decoding.input)
        self._events.append(Clip(ticket, slot, start, end))

    def _take_slot(self, ticket: int) -> int:
        if not self._free:
            begin = time.perf_counter()
            self._works_on(IDLE)  # to wait is not to hang
            self._send()
            self._await_free_slots()
            self._works_on(ticket)
            self._waited += time.perf_counter() - begin
        self._free -= 1
        slot = self._next_slot
        self._next_slot = (slot + 1) % self._decoding.slots
        return slot

    def _await_free_slots(self) -> None:
        while not self._free:
            self._receive()

    def _works_on(self, ticket: int) -> None:
        self._memory.at[1] = time.monotonic_ns()
        self._memory.at[0] = ticket


def _end_with(parent: int) -> None:
    """The pipe says it too, but not to a decoder that hangs in a file."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _limit_memory() -> None:
    """So that a file which makes a decoder take all memory ends the decoder and not the machine."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
