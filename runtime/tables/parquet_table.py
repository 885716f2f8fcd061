"""The table of scores as Parquet, in row groups of bounded size. Needs pyarrow, the extra `parquet`.

The columns are file, start, end, <labels>, error, flags, file_bytes and, with D, embedding. Times are
float64, scores float32. `flags` is one text joined by ";". `file_bytes` is null where `file` is exact;
`path_from_record` gives the exact path back. The same rows give the same bytes. The schema's metadata has
the labels as JSON under `labels`.

D embedding, K labels.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ..audio.file_names import exact_name, path_from_record
from .rows import Row, flags_cell, flags_from_cell, score_columns
from .table_format import TableFormat, WriteRow

if TYPE_CHECKING:  # loaded where they are needed: a table of another format does without
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..arrays import Float32

_GROUP_ROWS: Final = 1 << 15
_GROUP_BYTES: Final = 1 << 25  # of embeddings; memory holds a few times this
_LEVEL: Final = 3  # of zstd


@contextlib.contextmanager
def _opened(path: Path, labels: tuple[str, ...], embedding_size: int | None) -> Iterator[WriteRow]:
    schema = _schema(labels, embedding_size)
    limit = _rows_of_group(embedding_size)
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


def _rows_of_group(embedding_size: int | None) -> int:
    if not embedding_size:
        return _GROUP_ROWS
    return min(_GROUP_ROWS, max(1, _GROUP_BYTES // (4 * embedding_size)))


@contextlib.contextmanager
def _writer(file: BinaryIO, schema: "pa.Schema") -> "Iterator[pq.ParquetWriter]":
    import pyarrow.parquet as pq

    packing = {"compression": "zstd", "compression_level": _LEVEL, "use_dictionary": ["error", "flags"]}
    writer = pq.ParquetWriter(file, schema, version="2.6", **packing)
    try:
        yield writer
        writer.close()
    finally:
        writer.is_open = False  # or its __del__ would write the footer to a disk that is full


def _schema(labels: tuple[str, ...], embedding_size: int | None) -> "pa.Schema":
    import pyarrow as pa

    types = {
        "file": pa.string(),
        "start": pa.float64(),
        "end": pa.float64(),
        **dict.fromkeys(score_columns(labels), pa.float32()),
        "error": pa.dictionary(pa.int32(), pa.string()),
        "flags": pa.dictionary(pa.int32(), pa.string()),
        "file_bytes": pa.binary(),
    }
    if embedding_size:
        types["embedding"] = pa.list_(pa.float32(), embedding_size)
    return pa.schema(types.items(), metadata={"labels": json.dumps(labels)})


def _table(rows: list[Row], labels: tuple[str, ...], schema: "pa.Schema") -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    names, exact = zip(*(exact_name(row.file) for row in rows), strict=True)
    no_scores = np.array([row.scores is None for row in rows])
    columns = [
        pa.array(names, pa.string()),
        pa.array([row.start for row in rows], pa.float64()),
        pa.array([row.end for row in rows], pa.float64()),
        *(pa.array(column, mask=no_scores) for column in _score_matrix(rows, labels)),
        pa.array([row.error or None for row in rows], pa.string()).dictionary_encode(),
        pa.array([flags_cell(row) for row in rows], pa.string()).dictionary_encode(),
        pa.array(exact, pa.binary()),
    ]
    if "embedding" in schema.names:
        columns.append(_embeddings(rows, schema.field("embedding").type.list_size))
    return pa.table(columns, schema=schema)


def _score_matrix(rows: list[Row], labels: tuple[str, ...]) -> "Float32":
    """[K, rows]; NaN where there are no scores."""
    import numpy as np

    missing = [np.nan] * len(labels)
    scores = [missing if row.scores is None else [row.scores[label] for label in labels] for row in rows]
    return np.ascontiguousarray(np.array(scores, dtype=np.float32).T)


def _embeddings(rows: list[Row], size: int) -> "pa.Array":
    """[rows] of lists of D; null where a row has none."""
    import numpy as np
    import pyarrow as pa

    missing = np.zeros(size, np.float32)
    values = np.stack([missing if row.embedding is None else row.embedding for row in rows], dtype=np.float32)
    none = pa.array([row.embedding is None for row in rows])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), size, mask=none)


def _read(path: Path, labels: tuple[str, ...], embedding_size: int | None) -> Iterator[Row]:
    import numpy as np
    import pyarrow.parquet as pq

    columns = score_columns(labels)
    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(_schema(labels, embedding_size)):
            raise ValueError(f"columns {', '.join(file.schema_arrow.names)[:60]}")
        for batch in file.iter_batches(_rows_of_group(embedding_size)):
            for record in batch.to_pylist():
                scores = [record[column] for column in columns]
                embedding = record.get("embedding")
                yield Row(
                    file=path_from_record(record),
                    start=record["start"],
                    end=record["end"],
                    scores=None if None in scores else dict(zip(labels, scores, strict=True)),
                    error=record["error"] or "",
                    flags=flags_from_cell(record["flags"]),
                    embedding=None if embedding is None else np.array(embedding, np.float32),
                )


PARQUET: Final = TableFormat(
    suffix=".parquet", opened=_opened, read=_read, embeddings_inside=True, package="pyarrow", extra="parquet"
)
