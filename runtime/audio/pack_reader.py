"""Packs: many small audio files in few Parquet files.

They are for storage where each small file costs a round trip. A row is a file: its exact name (as in the
tables), its size and time, and its bytes as they were, or the code of the error that reading it gave. So a
pack scores as its files do.

Needs pyarrow, the extra `parquet`.
"""

import bisect
import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any, Final

from ..errors import AudioError, DataError, MissingExtraError, StoppedError
from ..failpoints import failpoint
from .sources import Input, PackedFile

PACK_FORMAT: Final = {b"rrtn": b"pack 1"}  # in the schema's metadata
_WITHOUT_CONTENT: Final = ["file", "file_bytes", "size", "mtime_ns"]


class _NoPack(Exception):  # noqa: N818
    """A Parquet file that is not what a pack should be."""


def inputs_from_pack(path: bytes) -> Iterator[Input]:
    """The files of a pack, row group by row group, without their content.

    Raises DataError for a file that is no pack.
    """
    try:
        with _opened_pack(path) as pack:
            status, number = os.stat(path), 0
            for group in range(pack.num_row_groups):
                for row in pack.read_row_group(
                    group, columns=_WITHOUT_CONTENT, use_threads=False
                ).to_pylist():
                    source = PackedFile(path, number, _name_of(row))
                    yield Input(source, row["size"], row["mtime_ns"], status.st_ctime_ns, status.st_ino)
                    number += 1
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
        self._group = -1
        self._rows: Any = None  # of the row group

    def __enter__(self) -> "PackReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the pack; the next file opens its pack again."""
        if self._pack is not None:
            self._pack.close(force=True)
        self._pack, self._path = None, b""

    @contextlib.contextmanager
    def opened(self, file: PackedFile) -> Iterator[int]:
        """The content of a file, as the descriptor of a file in memory.

        Raises AudioError where reading the file gave an error when it was packed, StoppedError where
        the pack cannot be read.
        """
        failpoint("read", file=file.name)
        try:
            content, error = self._content(file)
        except _pack_errors() as failed:
            raise StoppedError(
                repr(os.fsdecode(file.pack)),
                _short(failed),
                wanted="a whole pack on storage that can be read",
                fix="repair the storage, or run rrtn pack again; then run the command again",
            ) from failed
        if error:
            raise AudioError(error, "when it was packed")
        descriptor = os.memfd_create("rrtn")
        try:
            with open(descriptor, "wb", closefd=False) as memory:
                memory.write(content)
            os.lseek(descriptor, 0, os.SEEK_SET)
            yield descriptor
        finally:
            os.close(descriptor)

    def _content(self, file: PackedFile) -> tuple[Any, str | None]:
        """(its bytes, None), or (b"", the code of its error)."""
        if file.pack != self._path:
            self._open(file.pack)
        group = bisect.bisect_right(self._ends, file.row)
        if group != self._group or self._rows is None:
            self._rows = self._pack.read_row_group(group, use_threads=False)
            self._group = group
        row = file.row - (self._ends[group - 1] if group else 0)
        head = self._rows.select(["file", "file_bytes", "error"]).slice(row, 1).to_pylist()[0]
        if _name_of(head) != file.name:
            raise _NoPack("another file at this row")
        return (b"" if head["error"] else self._rows["content"][row].as_buffer()), head["error"]

    def _open(self, path: bytes) -> None:
        self._path, self._group, self._rows = b"", -1, None
        self.close()
        self._pack = _parquet_file(path)
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
        yield pack
    finally:
        pack.close(force=True)


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


def _name_of(row: dict[str, Any]) -> bytes:
    exact: bytes | None = row["file_bytes"]
    return str(row["file"]).encode() if exact is None else exact


def _pack_errors() -> tuple[type[Exception], ...]:
    arrow, _ = imported_pyarrow()
    return OSError, arrow.ArrowException, KeyError, IndexError, _NoPack


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else repr(error)


def imported_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises MissingExtraError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "pyarrow", "is not installed, and packs need it", fix='pip install "rrtn[parquet]"'
        ) from error
    return pyarrow, pyarrow.parquet
