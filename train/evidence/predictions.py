"""A split's predictions and ratings, as CSV.

A comparison of runs reads them and does not need the models. n clips, K targets.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ...runtime.arrays import Float64
from ...runtime.errors import DataError
from ...runtime.system.files import read_regular, write_bytes
from ...runtime.tables.submission import submission_csv
from ...runtime.text import bytes_from_cell, cell_from_text

_RATED: Final = " rated"  # follows the target's name, in the header of its ratings


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One split, in the order of its CSV."""

    file_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    targets: tuple[str, ...]
    scores: Float64  # [n, K]
    rated: Float64  # [n, K]; NaN where the split has no ratings


def write_predictions(path: Path, predictions: Predictions) -> None:
    """File_ID, Subject_ID, one column for each target, and its ratings in a column "<target> rated"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [*predictions.targets, *(f"{target}{_RATED}" for target in predictions.targets)]
    rows = zip(
        predictions.file_ids,
        predictions.speakers,
        np.hstack([predictions.scores, predictions.rated]),
        strict=True,
    )
    table = [
        [*map(cell_from_text, (file_id, speaker)), *(repr(float(value)) for value in values)]
        for file_id, speaker, values in rows
    ]
    write_bytes(path, _csv([["File_ID", "Subject_ID", *map(cell_from_text, names)], *table]))


def read_predictions(path: Path) -> Predictions:
    """Raises DataError for a file that `write_predictions` did not write."""
    try:
        cells, *rows = csv.reader(io.StringIO(read_regular(path).decode()))
        header = [bytes_from_cell(cell).decode() for cell in cells]
        targets = header[2 : 2 + (len(header) - 2) // 2]
        if header[:2] != ["File_ID", "Subject_ID"] or header[2:] != [
            *targets,
            *(f"{target}{_RATED}" for target in targets),
        ]:
            raise ValueError("other columns")
        texts = [[bytes_from_cell(cell).decode() for cell in row[:2]] for row in rows]
        values = np.array([[float(cell) for cell in row[2:]] for row in rows]).reshape(
            len(rows), 2 * len(targets)
        )
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            str(path),
            str(error),
            wanted="predictions of rrtn evaluate",
            fix="remove the file and run the command again",
        ) from error
    return Predictions(
        file_ids=tuple(file_id for file_id, _ in texts),
        speakers=tuple(speaker for _, speaker in texts),
        targets=tuple(targets),
        scores=values[:, : len(targets)],
        rated=values[:, len(targets) :],
    )


def write_submission(path: Path, predictions: Predictions) -> None:
    """The challenge's format: File_ID with brackets, then the targets, in the order of the data's CSV."""
    file_ids = (cell_from_text(f"[{file_id.strip('[]')}]") for file_id in predictions.file_ids)
    write_bytes(path, submission_csv(zip(file_ids, predictions.scores, strict=True), predictions.targets))


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()
