"""A split's predictions and ratings, as CSV.

A comparison of runs reads them and does not need the models. n clips, K rated targets, L columns.
"""

import contextlib
import csv
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from ...runtime.arrays import Float64
from ...runtime.errors import DataError
from ...runtime.system.files import read_regular, write_output
from ...runtime.tables.submission import submission_csv, values_of_scores
from ...runtime.text import bytes_from_cell, cell_from_text, csv_bytes, without_brackets
from ..method.columns import UNIT, ClassTarget, Columns

_RATED: Final = " rated"  # follows the target's name, in the header of its ratings
_HASH: Final = 12  # hex digits
# Hashes of the checkpoints, of the data and of the content.
_SEALED: Final = re.compile(r"-[0-9a-f]{12}-[0-9a-f]{12}-([0-9a-f]{12})\.csv$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """One split, in the order of its CSV."""

    file_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    targets: tuple[str, ...]  # [L] labels of the columns: rated targets, then classes such as Type=Laugh
    scores: Float64  # [n, L]
    rated: Float64  # [n, L], a class as 0 and 1; NaN where there is none
    # Which of the last columns are classes. The file does not say it: who reads it knows the run.
    classes: tuple[ClassTarget, ...] = ()

    @property
    def columns(self) -> Columns:
        """What the columns are; no scale is known here."""
        rated = self.targets[: len(self.targets) - sum(len(target.classes) for target in self.classes)]
        return Columns(targets=rated, scales=(UNIT,) * len(rated), classes=self.classes)

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """The targets, rated ones first, that too few clips have: fewer than two a rating, none a class."""
        columns, counts = self.columns, (~np.isnan(self.rated)).sum(0)
        rated = [name for name, count in zip(columns.targets, counts, strict=False) if count < 2]
        classes = zip(self.classes, columns.groups, strict=True)
        return *rated, *(target.name for target, group in classes if not counts[group].any())

    def of_ratings(self) -> "Predictions":
        """The rated columns alone."""
        k = len(self.columns.targets)
        return replace(
            self,
            targets=self.targets[:k],
            scores=self.scores[:, :k],
            rated=self.rated[:, :k],
            classes=(),
        )


def write_predictions(stem: Path, predictions: Predictions) -> Path:
    """File_ID, Subject_ID, one column for each target, and its ratings in a column "<target> rated".

    The file's name is the stem, and a hash of the content, by which changed numbers are known.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
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
    content = csv_bytes([["File_ID", "Subject_ID", *map(cell_from_text, names)], *table])
    path = stem.with_name(f"{stem.name}-{_hash(content)}.csv")
    write_output(path, content)
    return path


def kept_predictions(folder: Path, names: str) -> Predictions | None:
    """The last ones of files whose names match a pattern; None where there are none, or they were changed."""
    for path in sorted(folder.glob(names), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with contextlib.suppress(DataError):
            return read_predictions(path)
    return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH]


def read_predictions(path: Path) -> Predictions:
    """Raises DataError for a file that `write_predictions` did not write so.

    A name without a hash of the content is read, too.
    """
    try:
        content = read_regular(path)
        if (named := _SEALED.search(path.name)) and named[1] != _hash(content):
            raise ValueError("its content is not that of its name: it was changed")
        cells, *rows = csv.reader(io.StringIO(content.decode()))
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


def write_test_submission(path: Path, predictions: Predictions, columns: Sequence[str] = ()) -> None:
    """The challenge's format: File_ID with brackets, then the columns.

    Without `columns` they are the rated targets and the class targets, in the order of the data's CSV.
    """
    columns = columns or predictions.columns.names
    file_ids = (cell_from_text(f"[{without_brackets(file_id)}]") for file_id in predictions.file_ids)
    scores = (dict(zip(predictions.targets, row, strict=True)) for row in predictions.scores.tolist())
    cells = (values_of_scores(of_clip, columns) for of_clip in scores)
    write_output(path, submission_csv(zip(file_ids, cells, strict=True), columns))


def scores_of_seeds(seeds: Sequence[Predictions]) -> Float64:
    """[S, n, K], the scores of S runs for the same clips."""
    return np.array([seed.scores for seed in seeds])
