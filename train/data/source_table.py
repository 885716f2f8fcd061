"""What an import reads, whatever its source: rows of text under the names of Hume-VB."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A table with File_ID, and with Split and Subject_ID where the source has them."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    path: Path  # of the table, or of the folder that several tables are joined from, for errors to name
    lines: Sequence[int]  # of the rows, there
    audio: Path  # File_ID is a name below this folder
    settings: Mapping[str, Any] = field(default_factory=dict)  # of [data], that the source states
    notes: tuple[str, ...] = ()
