"""The first reader: libsndfile, through soundfile, which is imported with the first file.

N samples, C channels.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ..arrays import Float32
from ..errors import AudioError
from ..system.host import DESCRIPTORS
from .containers import SLACK, Layout, Pieces, PiecesFile

if TYPE_CHECKING:
    import soundfile

BLOCK_FRAMES: Final = 1 << 16
_UNKNOWN_LENGTH: Final = 1 << 40  # frames; libsndfile says 2^63 - 1 where a header gives none
_BUFFER: Final = 1 << 16  # bytes
# Numbers of libsndfile's errors.
_NOT_RECOGNISED: Final = 1
_NOT_OPENED: Final = (7, 8, 9)  # so it says of an MP3 without a frame; the file is open, and could be read
_NO_MEMORY: Final = 17


class SndSound:
    """One recording that libsndfile reads. AvSound is one that PyAV reads."""

    flags: Final = frozenset[str]()

    def __init__(self, file: "soundfile.SoundFile") -> None:
        self._file, self._decoded = file, 0
        self.rate, self.channels = file.samplerate, file.channels

    def blocks(self) -> Iterator[Float32]:
        """Blocks [N, C] of the whole recording, once."""
        self._file.seekable = lambda: False  # FLAC of unknown length fails at a seek behind its last block
        while self._decoded < self._file.frames:  # libsndfile gives no more, so it need not be asked
            block = self._file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
            if not len(block):
                return
            self._decoded += len(block)
            yield block

    @property
    def stated(self) -> int:
        """Frames by the header; 0 where it does not say. libsndfile guesses those of MPEG."""
        known = self._file.frames < _UNKNOWN_LENGTH and not self._file.subtype.startswith("MPEG")
        return self._file.frames if known else 0

    @property
    def missing(self) -> str:
        """After the last block: frames that the header promises and the decoder did not give."""
        if self.stated - self._decoded <= SLACK * self.rate:
            return ""
        return f"{self._decoded} of {self.stated} frames"


@contextlib.contextmanager
def opened_by_libsndfile(descriptor: int, pieces: Pieces) -> Iterator[SndSound]:
    """Opens one recording of a file.

    A file as it is, is opened by the name of its descriptor, where descriptors have names: given a
    descriptor, libsndfile would look for a Mac resource fork `._` in the working directory, and read that.
    Given a virtual file, it looks for one, too, but reads the virtual file in its place, and refuses it.
    """
    import soundfile

    if not pieces and DESCRIPTORS:
        with soundfile.SoundFile(f"{DESCRIPTORS}/{descriptor}") as file:
            yield SndSound(file)
        return
    source = PiecesFile(descriptor, pieces or (range(os.fstat(descriptor).st_size),))
    try:
        with soundfile.SoundFile(io.BufferedReader(source, _BUFFER)) as file:
            yield SndSound(file)
    finally:
        source.check()  # storage that fails says nothing about the file


def refusal(error: "soundfile.LibsndfileError", layout: Layout) -> AudioError:
    """What a row says of a file that libsndfile refuses."""
    if layout.missing:
        return AudioError("truncated", layout.missing)
    if error.code in _NOT_OPENED:
        return AudioError("corrupt", "the decoder finds no sound in it")
    codes = {_NOT_RECOGNISED: "unsupported_format", _NO_MEMORY: "out_of_memory"}
    return AudioError(codes.get(error.code, "corrupt"), error.error_string)
