"""Names of files, which may be any bytes, as text that a table, a terminal or a spreadsheet can hold."""

import binascii
import os
from collections.abc import Mapping
from typing import Any, Final

from ..text import bytes_from_cell, cell_from_text

FilePath = str | bytes | os.PathLike[str]
LONGEST_NAME: Final = 1 << 16  # bytes of a path in a list or a pack: no system takes so many


def cell_from_path(path: FilePath) -> str:
    r"""A path as a cell of a CSV: see `cell_from_text`. What is not UTF-8 becomes \xNN, too.

    `path_from_cell` gives the path back.
    """
    return cell_from_text(os.fsencode(path).decode("utf-8", "surrogateescape"))  # whatever the locale is


def path_from_cell(cell: str) -> bytes:
    """The exact bytes of the path that `cell_from_path` wrote."""
    return bytes_from_cell(cell)


def exact_name(path: FilePath) -> tuple[str, bytes | None]:
    """A path as text, and its bytes where the text is not exact.

    The text has U+FFFD for bytes that are not UTF-8.
    """
    name = os.fsencode(path)
    try:
        return name.decode(), None
    except UnicodeDecodeError:
        return name.decode(errors="replace"), name


def exact_bytes(name: bytes | None) -> dict[str, str]:
    """What a record in JSON has beside a text that is not exact: its bytes as base64 in "file_bytes"."""
    return {} if name is None else {"file_bytes": binascii.b2a_base64(name, newline=False).decode()}


def path_from_record(record: Mapping[str, Any]) -> bytes:
    """The exact bytes of the path in a line of a JSONL table or in a row of a Parquet table."""
    name = record.get("file_bytes")
    if name is None:
        return str(record["file"]).encode()
    return binascii.a2b_base64(name) if isinstance(name, str) else bytes(name)
