"""A pool of processes that decode. Files go in, clips come out as they are ready.

A process that dies is replaced. Every file has a ticket, which is its number in the order of the files. The
clips of different files come in any order.
"""

import os
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import wait
from typing import Final, NamedTuple

from ..audio.sources import AudioSource
from ..errors import StoppedError
from .decoder_handle import LATEST_END, ClipsReady, DecoderHandle, Pin
from .decoder_messages import (
    IDLE,
    BadFile,
    DecoderSettings,
    FileChunk,
    FileEnd,
)
from .decoder_start import check_process, this_process
from .feed import Feed

_QUEUED: Final = 2  # chunks that a decoder has at a time
_STRIKES: Final = 2  # deaths of decoders until their file is given up
_LOOK_EVERY: Final = 0.5  # s between two looks at decoders that may hang
_AWAY: Final = 2.0  # s without a look: then everything may have been stopped (Ctrl-Z), and no file has hung
_DEATHS: Final = 3  # in a row, for each decoder, while no file is being decoded; then the pool gives up


class FilesEnded(NamedTuple):
    """All clips of these files have been given, or the files cannot be scored."""

    ends: Sequence[FileEnd | BadFile]
    decoding: float = 0.0  # s that reading and decoding took
    features: float = 0.0  # s that all else took


class FileRestarted(NamedTuple):
    """The decoder of this file has died, and another one starts the file again.

    What came of the file so far is void.
    """

    ticket: int


class PoolIdle(NamedTuple):
    """Nothing is being decoded. No file is taken before the caller gives out more results."""


class PoolLooked(NamedTuple):
    """All that has come since the last look was given. Only `events_of_feed` has this event."""

    decoding: int  # number of files that are being decoded


PoolEvent = ClipsReady | FilesEnded | FileRestarted | PoolIdle | PoolLooked


