"""Rows for people: of each row the labels that score highest. K labels."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ..audio.file_names import cell_from_path
from ..errors import ConfigError
from .rows import Row, flags_cell

Scales = Mapping[str, Sequence[float]]  # label -> the lowest and the highest rating
ZERO_TO_ONE: Final[Scales] = {}  # labels that are not named are on 0 to 1


class TopRow(NamedTuple):
    """A row with its highest labels, the highest first."""

    file: str  # as in the CSV
    start: float | None  # s
    end: float | None  # s
    scores: list[tuple[str, float]]
    error: str
    flags: str  # joined by ";"


def share(label: str, score: float, scales: Scales) -> float:
    """Where on its scale a score is: 0 at the lowest rating, 1 at the highest."""
    low, high = scales.get(label, (0.0, 1.0))
    return (score - low) / (high - low)


def top_rows(
    rows: Iterable[Row], labels: tuple[str, ...], n: int, scales: Scales = ZERO_TO_ONE
) -> Iterator[TopRow]:
    """The n highest of the K labels of each row, by their shares of their scales; of a bad file, none.

    Where shares are equal, the label that the model has first comes first. Raises ConfigError.
    """
    if n < 1:
        raise ConfigError("--top", str(n), wanted="1 or more labels")
    for row in rows:
        scores = [] if row.scores is None else [(label, row.scores[label]) for label in labels]
        highest = heapq.nlargest(n, scores, key=lambda item: share(item[0], item[1], scales))
        yield TopRow(cell_from_path(row.file), row.start, row.end, highest, row.error, flags_cell(row))
