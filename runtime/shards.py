"""Long scoring in shards, each of which is scored once and kept: what is stopped goes on where it was.

Beside the table `scores.csv` lies the folder `.scores.csv.rrtn`: job.json says what makes the rows (model, settings),
and every part holds the rows of one shard under the shard's key. The table is put together from the parts at the end.

A shard ends after a file whose name's hash says so. So a file that comes or goes changes the shard that it is in, and
all other parts stay good.

F files of a shard, R rows, K labels, D embedding.
"""

import contextlib
import functools
import glob
import hashlib
import io
import json
import os
import shutil
import struct
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from .audio import ERROR_CODES, FLAGS
from .embedding_file import embedding_path
from .errors import ConfigError, StoppedError
from .failpoints import failpoint
from .files import write_bytes, write_json
from .inputs import SEPARATOR, Input, name_from_path
from .locks import locked
from .rows import Row

MEAN_FILES: Final = 512  # of a shard, about
MOST_FILES: Final = 2048
_JOB: Final = "job.json"
_CODES: Final = ("", *ERROR_CODES, *(flag for flag in FLAGS if flag not in ERROR_CODES))
_HEAD: Final = struct.Struct("<Iqq")  # of a path in the spool: its length, the file's size and time
_NAN: Final = float("nan")


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
            path, separator, inside = found.path.partition(SEPARATOR)
            folder, slash, name = path.rpartition(b"/")
            hashes.append(_hash(absolute(folder + slash) + b"/" + name + separator + inside))
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

    def paths(self, shard: Shard) -> list[bytes]:
        """Of a shard's files."""
        return [found.path for found in self.inputs(shard)]

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


class Job:
    """The parts of a table in the making."""

    def __init__(self, folder: Path, labels: tuple[str, ...]) -> None:
        self._folder, self._labels = folder, labels
        self._parts = {path.name.partition("-")[0]: path for path in folder.glob("*.part")}

    def has(self, shard: Shard) -> bool:
        """Whether its rows are there, whole."""
        return self._content(shard) is not None

    def put(self, shard: Shard, content: bytes) -> None:
        """Keeps what `part_from_rows` gave for a shard, or nothing."""
        path = self._folder / _part_name(shard, content)
        write_bytes(path, content)
        self._parts[shard.key] = path
        failpoint("shard.done")

    def rows(self, spool: InputSpool) -> Iterator[list[Row]]:
        """Of every file, in order. Raises StoppedError where a part has gone bad since."""
        for shard in spool.shards:
            content = self._content(shard)
            if content is None:
                raise StoppedError(f"{self._folder} | part {shard.key} is gone or broken | all parts | run the command again")
            yield from rows_from_part(content, spool.paths(shard), self._labels)

    def tidy(self, spool: InputSpool) -> None:
        """Removes parts that no shard has any more, and what killed writers left."""
        keys = {shard.key for shard in spool.shards}
        for path in (*self._folder.glob("*.part"), *self._folder.glob(".*.tmp")):
            if self._parts.get(path.name.partition("-")[0]) != path or path.name.partition("-")[0] not in keys:
                path.unlink(missing_ok=True)

    def _content(self, shard: Shard) -> bytes | None:
        path = self._parts.get(shard.key)
        try:
            content = path.read_bytes() if path else None
        except OSError:
            return None
        return content if content is not None and path and path.name == _part_name(shard, content) else None


@contextlib.contextmanager
def opened_job(target: Path, settings: dict[str, Any], labels: tuple[str, ...], *, overwrite: bool = False) -> Iterator[Job]:
    """The job whose table is `target`, for this process alone. `overwrite` begins anew.

    Raises ConfigError where another process is at it, or what is there was made with other settings.
    """
    folder = target.parent / f".{target.name}.rrtn"
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock", does="scores"):
        if overwrite or not (folder / _JOB).exists():  # parts of no known settings are worth nothing
            _empty(folder)
        _check_settings(folder / _JOB, target, settings)
        _remove_unfinished(target)
        yield Job(folder, labels)


