"""Embeddings beside a table: one .npy that `np.load(path, mmap_mode="r")` opens. D embedding."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from .rows import Row
from .table_format import WriteRow

_FLOAT32: Final = np.dtype("<f4")


def embedding_path(table: Path) -> Path:
    """scores.csv -> scores.embeddings.npy."""
    return table.with_name(f"{table.stem}.embeddings.npy")


@contextlib.contextmanager
def open_embeddings(path: Path, size: int) -> Iterator[WriteRow]:
    """Yields what appends a row's embedding [D], NaN where the row has none.

    At the end the file is [rows, D] float32.
    """
    written = 0
    missing = np.full(size, np.nan, _FLOAT32)

    def write_row(row: Row) -> None:
        nonlocal written
        embedding = missing if row.embedding is None else row.embedding
        assert embedding.shape == (size,)
        file.write(embedding.astype(_FLOAT32).tobytes())
        written += 1

    with path.open("wb") as file:
        length = _write_header(file, 0, size)
        yield write_row
        file.seek(0)
        assert _write_header(file, written, size) == length


def rows_with_embeddings(rows: Iterable[Row], path: Path, size: int | None) -> Iterator[Row]:
    """The rows of a table with the embeddings that lie beside it, if there are any.

    Raises ValueError where there are other embeddings, or none, or where their number differs.
    """
    if size is None:
        if path.exists():
            raise ValueError(f"has embeddings, in {path.name}")
        yield from rows
        return
    if not path.exists():
        raise ValueError("has no embeddings")
    embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    if embeddings.shape[1:] != (size,) or embeddings.dtype != _FLOAT32:
        raise ValueError(f"{path.name} has other embeddings")
    for row, embedding in zip(rows, embeddings, strict=True):
        yield row if row.scores is None else replace(row, embedding=np.array(embedding))


def _write_header(file: BinaryIO, rows: int, size: int) -> int:
    """Writes the header of a file of so many rows; -> its length.

    NumPy leaves room in the header for a number of rows that grows.
    """
    header = {"descr": _FLOAT32.str, "fortran_order": False, "shape": (rows, size)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
