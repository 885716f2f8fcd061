"""The table of scores as JSON lines, in ASCII.

A line is {"file", "start", "end", "scores": {label: score} or null, "error", "flags"}. The scores read
back to the same float32. "flags" are joined by ";". A name that is not UTF-8 has U+FFFD in "file", and
its bytes as base64 in "file_bytes". `path_from_record` gives the exact path back.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..audio.file_names import exact_bytes, exact_name, path_from_record
from .rows import Row, flags_cell, flags_from_cell
from .table_format import TableFormat, WriteRow


def json_row(row: Row) -> dict[str, Any]:
    """A row as one line of the table has it."""
    text, name = exact_name(row.file)
    return {
        "file": text,
        "start": row.start,
        "end": row.end,
        "scores": None if row.scores is None else _shortest(row.scores),
        "error": row.error or None,
        "flags": flags_cell(row),
        **exact_bytes(name),
    }


@contextlib.contextmanager
def _opened(path: Path, labels: tuple[str, ...], _: int | None) -> Iterator[WriteRow]:
    with path.open("w", encoding="ascii", newline="") as file:
        yield lambda row: file.write(json.dumps(json_row(row), allow_nan=False) + "\n")
        file.flush()


def _shortest(scores: dict[str, float]) -> dict[str, float]:
    """Each score with the fewest digits that give back the same float32.

    The float32 0.10000000149011612 becomes 0.1, the double that Python writes with its digits.
    """
    import numpy as np

    digits = np.array([*scores.values()], dtype=np.float32).astype(str).tolist()
    return dict(zip(scores, map(float, digits), strict=True))


def _read(path: Path, labels: tuple[str, ...], _: int | None) -> Iterator[Row]:
    with path.open(encoding="ascii") as file:
        for line in file:
            record = json.loads(line)
            scores = record["scores"]
            if scores is not None and tuple(scores) != labels:
                raise ValueError(f"labels {', '.join(scores)[:60]}")
            yield Row(
                file=path_from_record(record),
                start=record["start"],
                end=record["end"],
                scores=scores,
                error=record["error"] or "",
                flags=flags_from_cell(record["flags"]),
            )


JSONL: Final = TableFormat(suffix=".jsonl", opened=_opened, read=_read)
