"""Where a sound comes from: a file of its own, or a row of a pack. And what tells whether it is the same."""

import hashlib
from typing import Final, NamedTuple

from ..system.host import pread
from .file_names import FilePath

_BLOCK: Final = 1 << 20


class PackedFile(NamedTuple):
    """A file in a pack."""

    pack: bytes  # path of the Parquet file
    row: int
    name: bytes  # of the file when it was packed, and in rows of scores


AudioSource = bytes | PackedFile


class Input(NamedTuple):
    """One sound to score. Where its numbers are as before, so is its content; 0 where they are unknown.

    A program can set the time back, so `ctime_ns` and `inode` are compared, too. They also differ for the
    same content, after a copy or chmod; then `content_hash` tells.
    """

    source: AudioSource
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0  # of the pack, where the file is in one
    inode: int = 0


def content_hash(descriptor: int) -> bytes:
    """20 bytes that tell contents apart. Raises OSError.

    SHA-1 is the fastest hash of the standard library. This detects changes, and is no security check.
    """
    content, place = hashlib.sha1(usedforsecurity=False), 0
    while block := pread(descriptor, _BLOCK, place):
        content.update(block)
        place += len(block)
    return content.digest()


def name_from_source(source: FilePath | PackedFile) -> FilePath:
    """The name that rows of scores have for it."""
    return source.name if isinstance(source, PackedFile) else source
