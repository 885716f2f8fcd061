"""rrtn data: synth and check."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from .data_report import print_data_report
from .options import EXIT_SOME_ERRORS, Json
from .printing import plain, print_json, say

data_app = typer.Typer(no_args_is_help=True, help="Make a data set, or check one.")


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    clips: Annotated[int, typer.Option(help="How many.")] = 1000,
    speakers: Annotated[int, typer.Option(help="How many; each is in one split only.")] = 60,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal files.")] = 0,
    workers: Annotated[
        Optional[int], typer.Option(help="Processes; default: one a core.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Synthetic vocal bursts with ten rated emotions, in the Hume-VB layout."""
    from ..runtime.progress import Progress
    from ..train.data.corpus import synthesise

    with Progress("synthesise", clips, "clips") as bar:
        synthesise(
            out,
            clips=clips,
            speakers=speakers,
            seed=seed,
            workers=workers,
            progress=lambda done, _: bar.update(done),
        )
    if as_json:
        print_json({"dir": str(out), "clips": clips, "speakers": speakers, "seed": seed})
    else:
        folder = plain(out)
        say(
            f"{clips} clips of {speakers} speakers in {folder}. Next: rrtn data check {folder}; rrtn train --data {folder}"
        )


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with data_info.csv and wav/.")],
    as_json: Json = False,
) -> None:
    """Read the CSV, decode every file, and print the paper's Table 1, ratings, and what is wrong with them.

    Exit code 2: the CSV is refused; 3: files cannot be decoded.
    """
    from ..runtime.spec import FrontendSpec
    from ..train.data.data_check import check_data

    report = check_data(folder, FrontendSpec())
    print_json(report.to_dict()) if as_json else print_data_report(report)
    for error in report.errors:
        say(f"[bold red]error[/]: {plain(error)}")
    for warning in report.warnings:
        say(f"[bold yellow]warning[/]: {plain(warning)}")
    if report.errors:
        raise typer.Exit(EXIT_SOME_ERRORS)
