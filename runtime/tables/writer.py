"""Writes the table of scores, in the format that the file's suffix chooses; see formats.py.

Every format holds the same. D embedding, K labels.
"""

import contextlib
import csv
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import ConfigError, MissingExtraError
from ..system.files import atomic_path, write_refused
from .embedding_file import embedding_path, open_embeddings, rows_with_embeddings
from .formats import FORMATS, suffixes
from .outputs import check_place
from .rows import Row
from .table_format import TableFormat, WriteRow


def check_table(target: Path, *, embeddings: bool = False) -> None:
    """Whether the table can be written, asked before a model is loaded and hours are spent.

    Raises ConfigError for a name that no table can have, MissingExtraError for a format that needs
    a package, StoppedError where the folder takes no file.
    """
    table = _format_of(target)
    check_place(target, f"--out {target}")
    if embeddings and not table.embeddings_inside:
        beside = embedding_path(target)
        check_place(beside, f"--out {beside}")


def has_embeddings_beside(target: Path) -> bool:
    """Whether the table's format has no room for embeddings, which then lie beside the table."""
    return not _format_of(target).embeddings_inside


def read_table(
    target: Path, labels: tuple[str, ...], embedding_size: int | None, *, subject: str = ""
) -> Iterator[Row]:
    """The rows of a table that `write_table` wrote; what a format does not keep is empty.

    `subject` is what an error names, if not the --out of --append.

    Raises ConfigError for a table with other columns, and for a file that is no table of scores.
    """
    table = _format_of(target)
    if table.read is None:
        raise ConfigError(
            "--append", f"cannot read {table.suffix}", wanted="another format", fix="--overwrite"
        )
    try:
        rows = table.read(target, labels, embedding_size)
        if table.embeddings_inside:
            yield from rows
        else:
            yield from rows_with_embeddings(rows, embedding_path(target), embedding_size)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ConfigError(
            subject or f"--append --out {target}",
            str(error) or type(error).__name__,
            wanted="a table of rrtn score with the same labels",
            fix="choose another --out, or begin anew with --overwrite",
        ) from error


def write_table(
    target: Path,
    rows: Iterable[Row],
    labels: tuple[str, ...],
    *,
    embedding_size: int | None = None,
    before_it_appears: Callable[[Path], object] = lambda temporary: None,
) -> Iterator[Row]:
    """Writes the rows and passes them on; the table appears whole, at the end, or not at all.

    `before_it_appears` is called with the whole table under its temporary name.

    With `embedding_size` D the table has the embeddings, too: inside, or in <stem>.embeddings.npy beside
    a format that does not hold them. That is [rows, D], NaN for a row without an embedding, and it
    appears just before the table.

    Raises StoppedError where the disk is full or the folder cannot be written to.
    """
    table = _format_of(target)
    try:
        with atomic_path(target) as temporary:
            with contextlib.ExitStack() as stack:
                write_row = _opened(table, temporary, target, labels, embedding_size, stack=stack)
                for row in rows:
                    write_row(row)
                    yield row
            before_it_appears(temporary)
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
        raise MissingExtraError.of(table.package, table.extra, suffix)
    return table


def _opened(
    table: TableFormat,
    temporary: Path,
    target: Path,
    labels: tuple[str, ...],
    embedding_size: int | None,
    *,
    stack: contextlib.ExitStack,
) -> WriteRow:
    """What appends a row; at the end of `stack` the temporary file is whole, and the embeddings are there."""
    if embedding_size is None or table.embeddings_inside:
        return stack.enter_context(table.opened(temporary, labels, embedding_size))
    # Both files are flushed before either is renamed.
    beside = stack.enter_context(atomic_path(embedding_path(target)))
    write_scores = stack.enter_context(table.opened(temporary, labels, None))
    write_embedding = stack.enter_context(open_embeddings(beside, embedding_size))
    return lambda row: (write_scores(row), write_embedding(row))
