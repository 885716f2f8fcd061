"""The files to score, each once and in a fixed order, in shards of files that follow each other.

A shard ends after a file whose hash of the name says so. A file that is added or removed therefore changes
only its own shard, and all other shards keep their keys.
"""

import functools
import hashlib
import os
import struct
import tempfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final

import numpy as np

from .file_names import FilePath
from .sources import AudioSource, Input, PackedFile, name_from_source

MEAN_FILES: Final = 512  # in a shard, about
MOST_FILES: Final = 2048
_HEAD: Final = struct.Struct("<Iqq")  # of a record: length of the name, and the file's size and time
_MARKS: Final = struct.Struct("<qQ")  # ctime and inode, which follow the head and are in no key
_NAME: Final = _HEAD.size + _MARKS.size  # where the name begins
_SEPARATOR: Final = b"\0"  # between the parts of a packed file; no path has it
_LEAST_TIME, _MOST_TIME = -(1 << 63), (1 << 63) - 1  # ns; a file system may have times beyond the year 2262


@dataclass(frozen=True)
class Shard:
    """Files of the spool that follow each other."""

    key: str  # hash of their names, sizes and times
    files: int
    first: int  # number of the first record
    begin: int  # byte at which the first record begins
    end: int  # byte at which the last record ends


class InputSpool:
    """The files to score, each once. The paths are kept in a temporary file, not in memory.

    Two spellings of one path (`a.wav`, `./a.wav`, `b/../a.wav`) are one file. Two links to a file are two.
    """

    def __init__(self, inputs: Iterable[Input], left_out: Counter[str] | None = None) -> None:
        """`left_out` counts what was found beside the inputs, as `inputs.Choice` does."""
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        try:
            hashes = self._spooled(inputs)
        except BaseException:
            self._file.close()
            raise
        _, first = np.unique(np.frombuffer(hashes, np.uint64), return_index=True)
        self._wanted = np.zeros(len(hashes), dtype=bool)
        self._wanted[first] = True
        self.files = len(first)
        self.twice = len(hashes) - len(first)
        self.shards = list(self._cut())
        self.left_out = left_out or Counter()
        self.named: tuple[str, ...] = ()  # what the user named, resolved

    def __enter__(self) -> "InputSpool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def sources(self, shard: Shard) -> list[AudioSource]:
        """Where the files of a shard come from."""
        return [found.source for found in self.inputs(shard)]

    def inputs(self, shard: Shard) -> list[Input]:
        """The files of a shard."""
        return [_input(record) for _, record in self._records(shard.first, shard.begin, shard.end) if record]

    def names(self) -> Callable[[FilePath], bool]:
        """-> a function that says whether a row of this name is of one of the files."""
        absolute = functools.lru_cache(1_000)(_absolute)

        def key(name: FilePath) -> int:
            return _hash(_absolute_path(os.fsencode(name), absolute))

        keys = {key(name_from_source(source)) for shard in self.shards for source in self.sources(shard)}
        return lambda name: key(name) in keys

    def files_of(self, shards: Iterable[Shard]) -> int:
        """Number of files in these shards."""
        return sum(shard.files for shard in shards)

    def _spooled(self, inputs: Iterable[Input]) -> "array[int]":
        """Writes the inputs to the file; -> a hash of each one's place."""
        hashes = array("Q")
        absolute = functools.lru_cache(1_000)(_absolute)
        for found in inputs:
            hashes.append(_hash(_bytes_from_source(_absolute_source(found.source, absolute))))
            self._file.write(_record(found))
        return hashes

    def _cut(self) -> Iterator[Shard]:
        first = begin = files = end = 0
        key = hashlib.sha256()
        for number, (end, record) in enumerate(self._records(0, 0, self._file.tell())):
            if record:
                key.update(record[: _HEAD.size] + record[_NAME:])
                files += 1
            if record and (zlib.crc32(record[_NAME:]) % MEAN_FILES == 0 or files == MOST_FILES):
                yield Shard(key.hexdigest()[:32], files, first, begin, end)
                first, begin, files, key = number + 1, end, 0, hashlib.sha256()
        if files:
            yield Shard(key.hexdigest()[:32], files, first, begin, end)

    def _records(self, number: int, begin: int, end: int) -> Iterator[tuple[int, bytes | None]]:
        """(end, bytes) of each record; None as the bytes of a file that was there before.

        Only one caller may read at a time.
        """
        self._file.seek(begin)
        while begin < end:
            head = self._file.read(_HEAD.size)
            record = head + self._file.read(_MARKS.size + _HEAD.unpack(head)[0])
            begin += len(record)
            yield begin, record if self._wanted[number] else None
            number += 1


def _record(found: Input) -> bytes:
    name = _bytes_from_source(found.source)
    marks = _MARKS.pack(_time(found.ctime_ns), found.inode)
    return _HEAD.pack(len(name), found.size, _time(found.mtime_ns)) + marks + name


def _time(ns: int) -> int:
    return max(_LEAST_TIME, min(ns, _MOST_TIME))


def _input(record: bytes) -> Input:
    _, size, mtime_ns = _HEAD.unpack_from(record)
    return Input(_source_from_bytes(record[_NAME:]), size, mtime_ns, *_MARKS.unpack_from(record, _HEAD.size))


def _bytes_from_source(source: AudioSource) -> bytes:
    if isinstance(source, PackedFile):
        return _SEPARATOR.join((source.pack, b"%d" % source.row, source.name))
    return source


def _source_from_bytes(content: bytes) -> AudioSource:
    match content.split(_SEPARATOR, 2):  # the name may have what no path has
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
    """The folder without `.` and `..`. Behind a link `..` leads elsewhere, so the system resolves it."""
    if b".." in folder.split(b"/"):
        return os.path.realpath(folder)
    return os.path.normpath(os.path.join(os.getcwdb(), folder))


def _hash(path: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "little")
