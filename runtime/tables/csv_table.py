"""The table of scores as CSV: one line a row, and no cell that a spreadsheet takes for a formula.

The columns are file,start,end,<labels>,error,flags. `file` is as `cell_from_path` writes it, and
`path_from_cell` gives the exact path back. Times have three decimals, scores six.
"""

import contextlib
import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ..audio.file_names import cell_from_path, path_from_cell
from ..text import cell_from_text
from .rows import Row, flags_cell, flags_from_cell, score_columns
from .table_format import TableFormat, WriteRow


def csv_lines(rows: Iterable[Row], labels: tuple[str, ...]) -> Iterator[str]:
    """The lines of the CSV, each as its row comes; the header comes first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for cells in itertools.chain([_header(labels)], (_cells(row, labels) for row in rows)):
        writer.writerow(cells)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


@contextlib.contextmanager
def _opened(path: Path, labels: tuple[str, ...], _: int | None) -> Iterator[WriteRow]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_header(labels))
        yield lambda row: writer.writerow(_cells(row, labels))
        file.flush()


def _header(labels: tuple[str, ...]) -> list[str]:
    return ["file", "start", "end", *map(cell_from_text, score_columns(labels)), "error", "flags"]


def _cells(row: Row, labels: tuple[str, ...]) -> list[str]:
    scores = [""] * len(labels) if row.scores is None else [f"{row.scores[label]:z.6f}" for label in labels]
    place = [cell_from_path(row.file), _seconds(row.start), _seconds(row.end)]
    return [*place, *scores, row.error, flags_cell(row)]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _read(path: Path, labels: tuple[str, ...], _: int | None) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, strict=True)
        if (header := next(lines, [])) != _header(labels):
            raise ValueError(f"columns {','.join(header)[:60]}")
        for cells in lines:
            name, start, end, *scores, error, flags = cells
            values = dict(zip(labels, map(float, scores), strict=True)) if any(scores) else None
            yield Row(
                file=path_from_cell(name),
                start=float(start) if start else None,
                end=float(end) if end else None,
                scores=values,
                error=error,
                flags=flags_from_cell(flags),
            )


CSV: Final = TableFormat(suffix=".csv", opened=_opened, read=_read)
