"""Names of files, which may be any bytes, as text that a table, a terminal or a spreadsheet can hold."""

import binascii
import os
import re
from collections.abc import Mapping
from typing import Any, Final

FilePath = str | bytes | os.PathLike[str]

_FORMULA: Final = ("=", "+", "-", "@", "'")
_ESCAPE: Final = re.compile(r"\\x([0-9a-f]{2})")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\\\udc80-\udcff]")


def cell_from_path(path: FilePath) -> str:
    r"""A path as one line of plain UTF-8 text that no spreadsheet takes for a formula.

    Control characters, backslashes and bytes that are not UTF-8 become \xNN. A ' is set before a leading
    = + - @ or '. `path_from_cell` gives the path back.
    """
    text = os.fsencode(path).decode("utf-8", "surrogateescape")  # whatever the locale's encoding is
    cell = _UNSAFE.sub(lambda match: f"\\x{match[0].encode('utf-8', 'surrogateescape')[0]:02x}", text)
    return harmless_cell(cell)


def path_from_cell(cell: str) -> bytes:
    """The exact bytes of the path that `cell_from_path` wrote."""
    text = cell.removeprefix("'")
    parts = _ESCAPE.split(text)  # text, hex, text, hex, ..., text
    return b"".join(bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts))


def harmless_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def exact_name(path: FilePath) -> tuple[str, bytes | None]:
    """A path as text, and its bytes where the text is not exact.

    The text has U+FFFD for bytes that are not UTF-8.
    """
    name = os.fsencode(path)
    try:
        return name.decode(), None
    except UnicodeDecodeError:
        return name.decode(errors="replace"), name


def path_from_record(record: Mapping[str, Any]) -> bytes:
    """The exact bytes of the path in a line of a JSONL table or in a row of a Parquet table."""
    name = record.get("file_bytes")
    if name is None:
        return str(record["file"]).encode()
    return binascii.a2b_base64(name) if isinstance(name, str) else bytes(name)
