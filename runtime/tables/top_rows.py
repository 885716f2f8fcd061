"""Rows for people: of each row the labels that score highest. K labels."""

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..audio.file_names import cell_from_path
from ..errors import ConfigError
from .rows import Row, flags_cell


class TopRow(NamedTuple):
    """A row with its highest labels, the highest first."""

    file: str  # as in the CSV
    start: float | None  # s
    end: float | None  # s
    scores: list[tuple[str, float]]
    error: str
    flags: str  # joined by ";"


def top_rows(rows: Iterable[Row], labels: tuple[str, ...], n: int) -> Iterator[TopRow]:
    """The n highest of the K labels of each row; of a bad file, none.

    Where scores are equal, the label that the model has first comes first. Raises ConfigError.
    """
    if n < 1:
        raise ConfigError("--top", str(n), wanted="1 or more labels")
    for row in rows:
        scores = [] if row.scores is None else [(label, row.scores[label]) for label in labels]
        highest = heapq.nlargest(n, scores, key=lambda item: item[1])
        yield TopRow(cell_from_path(row.file), row.start, row.end, highest, row.error, flags_cell(row))
