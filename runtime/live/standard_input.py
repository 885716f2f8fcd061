"""Sound on stdin: a WAV file of any length, or bare samples."""

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from typing import Final

from ..audio.signatures import is_audio
from ..errors import ConfigError, DataError, StoppedError
from ..spec import MAX_RATE
from ..text import counted
from .pcm import PCM_BYTES, samples_from_bytes
from .sound_queue import SoundQueue
from .source import LiveSource, check_layout
from .wav_stream import PcmStream, is_wav, read_header

_STDIN: Final = 0
_BLOCK: Final = 1 << 16  # bytes that are read at once, where so many are there
_HEAD: Final = 12  # bytes that say whether it is WAV
_WAITING: Final = 2.0  # s that may wait in the queue where the pipe can wait
_LATE: Final = 10.0  # and where it cannot
_EXAMPLE: Final = "ffmpeg -i SOURCE -f s16le -ac 1 -ar 48000 - | rrtn score - --rate 48000"


@contextlib.contextmanager
def sound_on_stdin(
    *,
    rate: int | None = None,
    channels: int | None = None,
    pcm: str | None = None,
    waits: bool = True,
    descriptor: int = _STDIN,
) -> Iterator[LiveSource]:
    """The sound on stdin. A WAV file says what it is; of bare samples `rate` (Hz) must be given.

    Bare samples are s16le of one channel, unless `pcm` and `channels` say otherwise. Where the pipe does not
    wait (`waits`), it is always read, and what comes too late is lost.

    Raises ConfigError where the options do not fit the sound, DataError where there is none and for a WAV
    file that cannot be read. `check_stdin` says beforehand what can be said then.
    """
    reader = _StdinReader(descriptor)
    stream = _stream(reader, rate, channels, pcm)
    check_layout("stdin", stream.rate, stream.channels)
    limit = round((_WAITING if waits else _LATE) * stream.rate)
    queue = SoundQueue(stream.channels, limit=limit, waits=waits)
    reader.start(stream, queue)
    try:
        yield LiveSource(
            name="stdin",
            description=f"stdin, {stream.pcm}, {stream.rate} Hz, {counted(stream.channels, 'channel')}",
            rate=stream.rate,
            queue=queue,
            missing=reader.missing,
        )
    finally:
        queue.close()


def check_stdin(*, rate: int | None = None, channels: int | None = None, pcm: str | None = None) -> None:
    """What can be said before anything is read. Raises ConfigError."""
    if os.isatty(_STDIN):
        raise ConfigError("stdin", "a terminal", wanted="sound from a pipe", fix=_EXAMPLE)
    if pcm not in (None, *PCM_BYTES):
        raise ConfigError("--pcm", f"{pcm}", wanted=f"one of {', '.join(PCM_BYTES)}")
    if rate is not None:
        check_layout("--rate", rate, 1)
    if channels is not None:
        check_layout("--channels", MAX_RATE, channels)


def _stream(reader: "_StdinReader", rate: int | None, channels: int | None, pcm: str | None) -> PcmStream:
    """What the bytes are, by their header and the options."""
    head = reader.read(_HEAD)
    if not head:
        raise DataError("stdin", "ended without any sound", wanted="WAV or bare samples", fix=_EXAMPLE)
    if is_wav(head):
        stream = read_header(reader.read)
        given = {"--rate": (rate, stream.rate), "--channels": (channels, stream.channels)}
        for flag, (wanted, found) in {**given, "--pcm": (pcm, stream.pcm)}.items():
            if wanted not in (None, found):
                raise ConfigError(f"{flag} {wanted}", f"the WAV file says {found}", fix=f"leave out {flag}")
        return stream
    reader.put_back(head)
    is_other = is_audio(reader.ahead)  # which would be noise, were it taken for samples
    if rate is None or is_other:
        came = "another format than WAV" if is_other else "no WAV header, and --rate is missing"
        raise ConfigError("stdin", came, wanted="a WAV file, or bare samples and --rate", fix=_EXAMPLE)
    return PcmStream(rate, channels or 1, pcm or "s16le")


class _StdinReader:
    """Reads stdin: its header at once, its sound on a thread.

    The thread reads the descriptor. It hangs there when the process ends, and a file of Python would be
    locked by it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.ahead = b""  # read, and not taken
        self._left = 0  # bytes that should still come; of a frame that is cut, too
        self._cut = 0  # bytes of a frame at the end that is not whole

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        while len(self.ahead) < size and (more := self._some()):
            self.ahead += more
        taken, self.ahead = self.ahead[:size], self.ahead[size:]
        return taken

    def put_back(self, content: bytes) -> None:
        """Lets it be read again."""
        self.ahead = content + self.ahead

    def start(self, stream: PcmStream, queue: SoundQueue) -> None:
        """Puts all that follows into the queue, as soon as it comes."""
        threading.Thread(target=self._run, args=(stream, queue), name="stdin", daemon=True).start()

    def missing(self) -> str:
        """At the end: what the header has promised and did not come."""
        if self._left:
            return f"{counted(self._left, 'byte')} fewer than the WAV header says"
        verb = "is" if self._cut == 1 else "are"
        return f"{counted(self._cut, 'byte')} at the end {verb} no whole sample" if self._cut else ""

    def _run(self, stream: PcmStream, queue: SoundQueue) -> None:
        try:
            self._hear(stream, queue)
            queue.end()
        except OSError as error:
            fix = "repair the storage or the device, and run the command again"
            queue.end(StoppedError("stdin", error.strerror or str(error), fix=fix))
        except BaseException as error:  # it is raised where the sound is scored
            queue.end(error)

    def _hear(self, stream: PcmStream, queue: SoundQueue) -> None:
        frame = PCM_BYTES[stream.pcm] * stream.channels
        self._left = stream.size or 0
        rest = b""
        while content := self._some_ahead() or self._some():
            if stream.size is not None:
                content = content[: self._left]
                self._left -= len(content)
            content = rest + content
            whole = len(content) // frame * frame
            rest, self._cut = content[whole:], len(content) - whole
            if whole and not queue.put(samples_from_bytes(content[:whole], stream.pcm, stream.channels)):
                return
            if stream.size is not None and not self._left:
                return

    def _some_ahead(self) -> bytes:
        taken, self.ahead = self.ahead, b""
        return taken

    def _some(self) -> bytes:
        """What is there, at least a byte; nothing at the end."""
        while True:
            try:
                return os.read(self._descriptor, _BLOCK)
            except BlockingIOError:  # who shares it with us has set it so
                select.select([self._descriptor], [], [])
