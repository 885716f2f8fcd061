"""The challenge's form of a table: one row a file, no times, no blanks.

Its columns are labels, with their scores, and class targets, with the likeliest class: of a column Type
the one whose label "Type=Laugh" has the highest score.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..audio.file_names import FilePath, cell_from_path
from ..audio.signatures import audio_stem
from ..errors import ConfigError, DataError
from ..system.files import write_output, write_refused
from ..text import cell_from_text, counted, csv_bytes, first_of, without_brackets
from .rows import Row, flags_cell


def write_submission(target: Path, rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[Row]:
    """Passes the rows on, then writes File_ID,<columns> for each file, whole or not at all.

    File_ID is the file's name without its folder and its suffix, in brackets. Of a file with windows the last
    row counts, which is their mean.

    Raises DataError where a file has no scores, since the challenge takes no blanks, or where two files
    have the same File_ID; StoppedError where the disk is full or the folder cannot be written to.
    """
    last: dict[bytes, Row] = {}
    for row in rows:
        last[os.fsencode(row.file)] = row
        yield row
    _check(target, list(last.values()))
    try:
        scored = ((file_id_from_path(row.file), _values(row, columns)) for row in last.values())
        write_output(target, submission_csv(scored, columns))
    except OSError as error:
        raise write_refused(target, error) from error


def check_submission(target: Path, columns: tuple[str, ...], names: Iterable[FilePath] | None) -> None:
    """Whether a submission of the files of these names may be put at `target`, asked before the work.

    Without `names` the files do not count: the submission that is there is known to be of the same table.
    Raises ConfigError where something else is there: a submission with other columns, or of other files.
    """
    if not os.path.lexists(target):
        return
    try:
        with target.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        free = header == ["File_ID", *map(cell_from_text, columns)]
        if free and names is not None:
            free = {row[0] for row in rows if row} <= {file_id_from_path(name) for name in names}
    except (OSError, ValueError, csv.Error):
        free = False
    if not free:
        raise ConfigError(
            f"--submission {target}",
            "is there already, and no submission of these files",
            wanted="a submission of the same files, or none",
            fix="choose another name, or --overwrite",
        )


def file_id_from_path(path: FilePath) -> str:
    """wav/58712.wav -> [58712], and rec.001, where 001 is no kind of audio, -> [rec.001].

    What is not plain text is escaped as in the CSV of scores.
    """
    return cell_from_path(f"[{without_brackets(audio_stem(os.path.basename(os.fsdecode(path))))}]")


def _values(row: Row, columns: tuple[str, ...]) -> list[float | str]:
    assert row.scores is not None  # see _check
    return values_of_scores(row.scores, columns)


def values_of_scores(scores: Mapping[str, float], columns: Iterable[str]) -> list[float | str]:
    """The cells of one file: scores of labels, likeliest classes of class targets."""
    return [scores[name] if name in scores else _likeliest(scores, name) for name in columns]


def _likeliest(scores: Mapping[str, float], target: str) -> str:
    """The class of "Type=Laugh" with the highest score; the first of several."""
    of_target = [label for label in scores if label.startswith(f"{target}=")]
    return max(of_target, key=lambda label: scores[label]).removeprefix(f"{target}=")


def _check(target: Path, rows: list[Row]) -> None:
    if bad := [
        f"{cell_from_path(row.file)} ({row.error or flags_cell(row)})" for row in rows if row.scores is None
    ]:
        raise DataError(
            str(target),
            f"{len(bad)} of {counted(len(rows), 'file')} without scores: {first_of(bad)}",
            wanted="scores for every file: the challenge takes no blanks",
            fix="repair or leave out these files, or leave out --submission",
        )
    check_file_ids(target, [row.file for row in rows])


def check_file_ids(target: Path, names: Iterable[FilePath]) -> None:
    """Raises DataError where two files have the same File_ID; a name that comes again is the same file."""
    counts = Counter(map(file_id_from_path, dict.fromkeys(map(os.fsencode, names))))
    if twice := [file_id for file_id, count in counts.items() if count > 1]:
        raise DataError(
            str(target),
            f"more than one file has the File_ID {first_of(twice)}",
            wanted="one file for each File_ID",
            fix="score the files of one folder only, or leave out --submission",
        )


def submission_csv(rows: Iterable[tuple[str, Iterable[float | str]]], columns: Iterable[str]) -> bytes:
    """(File_ID in brackets, the cells of the columns) of each file -> the challenge's CSV."""
    header = ["File_ID", *map(cell_from_text, columns)]
    return csv_bytes([header, *([file_id, *map(_cell, values)] for file_id, values in rows)])


def _cell(value: float | str) -> str:
    return cell_from_text(value) if isinstance(value, str) else f"{value:z.6f}"
