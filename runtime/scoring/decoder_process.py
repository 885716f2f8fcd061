"""A process that turns files into the input of the model. decoder_pool starts it: `python -c "...main(...)"`.

Decoding holds the GIL and may crash in a codec, so processes of their own do it. Such a process gets chunks
of files through a pipe. It writes each clip into a slot of memory that it shares with the scoring process,
and says through the pipe what lies in which slot.
"""

import contextlib
import gc
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from ..arrays import Float32, Int16, waveform_from_samples
from ..audio.codes import in_order
from ..audio.pack_reader import PackReader
from ..audio.reader import opened, recording_from_descriptor, segments_from_descriptor
from ..audio.recording import Recording
from ..audio.segments import Segments
from ..audio.sources import AudioSource, PackedFile, content_hash
from ..audio.voice_gate import VoiceGate
from ..errors import AudioError, StoppedError
from ..frontend import clip_input
from ..system.descriptors import shorten_stderr
from ..system.failpoints import failpoint
from ..system.host import end_with_parent, go_behind, ignore_interrupts, inherited_connection, opened_memory
from ..system.memory import MEMORY_BUDGET, limit_memory
from .decoder_messages import (
    IDLE,
    BadFile,
    ClipSpan,
    DecoderSettings,
    DecoderWork,
    FileChunk,
    Report,
    SlotMemory,
    windows,
)

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_RETRIES: Final = (0.1, 0.5, 2.0)  # s to wait before each new try, when the storage fails
_HASHED_IF_BAD: Final = 64 << 20  # bytes; a file that was refused by its header may be very large
_MOST_SAID: Final = 1 << 18  # bytes of stderr that are kept; libmpg123 has notes on each frame of a bad file
_NICE: Final = 5  # the threads of the model go first, since they wait for each other


def main(pipe: int, memory: str) -> None:
    """Reads DecoderSettings from the pipe, then decodes chunks of files until the pipe ends.

    `pipe` is inherited, `memory` the name of SharedMemory of the scoring process.
    """
    ignore_interrupts()  # Ctrl-C is for the scoring process, which ends the pipe
    end_with_parent()  # a decoder that hangs in a file does not read the pipe
    # Loaded here, while the scoring process loads the model, and not with the first file.
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    gc.freeze()
    gc.enable()
    ended = contextlib.suppress(_PipeEnded, EOFError, BrokenPipeError, ConnectionResetError)
    with ended, inherited_connection(pipe) as connection:
        decoding: DecoderSettings = connection.recv()
        limit_memory(MEMORY_BUDGET, of="space")
        go_behind(_NICE)
        slots = SlotMemory(opened_memory(memory, decoding.bytes), decoding)
        decoder = _DecoderLoop(connection, slots, decoding)
        connection.send(Report())  # ready
        decoder.run()


class _PipeEnded(BaseException):
    """The scoring process wants no more. No Exception, since those are faults of a file."""


