"""What one scored file, or one window of it, gives, and the columns in which every table says it.

D embedding, K labels.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .audio import FilePath
from .frontend import Float32

_OWN_COLUMNS: Final = frozenset({"file", "start", "end", "error", "file_bytes", "embedding"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file's result. `scores` is None exactly where the file could not be scored; `error` then says why.

    With windows a file gives one row for each, then one without `start` and `end`: the mean over them.
    """

    file: FilePath
    start: float | None = None  # s, of what was scored
    end: float | None = None  # s
    scores: dict[str, float] | None = None  # of each of the K labels; the values are float32's
    error: str = ""  # a code of audio.ERROR_CODES, or a flag of audio.FLAGS beside the scores
    detail: str = ""
    seconds: float = 0.0  # of audio in the file
    embedding: Float32 | None = field(default=None, compare=False, repr=False)  # [D], the encoder's representation


def score_columns(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The column of each label: its exact name, or score_<name> for one that a column of the table's own bears."""
    return tuple(_free_name(label, labels) if label in _OWN_COLUMNS else label for label in labels)


def _free_name(label: str, labels: Iterable[str]) -> str:
    name = f"score_{label}"
    while name in labels:
        name = f"score_{name}"
    return name


def exact_name(path: FilePath) -> tuple[str, bytes | None]:
    """A path as text, and its bytes where the text is not exact: names need not be UTF-8, then U+FFFD stands in the text."""
    name = os.fsencode(path)
    try:
        return name.decode(), None
    except UnicodeDecodeError:
        return name.decode(errors="replace"), name


def path_from_record(record: Mapping[str, Any]) -> bytes:
    """The exact bytes of the path in a line of a JSONL table, or in a row of a Parquet table."""
    name = record.get("file_bytes")
    if name is None:
        return str(record["file"]).encode()
    return base64.b64decode(name) if isinstance(name, str) else bytes(name)
