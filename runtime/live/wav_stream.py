"""The header of a WAV file that comes through a pipe.

Who writes to a pipe cannot go back to fill in a length: ffmpeg leaves 0xFFFFFFFF, others 0.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from ..audio.containers import STREAMED
from ..errors import DataError

_PCM: Final = {  # by format tag and bits
    (1, 8): "u8",
    (1, 16): "s16le",
    (1, 24): "s24le",
    (1, 32): "s32le",
    (3, 32): "f32le",
    (3, 64): "f64le",
}
_EXTENSIBLE: Final = 0xFFFE  # the tag stands further behind
_LONGEST: Final = 1 << 24  # bytes in front of the sound
_UNKNOWN: Final = 1 << 63  # a length of 64 bits from which on it is none: all ones, as of 32 bits
_CONVERT: Final = "ffmpeg -i SOURCE -f wav - | rrtn score -"

Read = Callable[[int], bytes]  # so many bytes of the stream, or fewer at its end


class PcmStream(NamedTuple):
    """What the bytes of a stream are."""

    rate: int  # Hz
    channels: int
    pcm: str  # a name of pcm.PCM_BYTES
    size: int | None = None  # bytes of sound, where that is known


def is_wav(head: bytes) -> bool:
    """Whether a stream that begins with these 12 bytes is a WAV file."""
    return head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def read_header(read: Read) -> PcmStream:
    """What follows the first 12 bytes of a WAV file, up to its first sample.

    Raises DataError for a header that is cut, or of samples that are not bare ones.
    """
    form, stated, left = b"", 0, _LONGEST
    while True:
        name, size = struct.unpack("<4sI", _exactly(read, 8))
        if name == b"data":
            break
        left -= size
        if left < 0:
            raise _refused(f"a chunk {name!r} of {size} bytes before any sound")
        content = _exactly(read, size + size % 2)
        if name == b"fmt ":
            form = content
        elif name == b"ds64":  # the lengths of 64 bits
            stated = int.from_bytes(content[8:16], "little")
    if size >= STREAMED:
        size = stated if stated < _UNKNOWN else 0
    return _stream(form, size or None)


def _stream(form: bytes, size: int | None) -> PcmStream:
    if len(form) < 16:
        raise _refused("no format before the sound")
    tag, channels, rate, _, frame, bits = struct.unpack_from("<2H2I2H", form)
    if tag == _EXTENSIBLE and len(form) >= 26:
        tag = int.from_bytes(form[24:26], "little")
    pcm = _PCM.get((tag, bits))
    if pcm is None or frame != channels * bits // 8:
        raise _refused(f"samples of format {tag} with {bits} bits")
    return PcmStream(rate, channels, pcm, size)


def _exactly(read: Read, size: int) -> bytes:
    content = read(size)
    if len(content) < size:
        raise _refused("cut in its header")
    return content


def _refused(came: str) -> DataError:
    return DataError("the WAV file on stdin", came, wanted="PCM or float samples", fix=_CONVERT)
