"""Packs: many small audio files in few Parquet files.

They are for storage where each small file costs a round trip. A row is a file: its exact name (as in the
tables), its size and time, and its bytes as they were, or the code of the error that reading it gave. So a
pack scores as its files do. The file's metadata has a digest of all rows but their bytes, for which Parquet
has checksums.

Needs pyarrow, the extra `parquet`.
"""

import bisect
import contextlib
import hashlib
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from ..errors import AudioError, DataError, MissingExtraError, StoppedError
from ..system.failpoints import failpoint
from ..system.host import anonymous_file, inode_of
from .codes import ERROR_CODES
from .file_names import LONGEST_NAME
from .sources import Input, PackedFile

PACK_FORMAT: Final = {b"rrtn": b"pack 1"}  # in the schema's metadata
DIGEST: Final = "digest"  # in the file's metadata; a pack without one is read, with a note
_WITHOUT_CONTENT: Final = ("file", "file_bytes", "size", "mtime_ns", "error")
_COLUMNS: Final = ("file", "file_bytes", "error", "content")
_AT_ONCE: Final = 8  # rows in memory
# What a pack may unfold to. rrtn compresses nothing, but another program may have written the pack again.
_UNFOLDED: Final = 256 << 20  # bytes, and
_TIMES: Final = 32  # times its size


class _NoPack(Exception):  # noqa: N818
    """A Parquet file that is not what a pack should be."""


class _Row(NamedTuple):
    """A row without its content."""

    name: bytes
    size: int
    mtime_ns: int
    error: str | None


