"""The table of scores as CSV: exact names for programs, harmless cells for spreadsheets."""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from .audio import FilePath
from .errors import StoppedError
from .files import atomic_path
from .scorer import Row

_FORMULA: Final = ("=", "+", "-", "@", "'")
_ESCAPE: Final = re.compile(r"\\x([0-9a-f]{2})")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\\\udc80-\udcff]")


def cell_from_path(path: FilePath) -> str:
    r"""A path as one line of plain UTF-8 text that no spreadsheet takes for a formula; `path_from_cell` undoes it.

    Control characters, backslashes and bytes that are not UTF-8 become \xNN; a leading = + - @ or ' gets a ' before.
    """
    text = os.fsdecode(path)
    cell = _UNSAFE.sub(lambda match: f"\\x{os.fsencode(match[0])[0]:02x}", text)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def path_from_cell(cell: str) -> bytes:
    """The exact bytes of the path that `cell_from_path` wrote."""
    text = cell.removeprefix("'")
    parts = _ESCAPE.split(text)  # text, hex, text, hex, ..., text
    return b"".join(bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts))


def write_csv(target: Path, rows: Iterable[Row], labels: tuple[str, ...]) -> Iterator[Row]:
    """Writes file,start,end,<labels>,error and passes the rows on; the table appears whole, at the end, or not at all.

    Raises StoppedError where the disk is full or the folder cannot be written to.
    """
    try:
        with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_header(labels))
            for row in rows:
                writer.writerow(_cells(row, labels))
                yield row
            file.flush()
    except OSError as error:
        raise StoppedError(f"{target} | {error.strerror} | a folder with space that can be written to") from error


def csv_text(rows: Iterable[Row], labels: tuple[str, ...]) -> str:
    """The same table as text, for a few rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_header(labels))
    writer.writerows(_cells(row, labels) for row in rows)
    return buffer.getvalue()


def _header(labels: tuple[str, ...]) -> list[str]:
    return ["file", "start", "end", *map(_text, labels), "error"]


def _cells(row: Row, labels: tuple[str, ...]) -> list[str]:
    scores = [""] * len(labels) if row.scores is None else [f"{row.scores[label]:.6f}" for label in labels]
    return [cell_from_path(row.file), _seconds(row.start), _seconds(row.end), *scores, row.error]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
