"""The files to score, each once and in a fixed order, in shards of files that follow each other.

A shard ends after a file whose hash of the name says so. A file that is added or removed therefore changes
only its own shard, and all other shards keep their keys.
"""

import functools
import hashlib
import itertools
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
# A record: length of the name, the file's size and time, its ctime and inode; then the name.
_RECORD: Final = struct.Struct("<IqqqQ")
_KEYED: Final = struct.calcsize("<Iqq")  # its first bytes, which are in a shard's key
_BLOCK: Final = 1 << 20  # bytes that are read at once
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
        """`left_out` counts what was found beside the inputs, as `inputs.InputChoice` does."""
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self.relative_to = ""  # the working directory, where the path of a file is relative
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
        return [_source_from_bytes(name) for _, name in self._records_of(shard)]

    def inputs(self, shard: Shard) -> list[Input]:
        """The files of a shard."""
        return [_input(head, name) for head, name in self._records_of(shard)]

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
        is_relative = False
        for found in inputs:
            is_relative |= isinstance(found.source, bytes) and not os.path.isabs(found.source)  # noqa: PTH117
            hashes.append(_hash(_bytes_from_source(_absolute_source(found.source, absolute))))
            self._file.write(_record(found))
        self.relative_to = os.getcwd() if is_relative else ""
        return hashes

    def _cut(self) -> Iterator[Shard]:
        first = begin = files = end = 0
        key = hashlib.sha256()
        for number, (head, name) in enumerate(self._all_records()):
            end += len(head) + len(name)
            if self._wanted[number]:
                key.update(head[:_KEYED] + name)
                files += 1
                if zlib.crc32(name) % MEAN_FILES == 0 or files == MOST_FILES:
                    yield Shard(key.hexdigest()[:32], files, first, begin, end)
                    first, begin, files, key = number + 1, end, 0, hashlib.sha256()
        if files:
            yield Shard(key.hexdigest()[:32], files, first, begin, end)

    def _records_of(self, shard: Shard) -> Iterator[tuple[bytes, bytes]]:
        """Head and name of each file of a shard. Only one caller may read at a time."""
        self._file.seek(shard.begin)
        content = self._file.read(shard.end - shard.begin)
        records = _records(content)
        return itertools.compress(records, self._wanted[shard.first :])

    def _all_records(self) -> Iterator[tuple[bytes, bytes]]:
        """Head and name of each record, those of files that were there before as well."""
        self._file.seek(0)
        rest = b""
        while block := self._file.read(_BLOCK):
            content = rest + block
            used = 0
            for head, name in _records(content):
                used += len(head) + len(name)
                yield head, name
            rest = content[used:]


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Head and name of each record that is whole."""
    place = 0
    while (begin := place + _RECORD.size) <= len(content):
        end = begin + int.from_bytes(content[place : place + 4], "little")
        if end > len(content):
            return
        yield content[place:begin], content[begin:end]
        place = end


def _record(found: Input) -> bytes:
    name = _bytes_from_source(found.source)
    times = _time(found.mtime_ns), _time(found.ctime_ns)
    return _RECORD.pack(len(name), found.size, *times, found.inode) + name


def _time(ns: int) -> int:
    return max(_LEAST_TIME, min(ns, _MOST_TIME))


def _input(head: bytes, name: bytes) -> Input:
    _, size, mtime_ns, ctime_ns, inode = _RECORD.unpack(head)
    return Input(_source_from_bytes(name), size, mtime_ns, ctime_ns, inode)


def _bytes_from_source(source: AudioSource) -> bytes:
    if isinstance(source, PackedFile):
        return _SEPARATOR.join((source.pack, b"%d" % source.row, source.name))
    return source


def _source_from_bytes(content: bytes) -> AudioSource:
    if _SEPARATOR in content:
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
