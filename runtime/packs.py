"""Packs: many small audio files as few Parquet files, for storage where each small file costs a round trip.

A row is a file: its exact name (as in the tables), size, time and its bytes, untouched, or the code of the error that
reading it gave. So a pack scores as its files do. An input in a pack is the path of the pack, the row's number and the
name, with NUL between them, which is in no path.

Needs pyarrow, the extra `parquet`.
"""

import bisect
import contextlib
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from .audio import opened
from .errors import AudioError, DataError, MissingExtraError, StoppedError
from .failpoints import failpoint
from .files import atomic_path
from .folder import Bar
from .inputs import SEPARATOR, Input, name_from_path
from .locks import locked
from .rows import exact_name
from .shards import InputSpool, Shard

PACK_BYTES: Final = 256 << 20  # of audio in a pack, about
_GROUP_BYTES: Final = 8 << 20  # of audio in a row group, or
_GROUP_FILES: Final = 64
_FORMAT: Final = {b"rrtn": b"pack 1"}  # in the schema's metadata
_WITHOUT_CONTENT: Final = ["file", "file_bytes", "size", "mtime_ns"]


class _NoPack(Exception):  # noqa: N818
    """A Parquet file that is not what it should be."""


class Packed(NamedTuple):
    """What `write_packs` has made."""

    packs: int
    written: int  # of them, now
    files: int
    errors: Counter[str]  # of files in packs that were written now


