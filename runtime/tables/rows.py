"""What one scored file, or one window of a file, gives, and the columns in which every table says it.

D embedding, K labels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..audio.file_names import FilePath

if TYPE_CHECKING:  # NumPy is not loaded for a list of formats
    from ..arrays import Float32

_OWN_COLUMNS: Final = frozenset({"file", "start", "end", "error", "flags", "file_bytes", "embedding"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file's result. `scores` is None where the file could not be scored, and `error` says why.

    With windows or segments a file has one row for each, then one without `start` and `end` for their mean.
    A file in which no burst was found has that row alone, without scores or an error; its flag is no_burst.
    """

    file: FilePath
    start: float | None = None  # s, of what was scored
    end: float | None = None  # s
    scores: dict[str, float] | None = None  # of each of the K labels; the values are float32's
    error: str = ""  # a code of audio.codes.ERROR_CODES
    flags: tuple[str, ...] = ()  # codes of audio.codes.FLAGS, beside scores
    detail: str = ""  # what the decoder or the model said
    seconds: float = 0.0  # of audio in the file
    content: bytes = field(default=b"", compare=False, repr=False)  # the file's content_hash, if known
    embedding: "Float32 | None" = field(default=None, compare=False, repr=False)  # [D], the encoder's


def flags_cell(row: Row) -> str:
    """The row's flags in one cell, joined by ";"."""
    return ";".join(row.flags)


def flags_from_cell(cell: str) -> tuple[str, ...]:
    """What `flags_cell` was given."""
    return tuple(filter(None, cell.split(";")))


def score_columns(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The name of each label's column.

    This is the label itself, or score_<label> where a column of the table's own has that name.
    """
    return tuple(_free_name(label, labels) if label in _OWN_COLUMNS else label for label in labels)


def _free_name(label: str, labels: Iterable[str]) -> str:
    name = f"score_{label}"
    while name in labels:
        name = f"score_{name}"
    return name
