"""The table of scores as Parquet, in row groups of bounded size. Needs pyarrow, the extra `parquet`.

D embedding, K labels.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..audio.file_names import exact_name
from .rows import Row, score_columns

_GROUP_ROWS: Final = 1 << 15
_GROUP_BYTES: Final = 1 << 25  # of embeddings; memory holds a few times this
_LEVEL: Final = 3  # of zstd


@contextlib.contextmanager
def open_parquet(
    path: Path, labels: tuple[str, ...], embedding_size: int | None
) -> Iterator[Callable[[Row], object]]:
    """Yields what appends a row: file, start, end, <labels>, error, file_bytes and, with D, embedding.

    The same rows give the same bytes. The schema's metadata has the labels as JSON under `labels`.
    """
    schema = _schema(labels, embedding_size)
    limit = min(_GROUP_ROWS, max(1, _GROUP_BYTES // (4 * embedding_size))) if embedding_size else _GROUP_ROWS
    group: list[Row] = []

    def write_row(row: Row) -> None:
        group.append(row)
        if len(group) == limit:
            write_group()

    def write_group() -> None:
        writer.write_table(_table(group, labels, schema))
        group.clear()

    with path.open("wb") as file, _writer(file, schema) as writer:
        yield write_row
        if group:
            write_group()


@contextlib.contextmanager
def _writer(file: BinaryIO, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    writer = pq.ParquetWriter(
        file, schema, version="2.6", compression="zstd", compression_level=_LEVEL, use_dictionary=["error"]
    )
    try:
        yield writer
        writer.close()
    finally:
        writer.is_open = False  # or its __del__ would write the footer to a disk that is full


def _schema(labels: tuple[str, ...], embedding_size: int | None) -> pa.Schema:
    types = {
        "file": pa.string(),
        "start": pa.float64(),
        "end": pa.float64(),
        **dict.fromkeys(score_columns(labels), pa.float32()),
        "error": pa.dictionary(pa.int32(), pa.string()),
        "file_bytes": pa.binary(),
    }
    if embedding_size:
        types["embedding"] = pa.list_(pa.float32(), embedding_size)
    return pa.schema(types.items(), metadata={"labels": json.dumps(labels)})


def _table(rows: list[Row], labels: tuple[str, ...], schema: pa.Schema) -> pa.Table:
    names, exact = zip(*(exact_name(row.file) for row in rows), strict=True)
    no_scores = np.array([row.scores is None for row in rows])
    scores = _score_matrix(rows, labels)
    columns = [
        pa.array(names, pa.string()),
        pa.array([row.start for row in rows], pa.float64()),
        pa.array([row.end for row in rows], pa.float64()),
        *(pa.array(column, mask=no_scores) for column in scores),
        pa.array([row.error or None for row in rows], pa.string()).dictionary_encode(),
        pa.array(exact, pa.binary()),
    ]
    if "embedding" in schema.names:
        columns.append(_embeddings(rows, schema.field("embedding").type.list_size))
    return pa.table(columns, schema=schema)


def _score_matrix(rows: list[Row], labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """[K, rows]; NaN where there are none."""
    missing = [np.nan] * len(labels)
    scores = [missing if row.scores is None else [row.scores[label] for label in labels] for row in rows]
    return np.ascontiguousarray(np.array(scores, dtype=np.float32).T)


def _embeddings(rows: list[Row], size: int) -> pa.Array:
    """[rows] of lists of D; null where a row has none."""
    missing = np.zeros(size, np.float32)
    values = np.stack([missing if row.embedding is None else row.embedding for row in rows], dtype=np.float32)
    none = pa.array([row.embedding is None for row in rows])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), size, mask=none)
