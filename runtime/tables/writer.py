"""Writes the table of scores, in the format that the file's suffix chooses; see formats.py.

Every format holds the same. D embedding, K labels.
"""

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import ConfigError, MissingExtraError
from ..files import atomic_path, write_refused
from .embedding_file import embedding_path, open_embeddings
from .formats import FORMATS, suffixes
from .rows import Row
from .table_format import TableFormat, WriteRow


def check_table(target: Path, *, embeddings: bool = False) -> None:
    """Whether the table can be written, asked before a model is loaded and hours are spent.

    Raises ConfigError for a name that no table can have, MissingExtraError for a format that needs
    a package, StoppedError where the folder takes no file.
    """
    table = _format_of(target)
    try:
        _check_place(target)
        if embeddings and not table.embeddings_inside:
            _check_place(embedding_path(target))
        if not target.parent.is_dir():
            raise ConfigError(
                f"--out {target}",
                f"{target.parent} is no folder",
                wanted="a folder that exists",
                fix=f"mkdir -p {target.parent}",
            )
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise write_refused(target, error) from error


def write_table(
    target: Path, rows: Iterable[Row], labels: tuple[str, ...], *, embedding_size: int | None = None
) -> Iterator[Row]:
    """Writes the rows and passes them on; the table appears whole, at the end, or not at all.

    With `embedding_size` D the table has the embeddings, too: inside, or in <stem>.embeddings.npy beside
    a format that does not hold them. That is [rows, D], NaN for a row without an embedding, and it
    appears just before the table.

    Raises StoppedError where the disk is full or the folder cannot be written to.
    """
    table = _format_of(target)
    try:
        with contextlib.ExitStack() as stack:
            write_row = _opened(table, target, labels, embedding_size, stack=stack)
            for row in rows:
                write_row(row)
                yield row
    except OSError as error:
        raise write_refused(target, error) from error


def _format_of(target: Path) -> TableFormat:
    suffix = target.suffix.lower()
    table = FORMATS.get(suffix)
    if table is None:
        raise ConfigError(
            f"--out {target}",
            f"has the suffix {suffix}" if suffix else "has no suffix",
            wanted=suffixes(),
            fix="use --out scores.csv",
        )
    if table.package and importlib.util.find_spec(table.package) is None:
        raise MissingExtraError(
            table.package,
            f"is not installed, and {suffix} needs it",
            fix=f'pip install "rrtn[{table.extra}]"',
        )
    return table


def _check_place(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise ConfigError(f"--out {path}", "is not a regular file", wanted="a file name")


def _opened(
    table: TableFormat,
    target: Path,
    labels: tuple[str, ...],
    embedding_size: int | None,
    *,
    stack: contextlib.ExitStack,
) -> WriteRow:
    """What appends a row to temporary files; the end of `stack` makes them the table."""
    temporary = stack.enter_context(atomic_path(target))
    if embedding_size is None or table.embeddings_inside:
        return stack.enter_context(table.opened(temporary, labels, embedding_size))
    # Both files are flushed before either is renamed.
    beside = stack.enter_context(atomic_path(embedding_path(target)))
    write_scores = stack.enter_context(table.opened(temporary, labels, None))
    write_embedding = stack.enter_context(open_embeddings(beside, embedding_size))
    return lambda row: (write_scores(row), write_embedding(row))