class DecoderPool:
    """A pool of up to `count` processes, each of which gets `chunk` files at a time. The pool must be closed.

    One process is started at once, each other one with the first files for it. A file that takes longer than
    `timeout` (s) to decode is given up.
    """

    def __init__(self, decoding: DecoderSettings, *, count: int, chunk: int, timeout: float) -> None:
        self._decoding, self._count, self._chunk, self._timeout = decoding, count, chunk, timeout
        self._pin: Pin = lambda slots: lambda: None
        self._decoders = [DecoderHandle(decoding)]
        self._requeued: deque[FileChunk] = deque()
        self._strikes: Counter[int] = Counter()
        self._sources: dict[int, AudioSource] = {}  # of files that are not decoded yet
        self._taken = 0
        self._deaths = 0  # of idle decoders, since the last event
        self._process = this_process()
        self._folder = _folder()
        self._has_started = False  # True once any decoder was ready
        self._looked = 0.0  # when the pool last looked for decoders that hang
        self._back = 0.0  # when it first looked after it had been away
        self._end_of_owner: weakref.finalize[..., object] | None = None
        self.released = 0  # files whose results the caller has given out

    def pin(self, pin: Pin) -> None:
        """`pin` is Backend.pin: it gets the slots of each decoder, and what it gives is called at its end."""
        self._pin = pin
        for decoder in self._decoders:
            decoder.pin(pin)

    def close_with(self, owner: object) -> None:
        """The pool is closed with its owner at the latest."""
        self._end_of_owner = weakref.finalize(owner, self.close)

    def events(self, sources: Iterable[AudioSource], *, ahead: int) -> Iterator[PoolEvent]:
        """Gives all events of all files. The events of several files are mixed.

        At most `ahead` files more than `released` are taken. A caller that does not take all events must
        close the pool. Raises StoppedError if the storage fails, ConfigError in a process that was forked
        since the pool was made.
        """
        self._taken = self.released = 0
        tickets = enumerate(sources)
        more = True
        while more or self._sources:
            check_process(self._process)
            more = more and self._take(tickets, ahead)
            self._give_requeued()
            for decoder in self._decoders:
                decoder.free()
            if not self._sources:
                yield PoolIdle()
                continue
            yield from self._look()

    def events_of_feed(self, feed: Feed) -> Iterator[PoolEvent]:
        """Gives all events of files that come while others are decoded, until the feed is closed.

        A decoder gets one file at a time and a second one to go on with; all are started at once, since a
        request does not wait for that. The caller must close the pool. Raises what `events` raises.
        """
        while len(self._decoders) < self._count:
            self._start_decoder()
        while not feed.is_over or self._sources:
            check_process(self._process)
            self._give_requeued()
            while not self._requeued and self._is_hungry() and (given := feed.take()):
                self._sources.update([given])
                self._hungriest().give([given])
            for decoder in self._decoders:
                decoder.free()
            yield from self._look(feed)
            yield PoolLooked(len(self._sources))

    def _look(self, feed: Feed | None = None) -> Iterator[PoolEvent]:
        """Waits until there is something to do, for a while, and gives the events of it."""
        doors = [decoder.connection for decoder in self._decoders]
        if feed:
            ready = wait([*doors, feed.bell], min(_LOOK_EVERY, feed.look_within))
            feed.was_heard()  # before the look, so that what comes during it is heard the next time
        else:
            ready = wait(doors, _LOOK_EVERY)
        for decoder in [decoder for decoder in self._decoders if decoder.connection in ready]:
            yield from self._received(decoder)
        yield from self._stuck()

    def close(self) -> None:
        """Stops all decoders. Files that are being decoded are dropped.

        A process that was forked since the pool was made only lets go of the decoders: they are another's.
        """
        is_ours = self._process == this_process()
        while self._decoders:
            decoder = self._decoders.pop()
            decoder.end() if is_ours else decoder.let_go()
        if self._end_of_owner:
            self._end_of_owner.detach()  # else it would hold the closed pool as long as the owner lives

    def is_usable(self) -> bool:
        """True in the process that made the pool, while that is in the same folder: decoders stay in it."""
        return self._process == this_process() and self._folder == _folder()

    def _take(self, tickets: Iterator[tuple[int, AudioSource]], ahead: int) -> bool:
        """Gives new files to decoders that have few; -> whether there may be more files."""
        while not self._requeued and self._is_hungry():
            room = min(self._chunk, self.released + ahead - self._taken)
            chunk = list(islice(tickets, max(0, room)))
            self._taken += len(chunk)
            self._sources.update(chunk)
            if chunk:
                self._hungriest().give(chunk)
            if len(chunk) < room:
                return False
            if not chunk:
                return True
        return True

    def _give_requeued(self) -> None:
        while self._requeued and self._is_hungry():
            self._hungriest().give(self._requeued.popleft())

    def _is_hungry(self) -> bool:
        """Whether some decoder, or one that is not started yet, may be given files."""
        few = (len(decoder.chunks) < _QUEUED for decoder in self._decoders)
        return len(self._decoders) < self._count or any(few)

    def _hungriest(self) -> DecoderHandle:
        """A decoder without files, or a new one, or the one that has the fewest."""
        decoder = min(self._decoders, key=lambda decoder: len(decoder.chunks), default=None)
        if decoder and (not decoder.chunks or len(self._decoders) == self._count):
            return decoder
        return self._start_decoder()

    def _start_decoder(self) -> DecoderHandle:
        decoder = DecoderHandle(self._decoding)
        self._decoders.append(decoder)
        decoder.pin(self._pin)
        return decoder

    def _received(self, decoder: DecoderHandle) -> Iterator[PoolEvent]:
        try:
            report = decoder.receive()
            self._has_started = True
        except (EOFError, OSError):  # OSError: the decoder has died in the middle of a message
            yield from self._bury(decoder)
            return
        if report.clips or report.ends or report.bad:
            self._deaths = 0
        yield from decoder.clips(report)
        ends: list[FileEnd | BadFile] = [*(FileEnd(*end) for end in report.ends), *report.bad]
        if ends:
            self._finish(decoder, ends)
            yield FilesEnded(ends, report.decoding, report.features)
        if report.failure:
            raise report.failure

    def _finish(self, decoder: DecoderHandle, ends: Sequence[FileEnd | BadFile]) -> None:
        for end in ends:
            del self._sources[end.ticket]
            if self._strikes:
                self._strikes.pop(end.ticket, None)
            decoder.finish(end.ticket)

    def _stuck(self) -> Iterator[PoolEvent]:
        """Looks now and then for decoders that hang in a file, stand still, or have died unnoticed."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        if now - self._looked > _AWAY:
            self._back = now
        self._looked = now
        for decoder in list(self._decoders):
            ticket, since = decoder.works_on()
            if reason := decoder.reason_to_replace(now, self._back):
                yield from self._bury(decoder, reason)
            elif ticket != IDLE and now - max(since, self._back) > self._timeout:
                yield from self._bury(decoder, timeout=ticket)

    def _bury(self, decoder: DecoderHandle, reason: str = "", *, timeout: int = IDLE) -> Iterator[PoolEvent]:
        """Replaces a decoder that died, that stands still (`reason`), or that hangs in the file `timeout`.

        The file that the decoder was decoding gets a strike, unless there was another reason. All files that
        it had not finished go to another decoder. Where it is at another file than `timeout` once it is
        killed, it did not hang: no file is to blame.
        """
        self._decoders.remove(decoder)
        end = decoder.end(patience=0.0 if reason or timeout != IDLE else LATEST_END)
        culprit = IDLE if reason else decoder.works_on()[0]
        if timeout not in (IDLE, culprit):
            culprit = timeout = IDLE
        self._note_end(decoder, reason or end.words, end.code, is_idle=culprit == IDLE)
        self._start_decoder()
        for ticket, source in self._unfinished(decoder):
            yield FileRestarted(ticket)
            if ticket == culprit:
                self._strikes[ticket] += 1
            if ticket == timeout:
                yield self._given_up(ticket, "timeout", f"not decoded within {self._timeout:g} s")
            elif self._strikes[ticket] == _STRIKES:
                yield self._given_up(ticket, "crashed", end.words)
            else:
                self._requeued.append([(ticket, source)])

    def _note_end(self, decoder: DecoderHandle, words: str, code: int, *, is_idle: bool) -> None:
        """Counts decoders that end without a file to blame. Raises StoppedError if more would end so."""
        self._has_started = self._has_started or decoder.has_started
        self._deaths += is_idle
        refuses = code >= 0 and not self._has_started  # it ended by itself: no Python, or no such package
        if refuses or self._deaths > _DEATHS * (len(self._decoders) + 1):
            raise StoppedError("decoder", f"each new one ends at once: {words}", fix="rrtn doctor")

    def _unfinished(self, decoder: DecoderHandle) -> FileChunk:
        tickets = [ticket for chunk in decoder.chunks for ticket in chunk]
        return [(ticket, self._sources[ticket]) for ticket in tickets if ticket in self._sources]

    def _given_up(self, ticket: int, code: str, detail: str) -> FilesEnded:
        del self._sources[ticket]
        del self._strikes[ticket]
        return FilesEnded([BadFile(ticket, code, detail)])


def _folder() -> tuple[int, int]:
    here = os.stat(".")  # of a folder that was removed, too
    return here.st_dev, here.st_ino
