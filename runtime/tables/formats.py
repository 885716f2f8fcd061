"""The formats in which a table of scores can be written; a file's suffix chooses one."""

from typing import Final

from .csv_table import CSV
from .jsonl_table import JSONL
from .parquet_table import PARQUET
from .table_format import TableFormat

FORMATS: Final[dict[str, TableFormat]] = {table.suffix: table for table in (CSV, JSONL, PARQUET)}


def suffixes() -> str:
    """The suffixes of all formats, for help and for messages: `.csv, .jsonl or .parquet`."""
    *others, last = FORMATS
    return f"{', '.join(others)} or {last}"
