"""The text of a table as programs save it, whatever their dialect.

Comma, semicolon or tab between the cells; UTF-8 or UTF-16, with a byte-order mark or without; decimal
commas; Excel's empty rows and columns, and its line `sep=;`.
"""

import csv
import errno
import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from pathlib import Path
from typing import Final, NamedTuple

from ...runtime.errors import DataError
from ...runtime.system.files import read_regular
from ...runtime.text import counted, first_of, short

_SEPARATORS: Final = (",", ";", "\t")  # the first one wins where several fit
_SEPARATOR_LINE: Final = re.compile(r"\A\"?sep=(.)\"?\r?\n")  # Excel's
_LOOKED_AT: Final = 50  # records, to find the separator
_NO_TEXT: Final = {  # how the files of other programs begin
    b"PK\x03\x04": "a workbook or an archive",  # .xlsx, .ods
    b"\xd0\xcf\x11\xe0": "a workbook",  # .xls
    b"\x1f\x8b": "a compressed file",  # .csv.gz, .rds
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"$FL": "a file of SPSS",
    b"<stata_dta>": "a file of Stata",
    bytes(12) + b"\xc2\xea\x81\x60": "a file of SAS",  # .sas7bdat
}
_NO_TABLE: Final = {
    errno.ENOENT: "not there",
    errno.ENOTDIR: "not there",
    errno.EISDIR: "a folder",
    errno.EINVAL: "not a regular file",
}
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
_THOUSANDS: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")  # 1,234 may be more than 1000
_DECIMAL_POINT: Final = re.compile(r"[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?")


NOT_THOUSANDS: Final = "1,234 may be a thousand, 1.234 is none"
_NONE: Final = frozenset({"", "na", "n/a", "nan", "<na>"})  # in small letters; as R and pandas write it
BLANKS: Final = "an empty cell, NA, n/a, nan or <NA>"  # the same for a person


def is_none(cell: str) -> bool:
    """Whether a cell says that there is nothing."""
    return cell.casefold() in _NONE


class TableRecord(NamedTuple):
    """One row below the header."""

    line: int  # its last line in the file, counted from 1
    cells: tuple[str, ...]  # without the spaces around them


@dataclass(frozen=True)
class TextTable:
    """A header and what stands below it."""

    path: Path
    columns: tuple[str, ...]
    records: tuple[TableRecord, ...]
    separator: str


def refused_lines(path: Path, lines: Sequence[int], came: str, *, wanted: str, fix: str = "") -> DataError:
    """One error for one kind of mistake, however many rows have it."""
    plural = "s" if len(lines) > 1 else ""
    where = f"{path}, line{plural} {first_of(sorted(lines))} ({len(lines)} in all)"
    return DataError(where, came, wanted=wanted, fix=fix)


def read_text_table(path: Path) -> TextTable:
    """Raises DataError for what is no table of text. Records may be longer or shorter than the header."""
    text = _decoded(path)
    if found := _SEPARATOR_LINE.match(text):
        separator, text = found[1], "\n" + text[found.end() :]
    else:
        separator = _separator(text)
    lines = _records(path, text, separator)
    filled = [record for record in lines if any(record.cells)]
    if not filled:
        raise DataError(str(path), "empty file", wanted="a header with File_ID, Split and target columns")
    columns, records = _without_empty_columns(filled[0].cells, filled[1:])
    if len(columns) == 1 and all(len(cells) == 1 for _, cells in records):
        wanted = "a table with commas, semicolons or tabs between the cells"
        raise DataError(f"{path}, line 1", f"one column, {short(columns[0])}", wanted=wanted)
    return TextTable(path, columns, tuple(records), separator)


def name_taken(table: TextTable, name: str, column: str) -> DataError:
    """The error of a table in which `column` would get the `name` that another column has."""
    came = f"column {name!r} beside {column!r}, which takes its place"
    return DataError(f"{table.path}, line 1", came, wanted="each name once", fix=f"rename {name!r}")


def named_columns(table: TextTable) -> TextTable:
    """The table without columns that have no name, such as an index that a program wrote.

    Raises DataError where there are no records, and for those of another length than the header's.
    """
    if not table.records:
        raise DataError(str(table.path), "no rows below the header", wanted="one row for each clip")
    width = len(table.columns)
    if ragged := {line: len(cells) for line, cells in table.records if len(cells) != width}:
        raise refused_lines(
            table.path,
            [*ragged],
            f"another number of cells than the header has: {first_of(sorted(set(ragged.values())))}",
            wanted=f"{width} cells",
            fix="put a text that holds a comma in double quotes" if table.separator == "," else "",
        )
    if all(table.columns):
        return table
    records = (TableRecord(line, tuple(compress(cells, table.columns))) for line, cells in table.records)
    return replace(table, columns=tuple(filter(None, table.columns)), records=tuple(records))


