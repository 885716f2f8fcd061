"""The tables of scores, as CSV, JSON lines or Parquet: exact names for programs, harmless cells for
spreadsheets.

What they hold is the same; the file's suffix chooses. D embedding, K labels.
"""

import base64
import contextlib
import csv
import heapq
import importlib.util
import io
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ..audio.file_names import cell_from_path, exact_name, harmless_cell
from ..errors import ConfigError, MissingExtraError, StoppedError
from ..files import atomic_path
from .embedding_file import embedding_path, open_embeddings
from .rows import Row, score_columns

SUFFIXES: Final = (".csv", ".jsonl", ".parquet")

_WriteRow = Callable[[Row], object]


class TopRow(NamedTuple):
    """A row for people: the labels that score highest, the highest first."""

    file: str  # as in the CSV
    start: float | None  # s
    end: float | None  # s
    scores: list[tuple[str, float]]
    error: str


def check_table(target: Path, *, embeddings: bool = False) -> None:
    """Before anything is loaded: a table that cannot be written is no reason to score for an hour.

    Raises ConfigError for a name that is no table's, MissingExtraError, StoppedError where nothing
    can be written.
    """
    _check_format(target)
    try:
        for path in (target, embedding_path(target)) if embeddings else (target,):
            if path.exists() and not path.is_file():
                raise ConfigError(f"--out {path} | is no regular file | expected a file name")
        if not target.parent.is_dir():
            raise ConfigError(
                f"--out {target} | {target.parent} is no folder | expected a folder that is there | make it first"
            )
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise _stopped(target, error) from error


def write_table(
    target: Path, rows: Iterable[Row], labels: tuple[str, ...], *, embedding_size: int | None = None
) -> Iterator[Row]:
    """Writes the rows and passes them on; the table appears whole, at the end, or not at all.

    .csv      file,start,end,<labels>,error; file as `cell_from_path` writes it, scores with six decimals.
    .jsonl    {"file", "start", "end", "scores": {label: score} or null, "error"} a line, ASCII; scores read back to the
              same float32. A name that is not UTF-8 has U+FFFD in "file", and its bytes as base64 in "file_bytes".
    .parquet  the same columns, start and end float64, scores float32; "file_bytes" is null where "file" is exact.
    `path_from_cell` and `path_from_record` give the exact path back. `embedding_size` D adds the embeddings: in Parquet a
    column `embedding`, else <stem>.embeddings.npy beside, [rows, D], NaN for a row that has none; it appears just before.

    Raises StoppedError where the disk is full or the folder cannot be written to.
    """
    _check_format(target)
    try:
        with contextlib.ExitStack() as stack:
            write_row = _open_table(target, labels, embedding_size, stack=stack)
            for row in rows:
                write_row(row)
                yield row
    except OSError as error:
        raise _stopped(target, error) from error


def csv_lines(rows: Iterable[Row], labels: tuple[str, ...]) -> Iterator[str]:
    """The CSV as text, line by line as the rows come, the header first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for cells in itertools.chain([_header(labels)], (_cells(row, labels) for row in rows)):
        writer.writerow(cells)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def json_row(row: Row) -> dict[str, Any]:
    """A row as the JSONL has it. Scores have the fewest digits that give back the same float32."""
    text, name = exact_name(row.file)
    scores = (
        None if row.scores is None else dict(zip(row.scores, _shortest(row.scores.values()), strict=True))
    )
    record = {"file": text, "start": row.start, "end": row.end, "scores": scores, "error": row.error or None}
    return record if name is None else {**record, "file_bytes": base64.b64encode(name).decode()}


def top_rows(rows: Iterable[Row], labels: tuple[str, ...], n: int) -> Iterator[TopRow]:
    """The n highest labels of each row; of equal ones those that the model has first. None for a bad file."""
    if n < 1:
        raise ConfigError(f"--top | {n} | expected 1 or more labels")
    for row in rows:
        scores = [] if row.scores is None else [(label, row.scores[label]) for label in labels]
        highest = heapq.nlargest(n, scores, key=lambda item: item[1])
        yield TopRow(cell_from_path(row.file), row.start, row.end, highest, row.error)


def _check_format(target: Path) -> None:
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        expected = ", ".join(SUFFIXES)
        raise ConfigError(
            f"--out {target} | {suffix or 'no suffix'} | expected one of {expected} | use --out scores.csv"
        )
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError('pyarrow | not installed | needed for .parquet | pip install "rrtn[parquet]"')


def _stopped(target: Path, error: OSError) -> StoppedError:
    return StoppedError(
        f"{target} | {error.strerror or error} | expected a folder with space that can be written to"
    )


def _open_table(
    target: Path, labels: tuple[str, ...], embedding_size: int | None, *, stack: contextlib.ExitStack
) -> _WriteRow:
    temporary = stack.enter_context(atomic_path(target))
    if target.suffix.lower() == ".parquet":
        from .parquet_table import open_parquet

        return stack.enter_context(open_parquet(temporary, labels, embedding_size))
    open_text = _open_csv if target.suffix.lower() == ".csv" else _open_jsonl
    if embedding_size is None:
        return stack.enter_context(open_text(temporary, labels))
    # Both files are flushed before either is renamed.
    beside = stack.enter_context(atomic_path(embedding_path(target)))
    writers = [
        stack.enter_context(opened)
        for opened in (open_text(temporary, labels), open_embeddings(beside, embedding_size))
    ]
    return lambda row: [write_row(row) for write_row in writers]


@contextlib.contextmanager
def _open_csv(path: Path, labels: tuple[str, ...]) -> Iterator[_WriteRow]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_header(labels))
        yield lambda row: writer.writerow(_cells(row, labels))
        file.flush()


@contextlib.contextmanager
def _open_jsonl(path: Path, labels: tuple[str, ...]) -> Iterator[_WriteRow]:
    with path.open("w", encoding="ascii", newline="") as file:
        yield lambda row: file.write(json.dumps(json_row(row), allow_nan=False) + "\n")
        file.flush()


def _header(labels: tuple[str, ...]) -> list[str]:
    return ["file", "start", "end", *map(harmless_cell, score_columns(labels)), "error"]


def _cells(row: Row, labels: tuple[str, ...]) -> list[str]:
    scores = [""] * len(labels) if row.scores is None else [f"{row.scores[label]:.6f}" for label in labels]
    return [cell_from_path(row.file), _seconds(row.start), _seconds(row.end), *scores, row.error]


def _shortest(scores: Iterable[float]) -> list[float]:
    """0.10000000149011612, the float32, becomes 0.1: the double that Python writes with the
    float32's own digits.
    """
    return [float(digits) for digits in np.array([*scores], dtype=np.float32).astype(str).tolist()]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
