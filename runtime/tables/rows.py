"""What one scored file, or one window of it, gives, and the columns in which every table says it.

D embedding, K labels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ..arrays import Float32
from ..audio.file_names import FilePath

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
    embedding: Float32 | None = field(
        default=None, compare=False, repr=False
    )  # [D], the encoder's representation


def score_columns(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The column of each label: its exact name, or score_<name> for one that a column of the
    table's own bears.
    """
    return tuple(_free_name(label, labels) if label in _OWN_COLUMNS else label for label in labels)


def _free_name(label: str, labels: Iterable[str]) -> str:
    name = f"score_{label}"
    while name in labels:
        name = f"score_{name}"
    return name
