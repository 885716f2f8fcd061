"""What commands print: tables and JSON on stdout, lines for the person on stderr."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, TextIO

import typer

from ..runtime import progress
from ..runtime.errors import RrtnError
from ..runtime.progress import print_above
from ..runtime.text import json_text, printable, printable_lines
from .program import as_called

_PLAIN_WIDTH: Final = 160  # columns, where there is no terminal to ask
_GAP: Final = 2  # between two columns
NO_BREAK: Final = "\u00a0"  # a space in `words` at which no line ends
_NARROWEST: Final = 24  # of words that are wrapped
_COLOURS: Final = {"bold": "1", "dim": "2", "green": "32", "yellow": "33", "cyan": "36"}  # ANSI
_LABELS: Final = {"error": 31, "warning": 33, "note": 33, "skipped": 33}


@dataclass(frozen=True)
class Column:
    """A column of a table. No terminal is so narrow that a cell is cut.

    Where columns do not fit beside each other, those with the highest `drop` are left out first; 0 is never
    left out. Cells of `words` may take several lines, and are broken at spaces alone.
    """

    name: str
    right: bool = False  # numbers
    drop: int = 0
    words: bool = False


class Table:
    """Rows of text. A record is a row, or a column where the first column names what the rows are.

    Control characters are shown, and not sent to the terminal.
    """

    def __init__(self, *columns: Column | str, records: str = "rows") -> None:
        made = [Column(column) if isinstance(column, str) else column for column in columns]
        self.columns = [replace(column, name=printable(column.name)) for column in made]
        assert len({column.name for column in self.columns}) == len(columns)
        self.rows: list[tuple[str, ...]] = []
        self.styles: list[str] = []
        self.sections: set[int] = set()  # rows with a line above them
        self.records = records

    def add_row(self, *cells: str, style: str = "") -> None:
        """`style` is a word of _COLOURS."""
        assert len(cells) == len(self.columns)
        self.rows.append(tuple(map(printable, cells)))
        self.styles.append(style)

    def add_section(self) -> None:
        """Draws a line between the last row and the next."""
        self.sections.add(len(self.rows))


def numbers(*names: str, drop: int = 0) -> list[Column]:
    """Columns of numbers, which all stay or all may be left out, the last of them first."""
    return [Column(name, right=True, drop=drop and drop + i) for i, name in enumerate(names)]


def print_table(table: Table, *, title: str = "", caption: str = "") -> None:
    """Prints a table on stdout, as wide as the terminal allows: see `lines_of_table`."""
    width = stdout_width()
    lines = [*_styled(wrapped(printable(title), width), "bold"), *lines_of_table(table, width)]
    for line in [*lines, *_styled(wrapped(printable_lines(caption), width), "dim"), ""]:
        print(line)


def stdout_width() -> int:
    """Columns of the terminal behind stdout, or $COLUMNS."""
    return shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns


def fits(table: Table, width: int) -> bool:
    """True if all columns have room beside each other."""
    return _widths(table.columns, table, width) is not None


def lines_of_table(table: Table, width: int) -> list[str]:
    """The table in lines of at most `width` cells.

    First the columns that can be left out are left out, and a last line names them. Where the others do not
    fit either, each record is a block with a line for each column; only a word that is wider than the
    terminal makes a line that is.
    """
    columns, left_out = list(table.columns), []
    while (widths := _widths(columns, table, width)) is None:
        last = max(columns, key=lambda column: column.drop)
        if not last.drop:
            return _blocks(table, width)
        columns.remove(last)
        left_out.append(last.name)
    note = wrapped(f"left out here, in --json: {'; '.join(reversed(left_out))}", width) if left_out else []
    return [*_grid(table, columns, widths), *_styled(note, "dim")]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells. A word is never broken."""
    return [part for line in text.splitlines() for part in _parts_of_line(line, width)]


def _parts_of_line(line: str, width: int) -> Iterator[str]:
    """textwrap counts characters, and not the cells that they take."""
    part, *words = re.findall(" *[^ ]+", line) or [line]
    for word in words:
        if _cells(part + word) > width:
            yield part
            part = word.lstrip(" ")
        else:
            part += word
    yield part


