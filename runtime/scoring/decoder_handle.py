"""A decoder process, as the scoring process sees it: what it was given, how it stands, and how it ended.

C clips of any number.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Pipe
from typing import IO, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..system.descriptors import fill_standard_descriptors
from ..system.host import SIGKILL, Inherited, SharedMemory, is_stopped, start_process
from .decoder_messages import IDLE, DecoderSettings, DecoderWork, FileChunk, Report, SlotMemory, TicketSpan
from .decoder_start import check_process, decoder_command, decoder_environment, this_process

_START: Final = 120.0  # s that a decoder may take to start
_STANDS: Final = 20.0  # s without a sign of a decoder that has files and is at none: then it stands still
_STOPPED: Final = 3.0  # s that a decoder may be stopped (SIGSTOP), at a file or not
LATEST_END: Final = 5.0  # s that a decoder may take to end once its pipe has ended
_LAST_WORDS: Final = 1 << 12  # bytes of its stderr that are looked at
Pin = Callable[[npt.NDArray[Any]], Callable[[], None]]


class ClipsReady(NamedTuple):
    """Clips of one decoder, of one file or of several.

    `features` [C, ...] lie in memory of the decoder. They are valid until the next event is asked for.
    """

    clips: Sequence[TicketSpan]  # C
    features: npt.NDArray[np.int16 | np.float32]


class DecoderEnd(NamedTuple):
    """How a decoder has ended."""

    code: int  # negative: the signal
    words: str


class DecoderHandle:
    """A decoder process as the pool sees it."""

    def __init__(self, decoding: DecoderSettings) -> None:
        self.chunks: deque[dict[int, None]] = deque()  # the unfinished tickets of each chunk
        self._free = 0  # slots that are free again, and the decoder has not been told
        self.has_started = False
        self._owner = this_process()
        self._last = time.monotonic()  # when a message was last sent or received
        fill_standard_descriptors()
        self._unpin: Callable[[], None] = lambda: None
        with contextlib.ExitStack() as on_error, contextlib.ExitStack() as theirs:
            self._errors: IO[bytes] = on_error.enter_context(tempfile.TemporaryFile())
            memory = SharedMemory(decoding.bytes)
            theirs.callback(memory.hand_over)
            self.memory = SlotMemory(memory.map, decoding)
            self.connection, pipe = Pipe()
            on_error.callback(self.connection.close)
            theirs.callback(pipe.close)
            self._process = _started(Inherited(pipe.fileno(), memory), self._errors)
            on_error.pop_all()  # closed with the process
        self._send(decoding)

    def pin(self, pin: Pin) -> None:
        """`pin` is Backend.pin; what it gives is called at the end."""
        self._unpin = pin(self.memory.slots)

    def give(self, chunk: FileChunk) -> None:
        """Hands files to the decoder, and the slots that are free again."""
        self.chunks.append(dict.fromkeys(ticket for ticket, _ in chunk))
        self._give(chunk)

    def free(self) -> None:
        """Tells the decoder which slots are free again, unless a chunk has taken the word along."""
        if self._free:
            self._give([])

    def receive(self) -> Report:
        """Waits for the next report. Raises EOFError where the decoder has ended."""
        check_process(self._owner)
        report: Report = self.connection.recv()
        self.has_started, self._last = True, time.monotonic()
        return report

    def clips(self, report: Report) -> Iterator[ClipsReady]:
        """The clips of a report. Their slots are a ring, so they may lie in two pieces."""
        slots, clips, first = self.memory.slots, report.clips, report.first
        while clips:
            piece = clips[: len(slots) - first]
            yield ClipsReady(piece, slots[first : first + len(piece)])
            self._free += len(piece)
            clips, first = clips[len(piece) :], 0

    def finish(self, ticket: int) -> None:
        """Notes that the file is done."""
        for chunk in self.chunks:
            chunk.pop(ticket, None)
        while self.chunks and not self.chunks[0]:
            self.chunks.popleft()

    def works_on(self) -> tuple[int, float]:
        """The ticket of the file that is being decoded, and since when (s, of the monotonic clock)."""
        ticket, since = (int(number) for number in self.memory.at)
        return ticket, since / 1e9

    def reason_to_replace(self, now: float, back: float) -> str:
        """Why another decoder should take over, whatever the file; or "".

        `now` and `back` are times (s, of the monotonic clock). The pool has looked without a pause since
        `back`.
        """
        ticket, since = self.works_on()
        quiet = now - max(since, self._last, back)
        if quiet > _STOPPED and is_stopped(self._process.pid):
            return "it was stopped"
        if self.chunks and ticket == IDLE and quiet > (_STANDS if self.has_started else _START):
            return f"it stood still for {quiet:.0f} s"
        # A process that was forked while this decoder started may hold its end of the pipe open.
        return "" if self._process.poll() is None or self.connection.poll() else "it has ended"

    def end(self, *, patience: float = 0.0) -> DecoderEnd:
        """Kills the decoder unless it ends by itself within `patience` (s)."""
        code = self._code(patience)
        if code is None:
            self._process.kill()
            code = self._code(LATEST_END)
        self._close_pipes()
        self._unpin()
        with self._errors as errors:
            errors.seek(max(0, os.fstat(errors.fileno()).st_size - _LAST_WORDS))
            said = errors.read().decode(errors="replace").strip().splitlines()
        if code is None:  # in a call of the system that no signal ends; the system keeps it
            return DecoderEnd(-SIGKILL, "it cannot be ended: storage that does not answer")
        return DecoderEnd(code, said[-1] if said else f"signal {-code}" if code < 0 else f"exit code {code}")

    def let_go(self) -> None:
        """Closes what this process has of a decoder of another one."""
        self._close_pipes()
        self._errors.close()
        self._process.returncode = 0  # or its end would look for a child that this process does not have

    def _code(self, patience: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(patience)
        return None

    def _close_pipes(self) -> None:
        self.connection.close()
        if self._process.stdin:
            self._process.stdin.close()

    def _give(self, chunk: FileChunk) -> None:
        work = DecoderWork(chunk, self._free)
        self._free = 0
        self._send(work)

    def _send(self, message: object) -> None:
        check_process(self._owner)
        self._last = time.monotonic()
        # That a decoder has died is noticed where its messages are read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)


def _started(inherited: Inherited, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Starts a new interpreter. No code of the caller is run again, and none of its threads is copied."""
    command = decoder_command(inherited.pipe, inherited.memory.name)
    return start_process(command, inherited, env=decoder_environment(), errors=errors)
