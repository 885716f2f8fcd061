"""What an import reads, whatever its source: rows of text under the names of Hume-VB."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A table with File_ID, and with Split and Subject_ID where the source has them."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    audio: Path  # File_ID is a name below this folder
    settings: Mapping[str, Any] = field(default_factory=dict)  # of [data], that the source states
    notes: tuple[str, ...] = ()
