"""What commands print: tables and JSON on stdout, lines for the person on stderr."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from ..runtime.errors import RrtnError
from ..runtime.text import printable
from .program import as_called

if TYPE_CHECKING:
    from rich.table import Table

_PLAIN_WIDTH: Final = 160  # columns, where there is no terminal to ask
_LABELS: Final = {"error": 31, "warning": 33, "note": 33, "skipped": 33}  # ANSI colours


def new_table(*columns: str) -> "Table":
    """An empty table with a line below its head."""
    from rich import box
    from rich.table import Table

    class Printable(Table):
        """Shows the control characters of its cells instead of sending them to the terminal."""

        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*(printable(cell) for cell in cells), **options)

    return Printable(*map(plain, columns), box=box.SIMPLE_HEAD)


def print_table(table: "Table", *, title: str = "", caption: str = "") -> None:
    """Prints a table on stdout. Title and caption may be wider than the table."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    if title:
        console.print(f"[bold]{plain(title)}[/]")
    console.print(table)
    if caption:
        console.print("\n".join(f"[dim]{plain(line)}[/]" for line in caption.split("\n")))


def print_json(document: Any) -> None:
    """Prints the one document of --json, on stdout."""
    print(json.dumps(document, indent=2))


def print_error(error: RrtnError) -> None:
    """Prints an error as one line, on stderr."""
    print("rrtn: " + printable(" ".join(str(error).split())), file=sys.stderr, flush=True)


def end_with_error(error: RrtnError, document: dict[str, Any]) -> NoReturn:
    """Prints the document with the error in it, and the error's line; ends the command."""
    error.fix = as_called(error.fix)
    print_json({**document, "error": error.to_dict()})
    print_error(error)
    raise typer.Exit(error.exit_code)


def say(text: str) -> None:
    """Prints a line for the person, on stderr. A label like "note:" is coloured on a terminal."""
    text = printable(as_called(text))
    label, colon, rest = text.partition(":")
    if colon and label in _LABELS and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[1;{_LABELS[label]}m{label}\033[0m:{rest}"
    print(text, file=sys.stderr, flush=True)


def plain(text: object) -> str:
    """Text of others for rich: brackets are not markup, control characters are shown."""
    from rich.markup import escape

    return escape(printable(text))
