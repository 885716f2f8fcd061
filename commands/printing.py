"""What commands print: tables and JSON on stdout, lines for the person on stderr."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_PLAIN_WIDTH = 160  # columns, where there is no terminal to ask


def new_table(*columns: str) -> "Table":
    """An empty one with a line below its head."""
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def print_table(table: "Table", *, title: str = "", caption: str = "") -> None:
    """A table with a line above and one below, which may be wider than it."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    if title:
        console.print(f"[bold]{plain(title)}[/]")
    console.print(table)
    if caption:
        console.print(f"[dim]{plain(caption)}[/]")


def print_json(document: Any) -> None:
    """The one document of --json, on stdout."""
    print(json.dumps(document, indent=2))


def say(text: str) -> None:
    """For the person, on stderr."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


def plain(text: object) -> str:
    """For rich: brackets in a file's name are no markup."""
    from rich.markup import escape

    return escape(str(text))