class PackDigest:
    """A hash of the rows of a pack, in their order, without their content."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, name: bytes, size: int, mtime_ns: int, error: str | None) -> None:
        """Adds the next row."""
        code = (error or "").encode()
        lengths = struct.pack("<QqqQ", len(name), size, mtime_ns, len(code))
        self._hash.update(lengths + name + code)

    def text(self) -> str:
        """The digest in hex."""
        return self._hash.hexdigest()


def inputs_from_pack(path: bytes, *, unchecked: Callable[[], object] = lambda: None) -> Iterator[Input]:
    """The files of a pack, row group by row group, without their content.

    At the end the names and sizes are compared with the pack's digest. `unchecked` is called for a pack that
    has none, because it was written before packs had one. Raises DataError for a file that is no pack, or one
    that was changed.
    """
    try:
        with _opened_pack(path) as pack:
            status, digest, unfolded = os.stat(path), PackDigest(), 0
            for number, row in enumerate(_listed_rows(pack, path)):
                unfolded += 0 if row.error else row.size
                _check_unfolded(unfolded, status.st_size)
                digest.add(*row)
                source = PackedFile(path, number, row.name)
                yield Input(source, row.size, row.mtime_ns, status.st_ctime_ns, inode_of(status))
            expected = (pack.metadata.metadata or {}).get(DIGEST.encode())
            if expected is None:
                unchecked()
            elif expected != digest.text().encode():
                raise _NoPack("was changed: other names or sizes than its digest says")
    except _pack_errors() as error:
        raise DataError(
            repr(os.fsdecode(path)), _short(error), wanted="what rrtn pack writes", fix="run rrtn pack again"
        ) from error


class PackReader:
    """Reads files of packs one after the other, and keeps the row group of the last file."""

    def __init__(self) -> None:
        self._pack: Any = None
        self._path = b""
        self._ends: list[int] = []  # number of the row behind each row group
        self._group = -1  # that was read last, in
        self._batches: Iterator[Any] = iter(())  # of rows
        self._rows: Any = ()  # the last batch
        self._first = 0  # number of its first row in the group

    def __enter__(self) -> "PackReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the pack; the next file opens its pack again."""
        if self._pack is not None:
            self._pack.close(force=True)
        self._pack, self._path = None, b""
        self._group, self._batches, self._rows = -1, iter(()), ()

    @contextlib.contextmanager
    def opened(self, file: PackedFile) -> Iterator[int]:
        """The content of a file, as the descriptor of a file without a name.

        Raises AudioError where reading the file gave an error when it was packed, StoppedError where
        the pack cannot be read; the next try opens it anew.
        """
        try:
            failpoint("read", file=file.name)
            content, error = self._content(file)
        except _pack_errors() as failed:
            self.close()
            raise StoppedError(
                repr(os.fsdecode(file.pack)),
                _short(failed),
                wanted="a whole pack on storage that can be read",
                fix="repair the storage, or run rrtn pack again; then run the command again",
            ) from failed
        if error:
            code = error if error in ERROR_CODES else "corrupt"
            raise AudioError(code, "when it was packed")
        if content is None:
            raise AudioError("empty", "the pack has neither its bytes nor an error")
        descriptor = anonymous_file()
        try:
            with open(descriptor, "wb", closefd=False) as memory:
                memory.write(content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            yield descriptor
        finally:
            os.close(descriptor)

    def _content(self, file: PackedFile) -> tuple[Any, str | None]:
        """(its bytes, None), or (None, the code of its error); None twice if the row has neither."""
        if file.pack != self._path:
            self._open(file.pack)
        group = bisect.bisect_right(self._ends, file.row)
        begin = self._ends[group - 1] if group else 0
        rows, row = self._rows_at(group, file.row - begin)
        head = rows.select(["file", "file_bytes", "error"]).slice(row, 1).to_pylist()[0]
        if _name_of(head, file.pack, file.row) != file.name:
            raise _NoPack("another file at this row")
        content = rows.column("content")[row]
        if head["error"] or not content.is_valid:
            return None, head["error"]
        return content.as_buffer(), None

    def _rows_at(self, group: int, row: int) -> tuple[Any, int]:
        """Some rows of the group, and which of them is the row.

        No more than so many at once: by a dictionary, each of them may be as large as the whole group.
        """
        if group != self._group or row < self._first:
            self._group, self._first, self._rows = group, 0, ()
            self._batches = self._pack.iter_batches(
                _AT_ONCE, row_groups=[group], columns=list(_COLUMNS), use_threads=False
            )
        while row >= self._first + len(self._rows):
            self._first += len(self._rows)
            self._rows = ()  # before the next ones are there, too
            self._rows = next(self._batches)
        return self._rows, row - self._first

    def _open(self, path: bytes) -> None:
        self.close()
        self._pack = _parquet_file(path)
        _check_schema(self._pack)
        metadata = self._pack.metadata
        self._ends = list(
            itertools.accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        )
        self._path = path


@contextlib.contextmanager
def _opened_pack(path: bytes) -> Iterator[Any]:
    pack = _parquet_file(path)
    try:
        if not PACK_FORMAT.items() <= (pack.schema_arrow.metadata or {}).items():
            raise _NoPack("Parquet, but no pack of audio")
        _check_schema(pack)
        metadata, size = pack.metadata, _size_of(path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        _check_unfolded(sum(group.total_byte_size for group in groups), size)
        if metadata.num_rows > size or metadata.num_rows != sum(group.num_rows for group in groups):
            raise _NoPack(f"{metadata.num_rows} rows in {size} bytes")
        yield pack
    finally:
        pack.close(force=True)


def _check_schema(pack: Any) -> None:
    """Raises _NoPack where a column is missing, or has values of another kind."""
    arrow, _ = imported_pyarrow()
    is_a = arrow.types
    schema = pack.schema_arrow
    for name, wanted in {
        "file": (is_a.is_string, is_a.is_large_string),
        "file_bytes": (is_a.is_binary, is_a.is_large_binary),
        "size": (is_a.is_integer,),
        "mtime_ns": (is_a.is_integer,),
        "content": (is_a.is_binary, is_a.is_large_binary),
        "error": (is_a.is_string, is_a.is_large_string),
    }.items():
        if schema.names.count(name) != 1:
            raise _NoPack(f"no column {name}")
        found = schema.field(name).type
        if not any(is_kind(found) for is_kind in wanted):
            raise _NoPack(f"column {name} is of type {found}")


def _check_unfolded(unfolded: int, size: int) -> None:
    if not 0 <= unfolded <= _UNFOLDED + _TIMES * size:
        raise _NoPack(f"its {size:,} bytes unfold to {unfolded:,}")


def _listed_rows(pack: Any, path: bytes) -> Iterator[_Row]:
    number = 0
    for batch in pack.iter_batches(_AT_ONCE, columns=list(_WITHOUT_CONTENT), use_threads=False):
        for row in batch.to_pylist():
            name = _name_of(row, path, number)
            if len(name) > LONGEST_NAME:
                raise _NoPack(f"a name of {len(name):,} bytes")
            yield _Row(name, max(0, row["size"] or 0), row["mtime_ns"] or 0, row["error"])
            number += 1
    if number != pack.metadata.num_rows:  # pyarrow takes some damage for the end
        raise _NoPack(f"holds {number} of its {pack.metadata.num_rows} rows")


def _size_of(path: bytes) -> int:
    return os.stat(path).st_size


def _parquet_file(path: bytes) -> Any:
    """Opened by descriptor, because pyarrow takes no name that is not UTF-8."""
    arrow, parquet = imported_pyarrow()
    file = open(path, "rb")  # noqa: SIM115  # closed with the pack
    try:
        return parquet.ParquetFile(
            arrow.PythonFile(file, "r"), page_checksum_verification=True, pre_buffer=False
        )
    except BaseException:
        file.close()
        raise


def _name_of(row: dict[str, Any], pack: bytes, number: int) -> bytes:
    """The exact name; where the row has none, the pack's and the row's number."""
    exact: bytes | None = row["file_bytes"]
    if exact is not None:
        return exact
    return b"%s#%d" % (pack, number) if row["file"] is None else str(row["file"]).encode()


def _pack_errors() -> tuple[type[Exception], ...]:
    arrow, _ = imported_pyarrow()
    wrong_bytes = (UnicodeError, OverflowError, ValueError, StopIteration, struct.error)
    return OSError, arrow.ArrowException, KeyError, IndexError, _NoPack, *wrong_bytes


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else repr(error)


def imported_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises MissingExtraError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError.of("pyarrow", "parquet", "a pack") from error
    return pyarrow, pyarrow.parquet