class _DecoderLoop:
    """Decodes chunk after chunk. It reports when a chunk is done, and when no slot is free."""

    def __init__(self, connection: "Connection", memory: SlotMemory, decoding: DecoderSettings) -> None:
        self._connection = connection
        self._memory = memory
        self._decoding = decoding
        self._next_slot, self._free = 0, decoding.slots
        self._report = Report()
        self._chunks: list[FileChunk] = []
        self._waited = 0.0  # s, for free slots, since the start
        self._packs = PackReader()
        self._content = b""  # the content_hash of the file

    def run(self) -> None:
        """Decodes until the pipe ends. Raises _PipeEnded then."""
        while True:
            while not self._chunks:
                self._receive()
            for ticket, source in self._chunks.pop(0):
                self._decode(ticket, source)
            self._send()

    def _receive(self) -> None:
        try:
            work: DecoderWork = self._connection.recv()
        except EOFError:
            raise _PipeEnded from None
        self._free += work.free
        if work.chunk:
            self._chunks.append(work.chunk)

    def _send(self) -> None:
        self._connection.send(self._report)
        self._report = Report(first=self._next_slot)

    def _decode(self, ticket: int, source: AudioSource) -> None:
        shorten_stderr(_MOST_SAID)
        self._works_on(ticket)
        self._content = b""
        try:
            begin = time.perf_counter()
            with contextlib.ExitStack() as opened_file:
                recording = self._measured(ticket, source, opened_file)
                decoded, waited = time.perf_counter(), self._waited
                flags = self._put_clips(ticket, recording)
            self._report.decoding += decoded - begin
            self._report.features += time.perf_counter() - decoded - (self._waited - waited)
            self._report.ends.append((ticket, recording.seconds, flags, self._content))
        except AudioError as error:
            self._report.bad.append(BadFile(ticket, error.code, error.detail, self._content))
        except StoppedError as error:
            self._report.failure = error
        except MemoryError:
            detail = f"more than {MEMORY_BUDGET >> 30} GiB"
            self._report.bad.append(BadFile(ticket, "out_of_memory", detail, self._content))
        except Exception as error:  # the other files are none the worse
            fault = AudioError.of_fault(error)
            self._report.bad.append(BadFile(ticket, fault.code, fault.detail, self._content))
        finally:
            self._works_on(IDLE)

    def _measured(
        self, ticket: int, source: AudioSource, opened_file: contextlib.ExitStack
    ) -> Recording | Segments:
        """The recording in a file, or its bursts, which `opened_file` closes."""
        read = partial(self._measured_once, ticket, source, opened_file)
        for pause in _RETRIES:
            with contextlib.suppress(StoppedError):
                return read()
            time.sleep(pause)
        return read()

    def _measured_once(
        self, ticket: int, source: AudioSource, opened_file: contextlib.ExitStack
    ) -> Recording | Segments:
        decoding = self._decoding
        read: Callable[..., Recording | Segments] = partial(recording_from_descriptor, level=decoding.level)
        if decoding.segment:
            gate = VoiceGate(decoding.spec.sampling_rate) if decoding.segment == "voice" else None
            read = partial(segments_from_descriptor, gate=gate)
        with contextlib.ExitStack() as stack:
            file = self._packs.opened(source) if isinstance(source, PackedFile) else opened(source)
            descriptor = stack.enter_context(file)
            try:
                recording = read(
                    descriptor,
                    decoding.spec,
                    max_seconds=decoding.max_seconds,
                    allow_truncated=decoding.allow_truncated,
                    channel=decoding.channel,
                    meter=lambda _: self._note_block(ticket),
                )
            except AudioError:
                if os.fstat(descriptor).st_size <= _HASHED_IF_BAD:
                    self._content = content_hash(descriptor)
                raise
            self._memory.at[1] = time.monotonic_ns()  # a long file has its time limit for this, too
            self._content = content_hash(descriptor)
            opened_file.push(stack.pop_all())
            return recording

    def _note_block(self, ticket: int) -> None:
        """Before each block. A file in windows may be of any length: --timeout is for each block of it."""
        shorten_stderr(_MOST_SAID)
        if self._decoding.window:
            self._works_on(ticket)

    def _put_clips(self, ticket: int, recording: Recording | Segments) -> tuple[str, ...]:
        """Puts each clip of the file into a slot; -> the file's flags."""
        if isinstance(recording, Segments):
            return self._put_segments(ticket, recording)
        flags = set(recording.flags)
        stop = self._put_windows(ticket, recording)
        if self._decoding.window is None and recording.sound(stop, recording.length):
            flags.add("only_start")
        return in_order(flags)

    def _put_segments(self, ticket: int, segments: Segments) -> tuple[str, ...]:
        flags = {*segments.flags, "no_burst"}
        for start, burst in segments:
            self._put_windows(ticket, burst, start)
            flags |= burst.flags & {"dc"}
            flags.discard("no_burst")
        return in_order(flags)

    def _put_windows(self, ticket: int, recording: Recording, begin: int = 0) -> int:
        """Puts each window of a recording, which begins `begin` samples into the file; -> the last end."""
        rate, stop = self._decoding.spec.sampling_rate, 0
        for start, samples, sound in recording.clips(windows(recording.length, self._decoding)):
            stop = start + len(samples)
            first, last = recording.start + (begin + start) / rate, recording.start + (begin + stop) / rate
            self._put(ticket, samples, ClipSpan(first, last, sound))
        return stop

    def _put(self, ticket: int, samples: Int16, span: ClipSpan) -> None:
        clip = self._clip(samples)  # may fail: a slot that no report names would shift all later clips
        slot = self._take_slot(ticket)
        self._memory.slots[slot, ..., : clip.shape[-1]] = clip
        self._memory.slots[slot, ..., clip.shape[-1] :] = 0
        self._report.clips.append((ticket, *span))

    def _clip(self, samples: Int16) -> Int16 | Float32:
        """What the model takes of a clip: its samples [N], fewer where it is short, or its log-Mel."""
        failpoint("clip")
        if self._decoding.input == "waveform":
            return samples
        return clip_input(waveform_from_samples(samples), self._decoding.spec, self._decoding.input)

    def _take_slot(self, ticket: int) -> int:
        if not self._free:
            begin = time.perf_counter()
            self._works_on(IDLE)  # or the pool would take the waiting for hanging
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