def _widths(columns: Sequence[Column], table: Table, width: int) -> dict[str, int] | None:
    """The width of each column; None where they do not fit."""
    texts = {column.name: _texts(column, table) for column in columns}
    whole = {name: max(map(_cells, lines)) for name, lines in texts.items()}
    prose = [column.name for column in columns if column.words]
    least = {name: min(whole[name], max(_NARROWEST, _longest_word(texts[name]))) for name in prose}
    shares: dict[str, int] = {}  # of the prose: equal ones, where a column does not need less
    spare = width - _GAP * len(columns) - sum({**whole, **least}.values())
    if spare < 0:
        return None
    room = spare + sum(least.values())
    for left, name in zip(range(len(prose), 0, -1), sorted(prose, key=whole.__getitem__), strict=True):
        others = sum(least[other] for other in prose if other not in shares)
        shares[name] = max(least[name], min(whole[name], room // left, room - others + least[name]))
        room -= shares[name]
    return {**whole, **shares}


def _texts(column: Column, table: Table) -> list[str]:
    """The head and the cells of a column."""
    place = table.columns.index(column)
    return [column.name, *(row[place] for row in table.rows)]


def _longest_word(lines: Iterable[str]) -> int:
    return max((_cells(word) for line in lines for word in line.split(" ")), default=0)


def _grid(table: Table, columns: Sequence[Column], widths: dict[str, int]) -> list[str]:
    places = [table.columns.index(column) for column in columns]
    total = sum(widths.values()) + _GAP * len(columns)
    rule = _rule() * total
    head = _row_lines([column.name for column in columns], columns, widths)
    lines = [*_styled(head, "bold"), rule]
    for i, row in enumerate(table.rows):
        lines += [rule] * (i in table.sections)
        lines += _styled(_row_lines([row[place] for place in places], columns, widths), table.styles[i])
    return lines


def _row_lines(cells: Sequence[str], columns: Sequence[Column], widths: dict[str, int]) -> list[str]:
    parts = [wrapped(cell, widths[column.name]) or [""] for cell, column in zip(cells, columns, strict=True)]
    lines = []
    for i in range(max(map(len, parts))):
        shown = [part[i] if i < len(part) else "" for part in parts]
        padded = (
            _padded(text, widths[column.name], right=column.right)
            for text, column in zip(shown, columns, strict=True)
        )
        lines.append((" " + (" " * _GAP).join(padded)).replace(NO_BREAK, " ").rstrip())
    return lines


def _blocks(table: Table, width: int) -> list[str]:
    """A block for each record: its first cell, then name and value of each other one that is not empty."""
    heads = [column.name for column in table.columns]
    records = [dict(zip(heads, row, strict=True)) for row in table.rows]
    styles = table.styles
    if table.records == "columns":
        first = heads[0]
        records = [{first: name, **{record[first]: record[name] for record in records}} for name in heads[1:]]
        styles = [""] * len(records)
    lines = []
    for record, style in zip(records, styles, strict=True):
        (_, title), *rest = record.items()
        lines += _styled(wrapped(title, width), style or "bold")
        longest = max((_cells(name) for name, value in rest if value), default=0)
        lines += [line for name, value in rest if value for line in _entry(name, value, longest, width)]
        lines.append("")
    return [line.replace(NO_BREAK, " ") for line in lines[:-1]]


def _entry(name: str, value: str, longest: int, width: int) -> list[str]:
    """A line of a block; a value that does not fit beside its name stands below it."""
    beside = f"  {_padded(name, longest, right=False)}  {value}"
    if _cells(beside) <= width:
        return [beside]
    below = [f"    {line}" for line in wrapped(value, max(width - 4, 1))]
    return [f"  {name}", *below] if name else below


def _cells(text: str) -> int:
    """Cells of a terminal: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _cells(text))
    return space + text if right else text + space


def _rule() -> str:
    try:
        "─".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return "-"
    return "─"


def _styled(lines: Iterable[str], style: str) -> list[str]:
    """Coloured on a terminal alone."""
    if not style or not _has_colours(sys.stdout):
        return list(lines)
    return [f"\033[{_COLOURS[style]}m{line}\033[0m" for line in lines]


def _has_colours(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Prints a document of --json, on stdout: see `json_text`."""
    print(json_text(document, indent=indent), flush=indent is None)


def print_error(error: RrtnError) -> None:
    """Prints an error as one line, on stderr."""
    print_above(_for_person(printable("rrtn: " + " ".join(str(error).split()))))


def end_with_error(error: RrtnError, document: dict[str, Any]) -> NoReturn:
    """Prints the document with the error in it, and the error's line; ends the command."""
    error.fix = as_called(error.fix)
    print_json({**document, "error": error.to_dict()})
    print_error(error)
    raise typer.Exit(error.exit_code)


def end_with_summary(summary: dict[str, Any], code: int, error: RrtnError | None, *, as_json: bool) -> None:
    """Ends a command that goes on until it is ended: with --json the last line has the error in it."""
    if error:
        error.fix = as_called(error.fix)
        summary = {**summary, "error": error.to_dict()}
        print_error(error)
    if as_json:
        print_json(summary, indent=None)
    if code:
        raise typer.Exit(code)


def say(text: str) -> None:
    """Prints a line for the person, on stderr. A label like "note:" is coloured on a terminal."""
    label, colon, _ = text.partition(":")
    text = _for_person(printable(as_called(text)))
    if colon and label in _LABELS and _has_colours(sys.stderr):
        text = f"\033[1;{_LABELS[label]}m{label}\033[0m{text[len(label) :]}"
    print_above(text)


def _for_person(text: str) -> str:
    """A terminal would break a long line inside of numbers and names. A command stays whole, to be copied."""
    if not sys.stderr.isatty() or text.lstrip().startswith("$ "):
        return text
    return "\n".join(wrapped(text, progress.stderr_width()))
