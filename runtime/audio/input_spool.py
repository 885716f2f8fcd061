"""The files to score, each once and in a fixed order, in shards of files that follow each other.

A shard ends after a file whose name's hash says so. So a file that comes or goes changes only the
shard that it is in, and all others keep their keys.
"""

import functools
import hashlib
import os
import struct
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final

import numpy as np

from .sources import AudioSource, Input, PackedFile

MEAN_FILES: Final = 512  # of a shard, about
MOST_FILES: Final = 2048
_HEAD: Final = struct.Struct("<Iqq")  # of a record: its length behind this, then the file's size and time
_SEPARATOR: Final = b"\0"  # of the parts of a packed file; no path has one


@dataclass(frozen=True)
class Shard:
    """Consecutive files."""

    key: str  # hash of their names, sizes and times
    files: int
    first: int  # number of its first record in the spool, and where that begins and the last one ends
    begin: int
    end: int


class InputSpool:
    """The files to score, each once, in a temporary file: of a million paths none is kept in memory.

    Two spellings of one path (`a.wav`, `./a.wav`, `b/../a.wav`) are one file; two links to one file are two.
    """

    def __init__(self, inputs: Iterable[Input]) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        hashes = array("Q")
        absolute = functools.lru_cache(1_000)(_absolute)
        for found in inputs:
            hashes.append(_hash(_bytes_from_source(_absolute_source(found.source, absolute))))
            self._file.write(_record(found))
        _, first = np.unique(np.frombuffer(hashes, np.uint64), return_index=True)
        self._wanted = np.zeros(len(hashes), dtype=bool)
        self._wanted[first] = True
        self.files = len(first)
        self.twice = len(hashes) - len(first)
        self.shards = list(self._cut())

    def __enter__(self) -> "InputSpool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def sources(self, shard: Shard) -> list[AudioSource]:
        """Of a shard's files."""
        return [found.source for found in self.inputs(shard)]

    def inputs(self, shard: Shard) -> list[Input]:
        """A shard's files."""
        return [_input(record) for _, record in self._records(shard.first, shard.begin, shard.end) if record]

    def files_of(self, shards: Iterable[Shard]) -> int:
        """How many files they have."""
        return sum(shard.files for shard in shards)

    def _cut(self) -> Iterator[Shard]:
        first = begin = files = end = 0
        key = hashlib.sha256()
        for number, (end, record) in enumerate(self._records(0, 0, self._file.tell())):
            if record:
                key.update(record)
                files += 1
            if record and (zlib.crc32(record[_HEAD.size :]) % MEAN_FILES == 0 or files == MOST_FILES):
                yield Shard(key.hexdigest()[:32], files, first, begin, end)
                first, begin, files, key = number + 1, end, 0, hashlib.sha256()
        if files:
            yield Shard(key.hexdigest()[:32], files, first, begin, end)

    def _records(self, number: int, begin: int, end: int) -> Iterator[tuple[int, bytes | None]]:
        """Where each ends, and its bytes; None for one that was there before. One reader at a time."""
        self._file.seek(begin)
        while begin < end:
            head = self._file.read(_HEAD.size)
            record = head + self._file.read(_HEAD.unpack(head)[0])
            begin += len(record)
            yield begin, record if self._wanted[number] else None
            number += 1


def _record(found: Input) -> bytes:
    time = max(
        -(1 << 63), min(found.mtime_ns, (1 << 63) - 1)
    )  # a file system may have times beyond the year 2262
    content = _bytes_from_source(found.source)
    return _HEAD.pack(len(content), found.size, time) + content


def _input(record: bytes) -> Input:
    _, size, mtime_ns = _HEAD.unpack_from(record)
    return Input(_source_from_bytes(record[_HEAD.size :]), size, mtime_ns)


def _bytes_from_source(source: AudioSource) -> bytes:
    return (
        _SEPARATOR.join((source.pack, b"%d" % source.row, source.name))
        if isinstance(source, PackedFile)
        else source
    )


def _source_from_bytes(content: bytes) -> AudioSource:
    match content.split(_SEPARATOR):
        case [pack, row, name] if row.isdigit():
            return PackedFile(pack, int(row), name)
    return content


def _absolute_source(source: AudioSource, absolute: Callable[[bytes], bytes]) -> AudioSource:
    if isinstance(source, PackedFile):
        return source._replace(pack=_absolute_path(source.pack, absolute))
    return _absolute_path(source, absolute)


def _absolute_path(path: bytes, absolute: Callable[[bytes], bytes]) -> bytes:
    folder, slash, name = path.rpartition(b"/")
    return absolute(folder + slash) + b"/" + name


def _absolute(folder: bytes) -> bytes:
    """Without `.` and `..`. Behind a link `..` leads elsewhere than its text says, so the system is asked."""
    if b".." in folder.split(b"/"):
        return os.path.realpath(folder)
    return os.path.normpath(os.path.join(os.getcwdb(), folder))


def _hash(path: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "little")
