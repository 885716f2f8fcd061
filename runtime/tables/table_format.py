"""What a format of the table says about itself: one record for each format.

The modules of the formats load NumPy and what else they need only when they write, so that a command's
help can list them.

D embedding, K labels.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .rows import Row

WriteRow = Callable[[Row], object]  # appends a row to a table


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """A form in which a table of scores can be written."""

    suffix: str  # of the file's name, in lower case
    # (path, K labels, D or None) -> what appends a row. The file is whole when the context ends.
    opened: Callable[[Path, tuple[str, ...], int | None], AbstractContextManager[WriteRow]]
    # (path, K labels, D or None) -> its rows. Raises ValueError, KeyError or TypeError for another table.
    # None: --append cannot keep its rows.
    read: Callable[[Path, tuple[str, ...], int | None], Iterator[Row]] | None = None
    embeddings_inside: bool = False  # else they lie beside the table, in a .npy, and D is None
    package: str = ""  # that writing needs and the base install lacks
    extra: str = ""  # of rrtn, which brings the package