def part_from_rows(files: Sequence[Sequence[Row]], labels: tuple[str, ...], *, embedding_size: int | None = None) -> bytes:
    """The rows of a shard's files in their order, as the bytes of an .npz without pickles. Details are not kept."""
    rows = [row for of_file in files for row in of_file]
    columns: dict[str, Any] = {
        "rows": np.array([len(of_file) for of_file in files], np.uint32),  # [F]
        "start": np.array([_NAN if row.start is None else row.start for row in rows], np.float64),  # [R]
        "end": np.array([_NAN if row.end is None else row.end for row in rows], np.float64),
        "scored": np.array([row.scores is not None for row in rows], bool),
        "scores": _matrix([list(row.scores.values()) if row.scores else None for row in rows], len(labels)),  # [R, K]
        "code": np.array([_CODES.index(row.error) for row in rows], np.uint8),
        "seconds": np.array([row.seconds for row in rows], np.float64),
    }
    if embedding_size is not None:
        columns["embedding"] = _matrix([row.embedding for row in rows], embedding_size)  # [R, D]
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


def rows_from_part(content: bytes, paths: Sequence[bytes], labels: tuple[str, ...]) -> Iterator[list[Row]]:
    """What `part_from_rows` was given, but for the details."""
    with np.load(io.BytesIO(content), allow_pickle=False) as columns:
        embedding = columns.get("embedding")
        counts, start, end, scored, scores, code, seconds = (
            columns[name].tolist() for name in ("rows", "start", "end", "scored", "scores", "code", "seconds")
        )
    row = 0
    for path, count in zip(paths, counts, strict=True):
        yield [
            Row(
                file=name_from_path(path),
                start=None if start[i] != start[i] else start[i],
                end=None if end[i] != end[i] else end[i],
                scores=dict(zip(labels, scores[i], strict=True)) if scored[i] else None,
                error=_CODES[code[i]],
                seconds=seconds[i],
                embedding=embedding[i] if embedding is not None and scored[i] else None,
            )
            for i in range(row, row + count)
        ]
        row += count


def _record(found: Input) -> bytes:
    time = max(-(1 << 63), min(found.mtime_ns, (1 << 63) - 1))  # a file system may have times beyond the year 2262
    return _HEAD.pack(len(found.path), found.size, time) + found.path


def _input(record: bytes) -> Input:
    _, size, mtime_ns = _HEAD.unpack_from(record)
    return Input(record[_HEAD.size :], size, mtime_ns)


def _matrix(vectors: Sequence[Any], width: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """float32 [R, width], NaN where there is no vector."""
    matrix = np.full((len(vectors), width), np.nan, np.float32)
    for i, vector in enumerate(vectors):
        if vector is not None:
            matrix[i] = vector
    return matrix


def _check_settings(path: Path, target: Path, settings: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, settings)
    try:
        before = dict(json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} | {error} | expected what rrtn score writes | --overwrite begins anew") from error
    if other := [name for name in {**before, **settings} if before.get(name) != settings.get(name)]:
        changes = ", ".join(f"{name} {_short(before.get(name))}, now {_short(settings.get(name))}" for name in other)
        raise ConfigError(f"--out {target} | begun with {changes} | the same | choose another --out, or --overwrite")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:24]}..."


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_unfinished(target: Path) -> None:
    """What writers of the table, and of embeddings beside it, have left that were killed."""
    for path in (target, embedding_path(target)):
        for left in path.parent.glob(f".{glob.escape(path.name[:40])}.????????.tmp"):
            left.unlink(missing_ok=True)


def _part_name(shard: Shard, content: bytes) -> str:
    """The key, and a hash that tells whether this is the part, whole and of this shard."""
    return f"{shard.key}-{hashlib.sha256(shard.key.encode() + content).hexdigest()[:32]}.part"


def _absolute(folder: bytes) -> bytes:
    """Without `.` and `..`. Behind a link `..` leads elsewhere than its text says, so the system is asked."""
    if b".." in folder.split(b"/"):
        return os.path.realpath(folder)
    return os.path.normpath(os.path.join(os.getcwdb(), folder))


def _hash(path: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "little")
