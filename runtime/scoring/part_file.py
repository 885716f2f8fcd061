"""The rows of one shard as bytes: an .npz without pickles. The details of errors are not kept.

F files of a shard, R rows, K labels, D embedding.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..arrays import Float32
from ..audio.sources import AudioSource, name_from_source
from ..tables.rows import Row, flags_cell

_HASH_BYTES: Final = 20  # of a content_hash
_NAN: Final = float("nan")


def part_from_rows(
    files: Sequence[Sequence[Row]], labels: tuple[str, ...], *, embedding_size: int | None = None
) -> bytes:
    """The rows of each file of a shard, in the order of the files, as bytes."""
    rows = [row for of_file in files for row in of_file]
    codes = sorted({row.error for row in rows})
    scores = [list(row.scores.values()) if row.scores else None for row in rows]
    columns: dict[str, Any] = {
        "rows": np.array([len(of_file) for of_file in files], np.uint32),  # [F]
        "content": _hashes([of_file[0].content for of_file in files]),  # [F, 20]
        "start": np.array([_NAN if row.start is None else row.start for row in rows], np.float64),  # [R]
        "end": np.array([_NAN if row.end is None else row.end for row in rows], np.float64),
        "scored": np.array([row.scores is not None for row in rows], bool),
        "scores": _matrix(scores, len(labels)),  # [R, K]
        "codes": np.array([code.encode() for code in codes], "S"),
        "code": np.array([codes.index(row.error) for row in rows], np.uint8),  # [R], of `codes`
        "flags": np.array([flags_cell(row).encode() for row in rows], "S"),  # [R]
        "seconds": np.array([row.seconds for row in rows], np.float64),
    }
    if embedding_size is not None:
        columns["embedding"] = _matrix([row.embedding for row in rows], embedding_size)  # [R, D]
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


def rows_from_part(
    content: bytes, sources: Sequence[AudioSource], labels: tuple[str, ...]
) -> Iterator[list[Row]]:
    """What `part_from_rows` was given, without the details."""
    with np.load(io.BytesIO(content), allow_pickle=False) as columns:
        codes = [name.decode() for name in columns["codes"].tolist()]
        embedding = columns.get("embedding")
        counts, start, end, scored, scores, code, flags, seconds = (
            columns[name].tolist()
            for name in ("rows", "start", "end", "scored", "scores", "code", "flags", "seconds")
        )
    row = 0
    for source, count in zip(sources, counts, strict=True):
        yield [
            Row(
                file=name_from_source(source),
                start=None if start[i] != start[i] else start[i],
                end=None if end[i] != end[i] else end[i],
                scores=dict(zip(labels, scores[i], strict=True)) if scored[i] else None,
                error=codes[code[i]],
                flags=tuple(flags[i].decode().split(";")) if flags[i] else (),
                seconds=seconds[i],
                embedding=embedding[i] if embedding is not None and scored[i] else None,
            )
            for i in range(row, row + count)
        ]
        row += count


def hashes_from_part(content: bytes) -> list[bytes] | None:
    """The content_hash of each file of the shard, [F]; b"" where it is unknown.

    Gives None for a part that has none.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as columns:
        if "content" not in columns:
            return None
        return [found.tobytes() if found.any() else b"" for found in columns["content"]]


def _hashes(found: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """[F, 20], zeros where there is none."""
    joined = b"".join(one.ljust(_HASH_BYTES, b"\0") for one in found)
    return np.frombuffer(joined, np.uint8).reshape(-1, _HASH_BYTES)


def _matrix(vectors: Sequence[Any], width: int) -> Float32:
    """float32 [R, width], NaN where there is no vector."""
    nothing = [_NAN] * width
    rows = [nothing if vector is None else vector for vector in vectors]
    return np.array(rows, np.float32).reshape(len(rows), width)