def repeated_names(table: TextTable) -> list[str]:
    """Names that several columns have."""
    return [name for name, count in Counter(filter(None, table.columns)).items() if count > 1]


def with_decimal_points(table: TextTable, *, but: Collection[str]) -> TextTable:
    """0,5 becomes 0.5; not in the columns `but`. Between commas it stood in quotes.

    Raises DataError for a column that has decimal commas and decimal points.
    """
    changed = {k for k, name in enumerate(table.columns) if name not in but and _has_commas(table, k)}
    if not changed:
        return table
    records = [
        TableRecord(line, tuple(_with_point(cell) if k in changed else cell for k, cell in enumerate(cells)))
        for line, cells in table.records
    ]
    return TextTable(table.path, table.columns, tuple(records), table.separator)


def _has_commas(table: TextTable, column: int) -> bool:
    found = {line: cells[column] for line, cells in table.records if "," in cells[column]}
    with_comma = [line for line, cell in found.items() if _DECIMAL_COMMA.fullmatch(cell)]
    if not with_comma or (table.separator == "," and all(map(_THOUSANDS.fullmatch, found.values()))):
        return False
    with_point = [line for line, cells in table.records if _DECIMAL_POINT.fullmatch(cells[column])]
    if with_point:
        name = table.columns[column]
        fewer, mark = min((with_comma, "comma"), (with_point, "point"), key=lambda kind: len(kind[0]))
        others = len(with_comma) + len(with_point) - len(fewer)
        came = f"{name} has a decimal {mark} here, and none in {counted(others, 'row')}"
        raise refused_lines(table.path, fewer, came, wanted="one decimal mark", fix="correct these rows")
    return True


def may_be_thousands(cell: str) -> bool:
    """Whether a cell such as 4,250 is no number here, since the comma may part thousands."""
    return bool(_THOUSANDS.fullmatch(cell))


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell


def _decoded(path: Path) -> str:
    try:
        content = read_regular(path)
    except ValueError as error:  # a NUL in the name, as a config.toml may have it
        raise DataError(str(path), str(error), wanted="the name of a file") from error
    except OSError as error:
        if (came := _NO_TABLE.get(error.errno or 0)) is None:
            raise
        fix = "check the path"
        raise DataError(str(path), came, wanted="a table: a CSV or TSV file", fix=fix) from error
    if came := next((kind for begin, kind in _NO_TEXT.items() if content.startswith(begin)), ""):
        fix = "save the table as CSV UTF-8"
        raise DataError(str(path), came, wanted="a table as text", fix=fix)
    encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
    zero = content[:2].find(b"\0")  # beside an ASCII character in UTF-16 without a mark
    if zero >= 0:
        encoding = ("utf-16-be", "utf-16-le")[zero]
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        name = "UTF-8" if encoding == "utf-8-sig" else "UTF-16"
        raise DataError(
            f"{path}, line {line}", f"not {name}", wanted=f"text in {name}", fix="save the table as CSV UTF-8"
        ) from error


def _separator(text: str) -> str:
    """The one by which most of the first records are as long as the header; the longest header wins."""
    return max(_SEPARATORS, key=lambda separator: _fit(text, separator))


def _fit(text: str, separator: str) -> tuple[float, int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        found = [len(record) for record in islice(reader, _LOOKED_AT) if any(map(str.strip, record))]
    except csv.Error:
        return 0.0, 0
    if not found:  # blank cells alone
        return 1.0, 0
    if found[0] < 2:
        return 0.0, 0
    return found.count(found[0]) / len(found), found[0]


def _records(path: Path, text: str, separator: str) -> list[TableRecord]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return [TableRecord(reader.line_num, tuple(map(str.strip, cells))) for cells in reader]
    except csv.Error as error:
        name = {";": "semicolons", "\t": "tabs"}.get(separator, "commas")
        wanted = "comma-separated values" if name == "commas" else f"values with {name} between them"
        raise DataError(f"{path}, line {reader.line_num}", str(error), wanted=wanted) from error


def _without_empty_columns(
    columns: tuple[str, ...], records: list[TableRecord]
) -> tuple[tuple[str, ...], list[TableRecord]]:
    """Cuts what spreadsheets add at the right: columns without a name and without a cell."""
    named = max(i for i, name in enumerate(columns, start=1) if name)
    if not any(any(cells[named:]) for _, cells in records):
        columns = columns[:named]
    width = len(columns)
    cut = [TableRecord(line, cells if any(cells[width:]) else cells[:width]) for line, cells in records]
    return columns, cut
