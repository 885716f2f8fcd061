"""rrtn tracks."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.text import counted
from .options import Json, names_with_commas
from .printing import print_json, say


def tracks(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="A table of rrtn score with --segment or --window.")
    ],
    out: Annotated[
        Optional[Path],
        typer.Option(
            help="A folder for the files; default: TABLE's name with .tracks.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    forms: Annotated[
        str,
        typer.Option("--as", help="With commas: audacity, raven, textgrid (Praat), html.", metavar="FORMS"),
    ] = "audacity,html",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Write label tracks and a page of the windows or bursts in a table.

    A track is a file for each recording; the page has all of them, with their level and scores over time.

    Example: rrtn score night.wav --segment --out bursts.csv; rrtn tracks bursts.csv
    """
    from ..runtime.scoring.table_tracks import write_tracks

    folder = out or table.with_suffix(".tracks")
    kinds = list(dict.fromkeys(names_with_commas(forms) or ()))
    files = write_tracks(table, folder, kinds, overwrite=overwrite, say=say)
    if as_json:
        print_json({"out": str(folder), "files": [str(path) for path in files]})
    say(f"{counted(len(files), 'file')} -> {folder}")
