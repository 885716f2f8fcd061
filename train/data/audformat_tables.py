"""The tables of a database in audformat, joined over its files.

Format: audeering.github.io/audformat. Read with the package audformat, which is an extra of ours.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ...runtime.errors import DataError, MissingExtraError
from ...runtime.system.files import resolved
from ...runtime.text import counted
from .column_names import is_metadata, split_of
from .roles import SPEAKER, check_there, column_of_role
from .source_table import SourceTable

HEADER: Final = "db.yaml"
_NUMBERS: Final = ("float", "int")  # data types of audformat
_UNIT: Final = (0.0, 1.0)


def is_audformat(folder: Path) -> bool:
    """Whether a folder has the header of such a database."""
    return (folder / HEADER).is_file()


def table_of_audformat(folder: Path, tables: Sequence[str] = (), *, speaker_column: str = "") -> SourceTable:
    """The file-wise tables that are named, or all of them, as one table with a row for each file.

    The split is that of a file's tables. Where the labels of a scheme have fields, such as a speaker's age,
    they become columns such as speaker_age. A scheme with ends gives a target its scale. Raises
    MissingExtraError, and DataError for tables that contradict each other.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of audformat's own use of pandas
        return _joined(folder, _database(folder), tables, speaker_column)


def _joined(folder: Path, database: Any, tables: Sequence[str], speaker: str) -> SourceTable:
    known = [name for name in database.tables if database[name].type == "filewise"]
    if unknown := [name for name in tables if name not in known]:
        raise DataError("--table", ", ".join(unknown), wanted=f"file-wise tables: {', '.join(known)}")
    left = [name for name in database.tables if name not in known]
    notes = [f"not read, with segments of files: {', '.join(left)}"] if left and not tables else []
    columns: dict[str, None] = {}
    rows: dict[str, dict[str, str]] = {}
    for name in tables or known:
        split = _split_of_table(database, name)
        for file, cells in _cells(database, name).items():
            row = rows.setdefault(file, {"File_ID": file})
            _add(row, {**cells, **({"Split": split} if split else {})}, f"{folder}, table {name}")
            columns |= dict.fromkeys(row)
    if not rows:
        raise DataError(str(folder), "no file-wise table with rows", wanted="at least one")
    if speaker:
        check_there(SPEAKER.option, speaker, columns, folder)
    else:
        speaker, _ = column_of_role(
            SPEAKER, [*columns], lambda name: [row.get(name, "") for row in rows.values()]
        )
    names = {column: "Subject_ID" if column == speaker else column for column in columns}
    renamed = [{names[column]: cell for column, cell in row.items()} for row in rows.values()]
    scale = _scales(database, tables or known, renamed)
    notes.append(f"{counted(len(rows), 'file')} of {database.name}, usage: {database.usage}")
    return SourceTable(
        columns=tuple(dict.fromkeys(names.values())),
        rows=renamed,
        path=folder,
        lines=range(2, 2 + len(renamed)),
        audio=resolved(folder),
        settings={"scale": scale} if scale else {},
        notes=tuple(notes),
    )


def _database(folder: Path) -> Any:
    try:
        import audformat
    except ImportError as error:
        raise MissingExtraError.of("audformat", "audformat", "this database") from error
    try:
        return audformat.Database.load(str(folder))
    except Exception as error:  # whatever yaml, pandas and pyarrow raise
        came = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise DataError(str(folder / HEADER), came, wanted="a database that audformat loads") from error


def _split_of_table(database: Any, name: str) -> str:
    split = database[name].split_id
    if split is None:
        return ""
    return split_of(str(database.splits[split].type))


def _cells(database: Any, name: str) -> dict[str, dict[str, str]]:
    """file -> column -> text; a cell without a value is left out."""
    frame = database[name].get()
    for column, description in database[name].columns.items():
        labels = database.schemes[description.scheme_id].labels if description.scheme_id else None
        for field in _fields(labels):
            values = frame[column].astype(object)
            frame[f"{column}_{field}"] = [_field(labels, value, field) for value in values]
    found: dict[str, dict[str, str]] = {str(file): {} for file in frame.index}
    for column in frame.columns:
        known = frame[column].notna()
        for file, value in frame[column][known].items():
            found[str(file)][str(column)] = str(value)
    return found


def _fields(labels: Any) -> list[str]:
    """The fields of a scheme whose labels are described, such as speakers by age and gender."""
    if not isinstance(labels, dict):
        return []
    described = (label for label in labels.values() if isinstance(label, dict))
    return [*dict.fromkeys(name for label in described for name in label)]


def _field(labels: Any, value: Any, field: str) -> Any:
    label = labels.get(value)
    return label.get(field) if isinstance(label, dict) else None


def _add(row: dict[str, str], cells: dict[str, str], where: str) -> None:
    for column, text in cells.items():
        if row.setdefault(column, text) != text:
            raise DataError(
                where,
                f"{row['File_ID']}: {column} is {text!r} here and {row[column]!r} in another table",
                wanted="one value of each file",
                fix="name the tables to take: --table NAME,...",
            )


def _scales(database: Any, tables: Sequence[str], rows: Sequence[dict[str, str]]) -> list[str]:
    """Arousal=1:5 for each column of numbers that would be a target and whose scheme has such ends."""
    found = {}
    for name in tables:
        for column, description in database[name].columns.items():
            scheme = database.schemes[description.scheme_id] if description.scheme_id else None
            if scheme is None or scheme.dtype not in _NUMBERS or is_metadata(column):
                continue
            ends = (scheme.minimum, scheme.maximum)
            is_used = any(column in row for row in rows)
            if None not in ends and tuple(map(float, ends)) != _UNIT and is_used:
                found[column] = f"{column}={ends[0]:g}:{ends[1]:g}"
    return [*found.values()]