def write_packs(spool: InputSpool, folder: Path, bar: Bar) -> Packed:
    """Writes what is not there yet; each pack appears whole. A file that cannot be read is a row with its error.

    Raises DataError where the folder has packs of other files, StoppedError where the storage fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    errors: Counter[str] = Counter()
    written = 0
    with locked(folder / ".lock", does="packs"):
        packs = [(folder / _name(number, shards), shards) for number, shards in enumerate(_groups(spool))]
        _check_folder(folder, {path.name for path, _ in packs})
        for path, shards in packs:
            if not path.exists():
                _write(path, itertools.chain.from_iterable(map(spool.inputs, shards)), errors)
                written += 1
            bar.advance(spool.files_of(shards))
    return Packed(len(packs), written, spool.files, errors)


def inputs_from_pack(path: bytes) -> Iterator[Input]:
    """The files of a pack, row group by row group, without their content. Raises DataError for a file that is none."""
    try:
        with _opened_pack(path) as pack:
            number = 0
            for group in range(pack.num_row_groups):
                for row in pack.read_row_group(group, columns=_WITHOUT_CONTENT, use_threads=False).to_pylist():
                    yield Input(SEPARATOR.join((path, b"%d" % number, _name_of(row))), row["size"], row["mtime_ns"])
                    number += 1
    except _pack_errors() as error:
        raise DataError(f"{os.fsdecode(path)!r} | {_short(error)} | expected what rrtn pack writes | pack again") from error


class PackReader:
    """Reads files of packs one after the other, and keeps the row group of the last one."""

    def __init__(self) -> None:
        self._pack: Any = None
        self._path = b""
        self._ends: list[int] = []  # of the row groups, in rows
        self._group = -1  # and its rows
        self._rows: Any = None

    def __enter__(self) -> "PackReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The pack that it is at; another file opens it again."""
        if self._pack is not None:
            self._pack.close(force=True)
        self._pack, self._path = None, b""

    @contextlib.contextmanager
    def opened(self, path: bytes) -> Iterator[int]:
        """A file of memory with the content, by its descriptor. Raises AudioError as the file did, StoppedError."""
        pack, number, name = path.split(SEPARATOR)
        failpoint("read", file=name)
        try:
            content, error = self._content(pack, int(number), name)
        except _pack_errors() as failed:
            message = f"{os.fsdecode(pack)!r} | {_short(failed)} | a whole pack in readable storage | pack again"
            raise StoppedError(message) from failed
        if error:
            raise AudioError(error, "when it was packed")
        descriptor = os.memfd_create("rrtn")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            yield descriptor
        finally:
            os.close(descriptor)

    def _content(self, pack: bytes, number: int, name: bytes) -> tuple[Any, str | None]:
        """Its bytes, or its error."""
        if pack != self._path:
            self._open(pack)
        group = bisect.bisect_right(self._ends, number)
        if group != self._group or self._rows is None:
            self._rows = self._pack.read_row_group(group, use_threads=False)
            self._group = group
        row = number - (self._ends[group - 1] if group else 0)
        head = self._rows.select(["file", "file_bytes", "error"]).slice(row, 1).to_pylist()[0]
        if _name_of(head) != name:
            raise _NoPack("another file at this row")
        return (b"" if head["error"] else self._rows["content"][row].as_buffer()), head["error"]

    def _open(self, path: bytes) -> None:
        self._path, self._group, self._rows = b"", -1, None
        self.close()
        self._pack = _parquet_file(path)
        metadata = self._pack.metadata
        self._ends = list(itertools.accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
        self._path = path


def _groups(spool: InputSpool) -> Iterator[list[Shard]]:
    """Consecutive shards of the spool, enough for a pack."""
    group: list[Shard] = []
    size = 0
    for shard in spool.shards:
        group.append(shard)
        size += sum(found.size for found in spool.inputs(shard))
        if size >= PACK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _name(number: int, shards: list[Shard]) -> str:
    key = hashlib.sha256("".join(shard.key for shard in shards).encode()).hexdigest()[:32]
    return f"pack-{number:06}-{key}.parquet"


def _check_folder(folder: Path, names: set[str]) -> None:
    for path in folder.glob(".pack-*.tmp"):  # what a killed one has left
        path.unlink(missing_ok=True)
    if others := sorted(path.name for path in folder.glob("pack-*.parquet") if path.name not in names):
        raise DataError(
            f"--out {folder} | {others[0]} is of other files, or these have changed | packs of these | choose another --out"
        )


def _write(path: Path, inputs: Iterable[Input], errors: Counter[str]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file, _writer(file) as writer:
        for rows in _row_groups(inputs, errors):
            writer.write_table(_table(rows))
    failpoint("pack.done")


def _row_groups(inputs: Iterable[Input], errors: Counter[str]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    with PackReader() as reader:
        for found in inputs:
            rows.append(_row(found, reader))
            size += len(rows[-1]["content"] or b"")
            errors.update(filter(None, [rows[-1]["error"]]))
            if len(rows) == _GROUP_FILES or size >= _GROUP_BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows


def _row(found: Input, reader: PackReader) -> dict[str, Any]:
    text, exact = exact_name(name_from_path(found.path))
    content, error = None, None
    try:
        with reader.opened(found.path) if SEPARATOR in found.path else opened(found.path) as descriptor:
            content = _content_of(descriptor)
    except AudioError as failed:
        error = failed.code
    return {
        "file": text,
        "file_bytes": exact,
        "size": found.size,
        "mtime_ns": found.mtime_ns,
        "content": content,
        "error": error,
    }


def _content_of(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


@contextlib.contextmanager
def _writer(file: BinaryIO) -> Iterator[Any]:
    """Audio is compressed, or noise: packed as it is, with a checksum on each page."""
    _, parquet = _imported_pyarrow()
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    writer = parquet.ParquetWriter(file, _schema(), version="2.6", write_page_checksum=True, **plain)
    try:
        yield writer
        writer.close()
    finally:
        writer.is_open = False  # or its __del__ would write the footer to a disk that is full


def _table(rows: list[dict[str, Any]]) -> Any:
    arrow, _ = _imported_pyarrow()
    return arrow.Table.from_pylist(rows, schema=_schema())


def _schema() -> Any:
    arrow, _ = _imported_pyarrow()
    types = {
        "file": arrow.string(),
        "file_bytes": arrow.binary(),  # null where `file` is exact
        "size": arrow.int64(),
        "mtime_ns": arrow.int64(),
        "content": arrow.large_binary(),  # null where there is an error
        "error": arrow.string(),
    }
    return arrow.schema(types.items(), metadata=_FORMAT)


@contextlib.contextmanager
def _opened_pack(path: bytes) -> Iterator[Any]:
    pack = _parquet_file(path)
    try:
        if not _FORMAT.items() <= (pack.schema_arrow.metadata or {}).items():
            raise _NoPack("Parquet, but no pack of audio")
        yield pack
    finally:
        pack.close(force=True)


def _parquet_file(path: bytes) -> Any:
    """By descriptor: pyarrow takes no name that is not UTF-8."""
    arrow, parquet = _imported_pyarrow()
    file = open(path, "rb")  # noqa: SIM115  # closed with the pack
    try:
        return parquet.ParquetFile(arrow.PythonFile(file, "r"), page_checksum_verification=True, pre_buffer=False)
    except BaseException:
        file.close()
        raise


def _name_of(row: dict[str, Any]) -> bytes:
    exact: bytes | None = row["file_bytes"]
    return str(row["file"]).encode() if exact is None else exact


def _pack_errors() -> tuple[type[Exception], ...]:
    arrow, _ = _imported_pyarrow()
    return OSError, arrow.ArrowException, KeyError, IndexError, _NoPack


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else repr(error)


def _imported_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError('pyarrow | not installed | needed for packs | pip install "rrtn[parquet]"') from error
    return pyarrow, pyarrow.parquet
