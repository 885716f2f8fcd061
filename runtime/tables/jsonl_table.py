"""The table of scores as JSON lines, in ASCII.

A line is what `json_row` gives. `path_from_record` gives the exact path back.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..audio.file_names import path_from_record
from .json_row import json_row
from .rows import Row, flags_from_cell
from .table_format import TableFormat, WriteRow


@contextlib.contextmanager
def _opened(path: Path, labels: tuple[str, ...], _: int | None) -> Iterator[WriteRow]:
    with path.open("w", encoding="ascii", newline="") as file:
        yield lambda row: file.write(json.dumps(json_row(row), allow_nan=False) + "\n")
        file.flush()


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
