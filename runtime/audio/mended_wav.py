"""WAV and AIFF files whose chunks a writer spoilt, put together anew of what is needed.

Between the format and the sound of such a file stand chunks without the byte behind an odd length, with a
length that is wrong, or with content that a reader stumbles over.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from ..errors import AudioError
from ..system.host import pread
from .containers import MOST_CHUNKS, STREAMED, UNKNOWN_SIZE, Chunk, PiecesFile
from .foreign import tags_size

_MOST_FORMAT: Final = 1 << 16  # bytes of the chunk that says how the samples are coded
_NAME: Final = re.compile(rb"[ -~]{4}")
_PCM: Final = b"\1\0"


class _Kind(NamedTuple):
    """The names of a container's chunks, and the order of its bytes, as `struct` has it."""

    form: bytes
    head: bytes
    sound: bytes
    order: str


_KINDS: Final = {
    "wav": _Kind(b"RIFF", b"fmt ", b"data", "<"),
    "aiff": _Kind(b"FORM", b"COMM", b"SSND", ">"),
}


class MendedFile(NamedTuple):
    """A file of the format and of all of its sound, and the bytes of sound."""

    file: PiecesFile
    stated: int  # by the headers; 0 where they do not know
    present: int


def mended_file(descriptor: int, demuxer: str) -> MendedFile:
    """What the open file of a demuxer, wav or aiff, holds, as its writer should have written it.

    Raises AudioError where the format or the sound is missing, OSError where the storage fails.
    """
    kind, size, front = _KINDS[demuxer], os.fstat(descriptor).st_size, tags_size(descriptor)
    chunks = list(islice(_chunks(descriptor, front + 12, size, kind), MOST_CHUNKS))
    formats = [chunk for chunk in chunks if chunk.name in (kind.head, b"FVER") and chunk.size < _MOST_FORMAT]
    sounds = _sounds(chunks, kind, size)
    if not formats or not sounds:
        raise AudioError("corrupt", f"no {(kind.head if sounds else kind.sound).decode()!r} chunk")
    pieces = tuple(range(chunk.begin, min(chunk.begin + chunk.size, size)) for chunk in sounds)
    stated, present = sum(chunk.size for chunk in sounds), sum(map(len, pieces))
    form_type = pread(descriptor, 4, front + 8)  # WAVE, AIFF or AIFC
    body = form_type + b"".join(_again(descriptor, chunk, kind) for chunk in formats)
    header = _named(kind, kind.form, len(body) + 8 + present) + body + _named(kind, kind.sound, present)
    return MendedFile(PiecesFile(descriptor, (header, *pieces)), stated if stated < STREAMED else 0, present)


def _chunks(descriptor: int, begin: int, size: int, kind: _Kind) -> Iterator[Chunk]:
    """The chunks from `begin` on. Where one cannot be true, the search goes on at the sound."""
    while begin + 8 <= size:
        name, length = struct.unpack(f"{kind.order}4sI", pread(descriptor, 8, begin))
        end = begin + 8 + length
        if _NAME.fullmatch(name) and (end <= size or name == kind.sound):
            yield Chunk(name, begin + 8, length)
            begin = end + _padding(descriptor, end, length)
            continue
        found = pread(descriptor, 1 << 20, begin + 1).find(kind.sound)
        if found < 0:
            return
        begin += 1 + found


def _padding(descriptor: int, end: int, length: int) -> int:
    """1 where a byte makes an odd length even, as it should; 0 where the next chunk follows at once."""
    behind = pread(descriptor, 4, end)
    follows = behind[:1] != b"\0" and _NAME.fullmatch(behind)
    return 0 if follows else length & 1


def _sounds(chunks: Sequence[Chunk], kind: _Kind, size: int) -> list[Chunk]:
    """The chunks with sound. A recorder that was killed had not written the length of the last one."""
    named = [chunk for chunk in chunks if chunk.name == kind.sound]
    unwritten = [Chunk(kind.sound, chunk.begin, size - chunk.begin) for chunk in named[-1:]]
    return [chunk for chunk in named if chunk.size] or unwritten


def _again(descriptor: int, chunk: Chunk, kind: _Kind) -> bytes:
    """A chunk of the format as it should be."""
    content = pread(descriptor, chunk.size, chunk.begin)
    has_no_width = len(content) >= 14 and content[14:16] in (b"", b"\0", b"\0\0")
    if chunk.name == b"fmt " and content[:2] == _PCM and has_no_width:
        # Without the bits of a sample FFmpeg takes 8. The bytes of all channels stand before them.
        channels, width = struct.unpack_from("<H8xH", content, 2)
        content = content[:14] + struct.pack("<H", 8 * width // max(1, channels)) + content[16:]
    return _named(kind, chunk.name, len(content)) + content + b"\0" * (len(content) & 1)


def _named(kind: _Kind, name: bytes, length: int) -> bytes:
    """The eight bytes before a chunk."""
    return name + struct.pack(f"{kind.order}I", min(length, UNKNOWN_SIZE))
